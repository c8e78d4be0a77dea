"""Contrast Instructions (arXiv 2309.16155): is a reward model consistent between similar questions?

An item holds two similar questions q and q' and a good answer to each. It becomes two comparisons,
"<item>/q" of the question q with the answers (y_q, y_q'), and "<item>/r" of q' with (y_q', y_q), as
`jaxrm.evaluate.consistency` makes them of other data. C_res asks for R(q, y_q) > R(q, y_q'), C_ins
for R(q, y_q) > R(q', y_q).

The authors publish arrays of JSON (shadowkiller33/Contrast-Instruction on GitHub, in
data/contrast_instructions) and nothing on the Hub. What is read is one file of JSON lines, each row
with its `subset`:

    for s in stack wmt para sum; do
        jq -c --arg subset $s '.[] + {$subset}' ${s}_contrast.json
    done > contrast_instructions.jsonl
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.fields import Row, get, text
from jaxrm.evaluate.benchmark import Benchmark, Credit, Means, Part, Rule
from jaxrm.evaluate.benchmarks.pair_sets import pairs
from jaxrm.evaluate.benchmarks.reading import identity, subset
from jaxrm.evaluate.benchmarks.rules import mean, prompt_key
from jaxrm.evaluate.consistency import contrast_instructions

log = logging.getLogger(__name__)

ITEMS = {"stack": 1188, "wmt": 612, "para": 289, "sum": 36}
"""Items of StackExchange, WMT, Twitter and RealSumm."""

PREFIX = "contrast-"
"""Before the name of a source that it is built from."""

METRICS = ("C_res", "C_ins")

INSTRUCTIONS = {
    "stack": "",
    "wmt": "Translate the following sentence to English: ",
    "para": "Paraphrase the following sentence: ",
    "sum": "Summarize the paragraph: ",
}
"""What is asked of a query; the authors' code has these words."""


def read(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with `query`, `retrieval`, `query_response_k`, `retrieval_response_k` and `subset`."""
    for n, (where, row) in enumerate(rows, start=1):
        name = subset(row, ITEMS, where)
        query, similar, answer, other = (
            text(get(row, column, where), column, where)
            for column in ("query", "retrieval", "query_response_k", "retrieval_response_k")
        )
        item = identity(row, where, f"{name}/{n}")
        asked = ((query, answer, other, "q"), (similar, other, answer, "r"))
        for question, own, strange, side in asked:
            prompt = (Message("user", INSTRUCTIONS[name] + question),)
            fields = {"subset": name, "id": f"{item}/{side}", "where": where}
            yield Comparison.pair(prompt, own, strange, **fields)


def credit(comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]) -> Iterator[Credit]:
    """One in "<subset>/C_res" and one in "<subset>/C_ins" for each item that is consistent."""
    for (query, asked), (_, similar) in _items(comparisons, scores):
        cluster = prompt_key(query)
        yield Credit(f"{query.subset}/C_res", cluster, float(asked[0] > asked[1]))
        yield Credit(f"{query.subset}/C_ins", cluster, float(asked[0] > similar[1]))


def credit_both_ways(
    comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]
) -> Iterator[Credit]:
    """As `credit`, q and q' in either role and half for each; none where they are the same."""
    for (query, asked), (other, similar) in _items(comparisons, scores):
        if query.prompt != other.prompt:
            cluster = prompt_key(query)
            response = mean((float(asked[0] > asked[1]), float(similar[0] > similar[1])))
            instruction = mean((float(asked[0] > similar[1]), float(similar[0] > asked[1])))
            yield Credit(f"{query.subset}/C_res", cluster, response)
            yield Credit(f"{query.subset}/C_ins", cluster, instruction)


Scored = tuple[Comparison, np.ndarray]


def _items(
    comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]
) -> Iterator[tuple[Scored, Scored]]:
    """Both comparisons of each item of which both are there."""
    by_id = {one[0].id: one for one in zip(comparisons, scores, strict=True)}
    for name, query in by_id.items():
        item, _, side = name.rpartition("/")
        if side == "q" and f"{item}/r" in by_id:
            yield query, by_id[f"{item}/r"]


def figures(means: Means) -> Mapping[str, float]:
    """Both metrics: their unweighted means over the subsets, and of each subset."""
    overall = {metric: mean(means[f"{name}/{metric}"] for name in ITEMS) for metric in METRICS}
    subsets = [f"{name}/{metric}" for metric in METRICS for name in ITEMS]
    return overall | {group: means[group] for group in subsets}


def contrasts(source: str) -> Benchmark:
    """The same question of any comparisons that rank responses to similar prompts.

    Args:
      source: as for `pairs`; its name gets `PREFIX`. Prompts without a similar one are left out.

    Raises: as `pairs` and, later, `consistency.contrast_instructions`.
    """
    base = pairs(source)

    def read(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
        comparisons = list(base.read(rows, part))
        made = contrast_instructions(comparisons)
        prompts = len({comparison.prompt for comparison in comparisons})
        log.info("%s: %d of %d prompts have a similar one", source, len(made) // 2, prompts)
        yield from made

    def of_all(comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]) -> Iterator[Credit]:
        for one in credit(comparisons, scores):
            yield dataclasses.replace(one, group=one.group.rpartition("/")[2])

    says = (
        "C_res, how often the question's own answer scores strictly higher than a similar "
        "question's, and C_ins, how often it scores strictly higher under its own question than "
        "under the similar one; similar is a cosine of words (jaxrm.evaluate.similar)."
    )
    rule = Rule("strict", says, of_all, lambda means: {name: means[name] for name in METRICS})
    return dataclasses.replace(
        base,
        name=PREFIX + base.name,
        title=f"Contrast Instructions (arXiv 2309.16155) out of {source}",
        read=read,
        rules=(rule,),
    )


CONTRAST_INSTRUCTIONS = Benchmark(
    name="contrast_instructions",
    title="Contrast Instructions (arXiv 2309.16155)",
    parts=(Part("shadowkiller33/Contrast-Instruction"),),
    read=read,
    expected={name: 2 * count for name, count in ITEMS.items()},
    rules=(
        Rule(
            "official",
            "C_res, how often the question's own answer scores strictly higher than the similar "
            "question's, and C_ins, how often it scores strictly higher under its own question "
            "than under the similar one (shadowkiller33/Contrast-Instruction, code/inference*.py). "
            "The means over the four sets are ours: the authors report each.",
            credit,
            figures,
        ),
        Rule(
            "both ways",
            "As official, with each question in either role, and without items that hold the same "
            "question and answer twice: those (16 of the 36 of sum) cannot be won, so that the "
            "official figures of sum end at .556.",
            credit_both_ways,
            figures,
        ),
    ),
)
