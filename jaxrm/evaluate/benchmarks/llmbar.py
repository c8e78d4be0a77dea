"""LLMBar (arXiv 2310.07641): does an answer follow the instruction, or only look as if it did?

The data set's home on the Hub is a loading script, which `datasets` no longer runs; the files of
the authors' repository (princeton-nlp/LLMBar, `Dataset/LLMBar/*/dataset.json`) hold the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jaxrm.data.comparison import Comparison
from jaxrm.data.fields import Known, Row, choice, get, response, user
from jaxrm.evaluate.benchmark import Benchmark, Means, Part, Rule
from jaxrm.evaluate.benchmarks.reading import identity, pair, subset
from jaxrm.evaluate.benchmarks.rules import OVERALL, mean, strict

ADVERSARIAL = {
    "adversarial_neighbor": 134,
    "adversarial_gptinst": 92,
    "adversarial_gptout": 47,
    "adversarial_manual": 46,
}

ROWS = {"natural": 100} | ADVERSARIAL

SPLITS = {
    "Natural": "natural",
    "Neighbor": "adversarial_neighbor",
    "GPTInst": "adversarial_gptinst",
    "GPTOut": "adversarial_gptout",
    "Manual": "adversarial_manual",
}
"""What the splits hold."""


def read(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with `input`, `output_1`, `output_2` and `label`, the split saying which subset, or with
    `prompt`, `chosen`, `rejected` and `subset`."""
    for n, (where, row) in enumerate(rows, start=1):
        fields = (pair if "prompt" in row else labelled)(row, where)
        fields["subset"] = subset(row, ROWS, where, SPLITS.get(part.split, ""))
        name = identity(row, where, f"{fields['subset']}/{n}")
        yield Comparison(**fields, id=name, where=where)


def labelled(row: Row, where: str) -> Known:
    """Two outputs, and `label`, 1 or 2, for the better one."""
    prompt = user(row, "input", where)
    responses = tuple(
        response(prompt, get(row, output, where), output, where)
        for output in ("output_1", "output_2")
    )
    better = choice(get(row, "label", where), "label", (1, 2), where)
    return {"prompt": prompt, "responses": responses, "ranks": (better - 1, 2 - better)}


def figures(means: Means) -> Mapping[str, float]:
    """The mean of all five subsets, of the adversarial ones, and each."""
    subsets = {name: means[name] for name in ROWS}
    adversarial = mean(means[name] for name in ADVERSARIAL)
    return {OVERALL: mean(subsets.values()), "adversarial": adversarial} | subsets


LLMBAR = Benchmark(
    name="llmbar",
    title="LLMBar (arXiv 2310.07641)",
    parts=tuple(Part("princeton-nlp/LLMBar", "LLMBar", split) for split in SPLITS),
    read=read,
    expected=ROWS,
    rules=(
        Rule(
            "official",
            "Accuracy of each subset, strict, so that a tie is lost; the unweighted mean of the "
            "four adversarial ones, and of all five, the overall figure.",
            strict,
            figures,
        ),
    ),
)
