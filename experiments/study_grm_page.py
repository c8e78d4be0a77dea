"""The page of the study of GRM: its runs as a contest has them, and the preregistered verdict.

The rules are those of docs/preregistration_grm.md, and how the numbers read is in docs/grm.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxrm import statistics
from jaxrm.report.tables import between, markdown, number
from jaxrm.statistics import Paired, holm
from jaxrm.study import contest
from jaxrm.study.contest import Run, Runs
from jaxrm.study.records import Choices, Record

CONTROLS = ("bt", "bt_early", "lp_ft", "l2", "replay")
VARIANTS = ("grm_sft", "grm_dpo", "grm_dpo_reference_free")
MAIN = CONTROLS + VARIANTS

ENDPOINT = "ood_prompt"
SPLITS = (ENDPOINT, "id", "ood_response", "spurious", "val")

WORTHWHILE = 0.02
"""The gain in accuracy below which a claim is refuted."""

PARTS = {
    "main": "GRM and its controls",
    "sizes": "Training pairs and label noise",
    "strengths": "Strength of the text loss",
    "heads": "Depth of the reward head",
    "frozen": "A frozen trunk",
    "curves": "Longer training",
}

Claims = Mapping[str, tuple[Paired, float, str]]
"""By variant: its gain over a control, p by Holm over the variants, and the verdict."""


def write(records: Sequence[Record], choices: Choices, page: Path) -> None:
    """Writes the page as Markdown, with its figures beside it.

    Args:
      records: of all runs but the screen's, those of the main condition first.
      choices: the screen's.
    """
    runs = {
        title: Run(part, choices, against="bt", beside=("language", "drift"))
        for name, title in PARTS.items()
        if (part := of_part(records, name))
    }
    about = [ABOUT, amount(records)]
    if "main" in {record["part"] for record in records}:
        about.append(verdicts(runs[PARTS["main"]].records))
    title = "GRM against its controls on the toy world"
    contest.write(runs, page, title=title, about="\n\n".join(about))


def of_part(records: Sequence[Record], name: str) -> list[Record]:
    """A part's runs as records of a contest.

    A part that varies one thing of the main condition for `bt` and `grm_sft` borrows their runs
    there: one that several parts asked for is kept by the first of them.
    """
    own = [record for record in records if record["part"] == name]
    if name == "main":
        return list(map(as_of_contest, own))
    seeds = {record["seed"] for record in own}
    borrowed = [
        record
        for record in records
        if record["part"] == "main"
        and name != "curves"
        and record["method"] in ("bt", "grm_sft")
        and record["seed"] in seeds
        and (name == "sizes" or record["condition"] == records[0]["condition"])
    ]
    return sorted(map(as_of_contest, own + borrowed), key=lambda record: record["order"])


def as_of_contest(record: Record) -> Record:
    """A run's record as a contest has it (see jaxrm.study.records)."""
    condition, head, method = record["condition"], record["head"], record["method"]
    words = [f"{condition['pairs']:,} pairs", f"{100 * condition['label_noise']:g} % label noise"]
    if condition["epochs"] > 1:
        words.append(f"{condition['epochs']} epochs")
    if head["kind"] != "linear":
        words.append(f"{head['layers']} hidden layer{'s' if head['layers'] > 1 else ''}")
    if record["part"] == "strengths":
        method = f"{method}, {record['strength']:g}"
    drift = record["drift"]
    return record | {
        "method": method,
        "condition": ", ".join(words),
        "order": (-condition["label_noise"], condition["pairs"], words),
        "budget": "labels",
        "splits": {s: record["splits"][s] | {"drift": drift.get(s)} for s in SPLITS},
    }


def verdicts(records: Sequence[Record]) -> str:
    """Each variant against the best control and against plain BT at each condition, and what that
    says of GRM at the first."""
    rows, on_grm = [], ""
    for (condition, _), methods in contest.cells(records).items():
        best = best_control(methods)
        on_grm = on_grm or overall(claims(methods, best))
        for control in dict.fromkeys((best, "bt")):
            for variant, (gain, p, verdict) in claims(methods, control).items():
                bounds = between(gain.low, gain.high, "+.2f")
                cells = [gain.n, number(gain.mean, "+.2f"), bounds, f"{gain.p:.4f}", f"{p:.4f}"]
                rows.append([condition, variant, control, *cells, f"**{verdict}**"])
    head = ["condition", "variant", "against", "n", "gain", "95 % interval", "p", "Holm p", ""]
    return f"## The claim: {on_grm}\n\n{RULES}\n\n{markdown(head, rows, left=3)}"


def claims(methods: Runs, control: str) -> Claims:
    """Of each variant that has two seeds in common with the control."""
    compared = {name: methods[name] for name in (control, *VARIANTS) if name in methods}
    gains = contest.gains(compared, control, ENDPOINT, "macro")
    # A variant that is missing was to be tested too: it still counts.
    adjusted = holm([gains[name].p if gains.get(name) else 1.0 for name in VARIANTS])
    return {
        name: (gains[name], p, statistics.verdict(gains[name], worthwhile=WORTHWHILE))
        for name, p in zip(VARIANTS, adjusted, strict=True)
        if gains.get(name)
    }


def best_control(methods: Runs) -> str:
    """The control with the highest mean on the endpoint, over the seeds that all of them have.

    Chosen on the endpoint itself, which favours the controls.
    """
    controls = [name for name in CONTROLS if name in methods]
    seeds = set.intersection(*(set(methods[name]) for name in controls))

    def mean(name: str) -> float:
        return np.mean([methods[name][seed]["splits"][ENDPOINT]["macro"] for seed in seeds])

    return max(controls, key=mean)


def overall(made: Claims) -> str:
    """The verdict on GRM as a whole: supported by one variant that is, if its p is below .05 too;
    refuted if all variants are; else open."""
    if any(verdict == "supported" and p < 0.05 for _, p, verdict in made.values()):
        return "supported"
    refuted = {name for name, (_, _, verdict) in made.items() if verdict == "refuted"}
    return "refuted" if refuted == set(VARIANTS) else "open"


def amount(records: Sequence[Record]) -> str:
    """How much was run, and on how many items."""
    hours = sum(record["seconds"] for record in records) / 3600
    tokens = sum(record["tokens"] for record in records) / 1e6
    items = (f"{split} {records[0]['splits'][split]['n']:,}" for split in SPLITS)
    return (
        f"{len(records)} runs: {hours:.1f} hours and {tokens:.0f} million tokens of training. "
        f"Comparisons per seed: {', '.join(items)}."
    )


ABOUT = """\
Made from the records of `python -m experiments.study_grm --confirm`, by the rules of
`docs/preregistration_grm.md`; how the numbers read is in `docs/grm.md`, and what the base itself
knows (its own ranking, a linear probe) in `docs/toyworld.md`. Each seed redraws families, pairs,
head, order and items; the style cue agrees with 70 % of labels everywhere. Language: how often the
better response is the likelier one under the model's own language-model head. Drift: mean cosine
distance, in hundredths, of the states that rewards are read from to the base's."""

RULES = """\
At the first condition, against the best control, which is the one of `bt`, `bt_early`, `lp_ft`,
`l2` and `replay` with the highest mean on `ood_prompt` itself: the hardest comparison, and a choice
that favours the controls. GRM is supported if one variant is with a Holm p below .05, refuted if
all are, and open otherwise. A variant is supported if the interval of its gain, in points of
accuracy on `ood_prompt` over the control's of the same seed, lies above 0; else refuted if its
upper end is below 2 points; else open. p is adjusted over the three variants."""
