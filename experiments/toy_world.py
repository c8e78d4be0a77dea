"""What the toy world is, and whether it keeps its design rules: measures, and writes a page.

    python -m experiments.toy_world                                       # docs/toyworld.md
    python -m experiments.toy_world --lexicon dev --base runs/dev/base/export --out dev.md

Draws every kind of data that the world has, and reads the splits with a frozen base that has read
the world's text. The page's words are in `toy_world.md`; it is the same for the same world and
base.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
import random
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from jaxrm import cli, files, toy
from jaxrm.data.comparison import Comparison
from jaxrm.errors import OptionError, require
from jaxrm.evaluate import scorers
from jaxrm.evaluate.probe import final_states, fit_head
from jaxrm.huggingface import names
from jaxrm.methods.bench import Bench
from jaxrm.models import heads
from jaxrm.read.accuracy import Accuracy, accuracy_by_subset, macro_accuracy
from jaxrm.report.tables import markdown, number, spread
from jaxrm.statistics import estimate
from jaxrm.toy import SPLITS, World, samples
from jaxrm.toy import gold as grading
from jaxrm.toy.author import FLATTERY
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.samples import one_of_each, question

LABELLED, TEST = SPLITS[:2], SPLITS[2:]
"""The splits that annotators labelled, and those whose labels are clean."""

RANKING, PROBE = (0.55, 0.70), (0.85, 1.0)
"""Where the base's likelihood, and a linear probe of its states, may lie on every split, in family-
macro accuracy."""
LEAST_FAMILIES, LONGEST = 16, 28
"""Families, and tokens of the longest question, without the chat template."""
MOST_TIES, GARBAGE = 0.01, 1000
"""The share of pairs of garbage texts, among so many of them, that may have the same gold."""

TEMPLATE = Path(__file__).with_suffix(".md")


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure the toy world and write the page about it."""

    lexicon: Literal["report", "dev"] = "report"
    base: Path | None = None
    """A base that has read the lexicon's text, as a directory or by its name on the Hub; the
    shipped one without it."""
    out: Path = Path("docs/toyworld.md")
    items: int = 2000
    """Comparisons per split; a probe is fitted to as many others."""
    seeds: int = 5
    """How many worlds, from seed 0 on."""
    documents: int = 40_000
    """Questions of the pretraining text."""

    def __post_init__(self):
        for name in ("items", "seeds", "documents"):
            require(getattr(self, name) >= 1, f"--{name}", "at least 1", getattr(self, name))
        if self.base is None and self.lexicon != "report":
            raise OptionError("the shipped base has read the report lexicon: name one with --base")


def main(cfg: Config) -> None:
    """Measures, and writes the page."""
    files.check_apart(cfg.out, [cfg.base])
    files.check_writable(cfg.out)
    text = page(measure(cfg))
    with files.replacing(cfg.out) as draft:
        draft.write_text(text, "utf-8")
    print(cfg.out)


# What is measured


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """Comparisons, best first by their labels, and what the frozen base says of them.

    Attributes:
      logps: float [n, K], of their responses.
      states: float [n, K, d], those that a reward would be read from.
    """

    comparisons: Sequence[Comparison]
    logps: np.ndarray
    states: np.ndarray

    def __getitem__(self, part: slice) -> Reading:
        return Reading(self.comparisons[part], self.logps[part], self.states[part])

    @property
    def by_gold(self) -> list[Comparison]:
        """The comparisons with the ranks of gold in place of the label's."""
        return [
            dataclasses.replace(c, ranks=tuple(sorted(c.scores)[::-1].index(s) for s in c.scores))
            for c in self.comparisons
        ]


Drawn = Mapping[str, Reading]
"""One seed's splits as the base reads them and, with `OTHER` before their names, other comparisons
of each test split's law, to fit a probe to."""
OTHER = "other "


def asked(drawn: Drawn, splits: Iterable[str]) -> set[str]:
    """All questions of these splits, the probes' too."""
    readings = [reading for name, reading in drawn.items() if name.removeprefix(OTHER) in splits]
    return {question(comparison) for reading in readings for comparison in reading.comparisons}


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What the page is made from.

    Attributes:
      world: the first, whose text the base has read and which the samples are from.
      text: that text.
      longest: tokens of the longest question in it or in a split.
    """

    cfg: Config
    world: World
    drawn: Sequence[Drawn]
    text: Sequence[Comparison]
    longest: int


def measure(cfg: Config) -> Measured:
    """Draws the worlds' data and reads it with the base."""
    bench = Bench(names.local(cfg.base).directory if cfg.base else toy.shipped_base())
    readings = {"logps": heads.response_logps, "states": final_states}

    def draw(world: World) -> Drawn:
        sizes = dict.fromkeys(LABELLED, cfg.items) | dict.fromkeys(TEST, 2 * cfg.items)
        rows = [c for split, n in sizes.items() for c in world.comparisons(split, n)]
        every = Reading(rows, **bench.read(bench.start(0), bench.pack(rows, "all"), readings))
        names = [*LABELLED, *(name for split in TEST for name in (split, OTHER + split))]
        return {name: every[i * cfg.items : (i + 1) * cfg.items] for i, name in enumerate(names)}

    worlds = [World(seed, cfg.lexicon) for seed in range(cfg.seeds)]
    drawn = [draw(world) for world in tqdm(worlds, desc="worlds", unit="world")]
    text = worlds[0].pretraining_text(cfg.documents)
    questions = {question(c) for c in text}.union(*(asked(d, SPLITS) for d in drawn))
    tokens = bench.tokenizer.hf(sorted(questions), add_special_tokens=False)["input_ids"]
    return Measured(cfg, worlds[0], drawn, text, max(map(len, tokens)))


def linear(fitted: Reading, test: Reading) -> list[np.ndarray]:
    """Float [K] for each comparison of `test`: the linear reward fitted to `fitted`'s labels."""
    return list(test.states @ fit_head(fitted.states, fitted.comparisons))


COLUMNS: Mapping[str, tuple[Sequence[str], Callable[[Drawn, str], Sequence[np.ndarray]]]] = {
    "likelihood": (SPLITS, lambda d, s: d[s].logps),
    "against labels": (LABELLED, lambda d, s: d[s].logps),
    "probe": (TEST, lambda d, s: linear(d[OTHER + s], d[s])),
    "probe of `train`": (TEST, lambda d, s: linear(d["train"], d[s])),
    "words": (TEST, lambda d, s: scorers.bag_of_words(d["train"].comparisons)(d[s].comparisons)),
    "longer": (SPLITS, lambda d, s: scorers.longer(d[s].comparisons)),
    "shorter": (SPLITS, lambda d, s: [-n for n in scorers.longer(d[s].comparisons)]),
}
"""The columns of the table by split: the splits that each is of, and its scores of one of them."""


def accuracy(drawn: Drawn, column: str, split: str) -> float:
    """How often a column's scores order as gold does, or as the labels do: family-macro."""
    reading, (_, scores) = drawn[split], COLUMNS[column]
    ordered = reading.comparisons if column == "against labels" else reading.by_gold
    return macro_accuracy(list(scores(drawn, split)), ordered)


def garbage_ties(world: World) -> float:
    """The share of pairs of garbage texts with the same gold; of all families, the highest."""
    rng, vocabulary = random.Random(0), sorted(LEXICONS[world.lexicon].kinds)

    def garbage() -> str:
        if rng.random() < 0.5:
            return "".join(rng.choices(string.printable, k=rng.randint(1, 60)))
        return " ".join(rng.choices(vocabulary, k=rng.randint(1, 10)))

    def ties(asked: str) -> float:
        counts = collections.Counter(world.gold(asked, garbage()) for _ in range(GARBAGE))
        return sum(n * (n - 1) for n in counts.values()) / (GARBAGE * (GARBAGE - 1))

    return max(ties(question(comparison)) for comparison in one_of_each(world))


# The page


def page(m: Measured) -> str:
    """The whole page as Markdown."""
    slots = {
        "lexicon": m.cfg.lexicon,
        "seeds": m.cfg.seeds,
        "items": f"{m.cfg.items:,}",
        "flattery": f"{100 * FLATTERY:g} %",
        "world": inspect.getdoc(toy),
        "attributes": inspect.getdoc(grading.attributes),
        "rules": rules(m),
        "by_split": by_split(m),
        "by_family": by_family(m),
        "text": "\n\n".join(c.prompt + "\n".join(c.responses) for c in m.text[:2]),
    }
    slots |= samples.labels(m.world.lexicon, m.cfg.items)
    for shown in (samples.graded_answers, samples.compared, samples.rated, samples.solved):
        slots |= shown(m.world)
    return TEMPLATE.read_text("utf-8").format_map(slots)


def rules(m: Measured) -> str:
    """Every design rule with its figure."""

    def families(drawn: Drawn, split: str) -> set[str]:
        return {comparison.subset for comparison in drawn[split].comparisons}

    text = {question(c) for c in m.text}
    in_text = sum(len(text & asked(d, SPLITS)) for d in m.drawn)
    in_train = sum(len(asked(d, ["train"]) & asked(d, SPLITS[1:])) for d in m.drawn)
    in_val = sum(len(asked(d, ["val"]) & asked(d, TEST)) for d in m.drawn)
    seen = sum(len(families(d, "train") & families(d, "ood_prompt")) for d in m.drawn)
    ties, count = garbage_ties(m.world), len(m.world.families)
    likely = {s: np.mean([accuracy(d, "likelihood", s) for d in m.drawn]) for s in SPLITS}
    probed = {s: np.mean([accuracy(d, "probe", s) for d in m.drawn]) for s in TEST}
    untied = f"at most {number(MOST_TIES)} %"
    rows = [
        ("families of questions", f"at least {LEAST_FAMILIES}", count, count >= LEAST_FAMILIES),
        ("tokens of the longest question", f"at most {LONGEST}", m.longest, m.longest <= LONGEST),
        ("garbage texts with the same gold", untied, f"{number(ties)} %", ties <= MOST_TIES),
        ("prompts of the pretraining text in any split", 0, in_text, not in_text),
        ("prompts of `train` in any other split", 0, in_train, not in_train),
        ("prompts of `val` in a test split", 0, in_val, not in_val),
        ("families of `train` in `ood_prompt`", 0, seen, not seen),
        ("likelihood orders by gold, on every split", *within(RANKING, likely)),
        ("a linear probe does, on every test split", *within(PROBE, probed)),
    ]
    cells = ([*row, "met" if holds else "**not met**"] for *row, holds in rows)
    return markdown(["rule", "asked", "measured", ""], cells)


def within(bounds: tuple[float, float], values: Mapping[str, float]) -> tuple[str, str, bool]:
    """What is asked of all values, the lowest and the highest with their splits, and whether they
    keep to it."""
    low, high = min(values, key=values.get), max(values, key=values.get)
    words = " to ".join(f"{100 * bound:.0f}" for bound in bounds)
    span = " to ".join(f"{number(values[split])} (`{split}`)" for split in (low, high))
    return words, span, bounds[0] <= values[low] and values[high] <= bounds[1]


def by_split(m: Measured) -> str:
    """Every figure of `COLUMNS` on its splits."""

    def cell(column: str, split: str) -> str:
        if split not in COLUMNS[column][0]:
            return ""
        return spread(estimate([accuracy(drawn, column, split) for drawn in m.drawn]))

    rows = [[f"`{split}`", *(cell(column, split) for column in COLUMNS)] for split in SPLITS]
    return markdown(["", *COLUMNS], rows)


def by_family(m: Measured) -> str:
    """Likelihood and probe on every family, out of distribution and in it, over all seeds."""
    columns: dict[str, dict[str, Accuracy]] = {}
    for split in ("ood_prompt", "id"):
        rows = [c for d in m.drawn for c in d[split].by_gold]
        for name in ("likelihood", "probe"):
            scores = [row for d in m.drawn for row in COLUMNS[name][1](d, split)]
            columns[f"{name}, `{split}`"] = accuracy_by_subset(scores, rows)

    def cell(column: dict[str, Accuracy], family: str) -> str:
        return spread(vars(column[family]), mean="accuracy") if family in column else ""

    table = [[name, *(cell(c, name) for c in columns.values())] for name in m.world.families]
    return markdown(["family", *columns], table)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
