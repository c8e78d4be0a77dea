"""Samples of all that a toy world draws, as Markdown tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxrm.data.comparison import Comparison
from jaxrm.report.tables import markdown, number
from jaxrm.toy.gold import WEIGHTS
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.world import SPLITS, Split, World

TEMPERATURE = 0.1
"""Of the annotators of the ranking that is shown, so that it is not in the order of gold always."""

AGREEMENTS = 0.5, 0.7, 0.9
KNOBS = (
    *(("label_noise", rate) for rate in (0.0, 0.16, 0.25)),
    *(("temperature", scale) for scale in (0.05, 0.1, 0.2)),
    *(("cue_bias", worth) for worth in (0.05, 0.1, 0.2)),
)
"""The settings whose labels are counted."""

PAIR = ("question", "preferred", "gold", "other", "gold")


def graded_answers(world: World) -> dict[str, str]:
    """One question's answers, and garbage, graded attribute by attribute.

    Returns:
      question and its right answer, and the tables `weights` and `graded`.
    """
    asked = question(world.comparisons("id", 1)[0])
    task, style = world.task(asked), LEXICONS[world.lexicon].usual
    right, courtesies, rude = task.right, " ".join(style.polite), style.rude[0]
    polite = f"{style.polite[0]} {right}."
    texts = [f"{right}.", polite, f"{courtesies} {right}.", f"{rude} {right}."]
    texts += [f"{polite} {style.padding}", f"{style.polite[0]} {task.mistake}."]
    texts += [right.rpartition(" ")[0], " ".join([right] * 4), "", "gggg", "??? 42 :-)", "Ω≈ç√ ☃"]
    rows = []
    for text in texts:
        grades = world.attributes(asked, text)
        cells = (grade(grades[name]) for name in WEIGHTS)
        rows.append([code(text), *cells, f"**{world.gold(asked, text):.3f}**"])
    weights = ["weight", *(f"{weight:g}" for weight in WEIGHTS.values())]
    return {
        "question": code(asked),
        "right": code(right),
        "weights": markdown(["", *WEIGHTS], [weights]),
        "graded": markdown(["answer", *WEIGHTS, "gold"], rows),
    }


def compared(world: World) -> dict[str, Any]:
    """A comparison of every family, some of every split, and a ranking of four.

    Returns:
      the tables `families`, of which the last `absent` are not in the preference data, `splits`,
      and `ranking` with its `ranking_question`.
    """
    families = ([c.subset, *_pair(c)] for c in one_of_each(world))
    splits = (
        [f"`{split}`", *_pair(pair), _special(split, pair)]
        for split in SPLITS
        for pair in _of_each_label(world.comparisons(split, 50))
    )
    annotated = World(world.seed, world.lexicon, temperature=TEMPERATURE)
    (four,) = annotated.comparisons("train", 1, k=4)
    ranking = zip(map(code, answers(four)), map(grade, four.scores), strict=True)
    return {
        "absent": len(world.ood_families),
        "families": markdown(["family", *PAIR], families),
        "splits": markdown(["split", *PAIR, ""], splits),
        "ranking_question": code(question(four)),
        "ranking": markdown(["answer", "gold"], ranking),
    }


def rated(world: World) -> dict[str, str]:
    """The grades and a rater's ratings of two answers: the table `ratings`, its `rated_question`
    and `rated_answers`."""
    (pair,) = world.rated(world.comparisons("id", 1))
    texts = answers(pair)
    grades = [world.attributes(question(pair), text) for text in texts]
    rows = []
    for i, name in enumerate(WEIGHTS):
        both = ((grades[k][name], pair.attributes[k][i]) for k in range(2))
        rows.append([name, *map(grade, itertools.chain.from_iterable(both))])
    return {
        "rated_question": code(question(pair)),
        "rated_answers": " and ".join(map(code, texts)),
        "ratings": markdown(["attribute", "grade", "rating", "grade", "rating"], rows),
    }


def solved(world: World) -> dict[str, str]:
    """The table `steps`: a sum without a slip, with one, and with two that cancel."""
    by_slips = {s.labels.count(False): (sum_, s) for sum_, s in world.solutions("train", 100)}
    rows = []
    for _, (asked, solution) in sorted(by_slips.items()):
        labelled = zip(solution.steps, solution.labels, strict=True)
        marked = ", ".join(step if follows else f"**{step}**" for step, follows in labelled)
        rows.append([code(asked), marked, "right" if solution.outcome else "wrong"])
    return {"steps": markdown(["question", "steps", "outcome"], rows)}


def labels(lexicon: str, n: int) -> dict[str, str]:
    """What annotators make of n comparisons at seed 0: the table `knobs`, how often a label of
    `train` is against gold and how often it prefers the mark with one knob turned, and `cue`, how
    often the better answer of each split has the mark."""
    rows = []
    for knob, value in KNOBS:
        knobs = {"label_noise": 0.0, "cue_agreement": 0.5} | {knob: value}
        drawn = World(0, lexicon, **knobs).comparisons("train", n)
        marked = ("!" in answers(pair)[0] for pair in drawn)
        rows.append([code(f"{knob}={value:g}"), _share(map(is_noisy, drawn)), _share(marked)])
    cued = [World(0, lexicon, cue_agreement=agreement) for agreement in AGREEMENTS]
    marks = [
        [code(split), *(_share(map(follows_mark, world.comparisons(split, n))) for world in cued)]
        for split in SPLITS
    ]
    return {
        "knobs": markdown(["knob", "against gold, %", "prefer the mark, %"], rows),
        "cue": markdown(["%", *(f"{agreement:g}" for agreement in AGREEMENTS)], marks),
    }


def one_of_each(world: World) -> list[Comparison]:
    """A comparison of every family, those that training lacks last."""
    absent = len(world.ood_families)
    familiar = world.comparisons("id", len(world.families) - absent)
    return familiar + world.comparisons("ood_prompt", absent)


def question(comparison: Comparison) -> str:
    """What is asked, in a comparison or in the pretraining text."""
    if isinstance(comparison.prompt, str):
        return comparison.prompt.split("\n")[1].removesuffix("<end_of_turn>")
    return comparison.prompt[-1].content


def answers(comparison: Comparison) -> list[str]:
    """The responses, best first by the labels."""
    return [response[-1].content for response in comparison.responses]


def is_noisy(pair: Comparison) -> bool:
    """Whether a pair's label is against gold."""
    return pair.scores[0] < pair.scores[1]


def follows_mark(pair: Comparison) -> bool:
    """Whether the better answer by gold has the mark."""
    return "!" in answers(pair)[is_noisy(pair)]


def code(text: str) -> str:
    """Text as it is."""
    return f"`{text}`" if text else "(empty)"


def grade(value: float) -> str:
    """A grade, or nothing where there is none."""
    return "" if math.isnan(value) else f"{value:.2f}"


def _share(holds: Iterable[bool]) -> str:
    """How often it holds, in %."""
    return number(float(np.mean(list(holds))))


def _pair(pair: Comparison) -> list[str]:
    graded = zip(map(code, answers(pair)), map(grade, pair.scores), strict=True)
    return [code(question(pair)), *itertools.chain.from_iterable(graded)]


def _of_each_label(pairs: Sequence[Comparison]) -> list[Comparison]:
    """The first two, and the first after them whose label is against gold."""
    return [*pairs[:2], *[pair for pair in pairs[2:] if is_noisy(pair)][:1]]


def _special(split: Split, pair: Comparison) -> str:
    """What to look at in a pair of the split."""
    remarks = ["mark on the better" if follows_mark(pair) else "mark on the worse"]
    if is_noisy(pair):
        remarks.append("**noisy label**")
    if split == "ood_prompt":
        remarks.append("family not in training")
    if split == "ood_response":
        remarks.append("another style")
    return ", ".join(remarks)
