"""What the toy world is, and whether it keeps its design rules: measures, and writes a page.

    python -m experiments.toy_world                                       # docs/toyworld.md
    python -m experiments.toy_world --lexicon dev --base runs/dev/base/export --out dev.md

Draws every kind of data that the world has, and reads the splits with a frozen base that has read
the world's text. The page's words are in `toy_world.md`; it is the same for the same world and
base, but for the speeds.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
import random
import string
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxrm import cli, files, parallel, toy
from jaxrm.data import chat
from jaxrm.data.audit.floors import bag_of_words, longer
from jaxrm.data.comparison import Comparison
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import OptionError, require
from jaxrm.evaluate.probe import final_states, fit_head
from jaxrm.huggingface import hub
from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.read.accuracy import Accuracy, accuracy_by_subset, macro_accuracy
from jaxrm.read.reading import read
from jaxrm.report.tables import markdown, number, spread
from jaxrm.statistics import estimate
from jaxrm.toy import SPLITS, World, samples
from jaxrm.toy import gold as grading
from jaxrm.toy.author import FLATTERY
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.samples import answers, follows_mark, is_noisy, one_of_each, question

LABELLED: tuple[toy.Split, ...] = ("train", "val")
"""The splits that annotators labelled; the labels of the others are clean."""
TEST: tuple[toy.Split, ...] = ("id", "ood_prompt", "ood_response", "spurious")

RANKING, PROBE = (0.55, 0.70), (0.85, 1.0)
"""Where the base's likelihood, and a linear probe of its states, may lie on every split, in family-
macro accuracy."""
LEAST_FAMILIES, LONGEST_QUESTION = 16, 28
"""Counted in tokens, without the chat template."""
MOST_TIES, GARBAGE = 0.01, 1000
"""The share of pairs of garbage texts, among so many of them, that may have the same gold."""

AGREEMENTS = 0.5, 0.7, 0.9
KNOBS = (
    *(("label_noise", rate) for rate in (0.0, 0.16, 0.25)),
    *(("temperature", scale) for scale in (0.05, 0.1, 0.2)),
    *(("cue_bias", worth) for worth in (0.05, 0.1, 0.2)),
)
"""The settings whose labels are counted."""

TEMPLATE = Path(__file__).with_suffix(".md")


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure the toy world and write the page about it."""

    lexicon: Literal["report", "dev"] = "report"
    base: Path | None = None
    """A base that has read the lexicon's text; the shipped one without it."""
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
      logps: float [K] for each comparison, of its responses.
      states: float [K, d], those that a reward would be read from.
    """

    comparisons: Sequence[Comparison]
    logps: Sequence[np.ndarray]
    states: Sequence[np.ndarray]

    def __getitem__(self, part: slice) -> Reading:
        return Reading(self.comparisons[part], self.logps[part], self.states[part])

    @property
    def by_gold(self) -> list[Comparison]:
        """The comparisons with the ranks of gold in place of the label's."""
        return [
            dataclasses.replace(c, ranks=tuple(sorted(c.scores)[::-1].index(s) for s in c.scores))
            for c in self.comparisons
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """One seed's splits as the base reads them, and other comparisons of each test split's law, to
    fit a probe to."""

    splits: Mapping[toy.Split, Reading]
    others: Mapping[toy.Split, Reading]

    def questions(self, splits: Iterable[toy.Split]) -> set[str]:
        """All questions of these splits, the probes' too."""
        readings = [part[s] for s in splits for part in (self.splits, self.others) if s in part]
        return {question(c) for reading in readings for c in reading.comparisons}

    def families(self, split: toy.Split) -> set[str]:
        """The families of a split."""
        return {comparison.subset for comparison in self.splits[split].comparisons}


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What the page is made from.

    Attributes:
      world: the first, whose text the base has read and which the samples are from.
      text: that text.
      longest: tokens of the longest question in it or in a split.
      speeds: comparisons, and questions of the text with their answers, drawn per second.
    """

    cfg: Config
    world: World
    drawn: Sequence[Drawn]
    text: Sequence[Comparison]
    longest: int
    speeds: tuple[float, float]

    def over_seeds(self, figure: Figure, split: toy.Split) -> np.ndarray:
        """Float [seeds]: a figure of one split."""
        return np.array([figure(drawn, split) for drawn in self.drawn])


Figure = Callable[[Drawn, toy.Split], float]
"""A family-macro accuracy on one split of one seed."""


def measure(cfg: Config) -> Measured:
    """Draws the worlds' data and reads it with the base."""
    base, mesh = cfg.base or toy.shipped_base(), parallel.make_mesh(parallel.MeshShape())
    tokenizer, model = load_tokenizer(base), hub.load(base, HeadConfig(), mesh=mesh)
    readings = {"logps": heads.response_logps, "states": final_states}

    def draw(world: World) -> Drawn:
        sizes = dict.fromkeys(LABELLED, cfg.items) | dict.fromkeys(TEST, 2 * cfg.items)
        rows = [c for split, n in sizes.items() for c in world.comparisons(split, n)]
        trees, title = chat.tokenize(rows, tokenizer), f"seed {world.seed}"
        options = {"mesh": mesh, "row_length": 160, "ask": "all", "progress": title}
        both, parts, start = Reading(rows, **read(model, trees, readings, **options)), {}, 0
        for split, n in sizes.items():
            parts[split], start = both[start : start + n], start + n
        first = {split: part[: cfg.items] for split, part in parts.items()}
        return Drawn(first, {split: parts[split][cfg.items :] for split in TEST})

    worlds = [World(seed, cfg.lexicon) for seed in range(cfg.seeds)]
    drawn = [draw(world) for world in worlds]
    text, asking = timed(lambda: worlds[0].pretraining_text(cfg.documents))
    _, comparing = timed(lambda: worlds[0].comparisons("train", cfg.items))
    asked = {question(c) for c in text}.union(*(d.questions(SPLITS) for d in drawn))
    tokens = tokenizer.hf(sorted(asked), add_special_tokens=False)["input_ids"]
    return Measured(cfg, worlds[0], drawn, text, max(map(len, tokens)), (comparing, asking))


def timed(make: Callable[[], list[Comparison]]) -> tuple[list[Comparison], float]:
    """What is made, and how many of them per second."""
    start = time.perf_counter()
    made = make()
    return made, len(made) / (time.perf_counter() - start)


def likelihood(drawn: Drawn, split: toy.Split) -> float:
    """The base's summed log-prob orders as gold does."""
    return macro_accuracy(drawn.splits[split].logps, drawn.splits[split].by_gold)


def of_labels(drawn: Drawn, split: toy.Split) -> float:
    """The base's summed log-prob orders as the labels do."""
    return macro_accuracy(drawn.splits[split].logps, drawn.splits[split].comparisons)


def probe(drawn: Drawn, split: toy.Split) -> float:
    """A linear reward on the base's states, fitted to clean labels of the split's own law."""
    return _linear_accuracy(drawn.others[split], drawn.splits[split])


def probe_of_train(drawn: Drawn, split: toy.Split) -> float:
    """The same, fitted to the noisy labels of `train`."""
    return _linear_accuracy(drawn.splits["train"], drawn.splits[split])


def words(drawn: Drawn, split: toy.Split) -> float:
    """A linear reward on an answer's words alone, fitted to `train`."""
    return _by_text(drawn.splits[split], bag_of_words(drawn.splits["train"].comparisons))


def length(drawn: Drawn, split: toy.Split) -> float:
    """The longer answer is better."""
    return _by_text(drawn.splits[split], longer)


def brevity(drawn: Drawn, split: toy.Split) -> float:
    """The shorter answer is better."""
    return _by_text(drawn.splits[split], lambda texts: -longer(texts))


COLUMNS: Mapping[str, tuple[Figure, Sequence[toy.Split]]] = {
    "likelihood": (likelihood, SPLITS),
    "against labels": (of_labels, LABELLED),
    "probe": (probe, TEST),
    "probe of `train`": (probe_of_train, TEST),
    "words": (words, TEST),
    "longer": (length, SPLITS),
    "shorter": (brevity, SPLITS),
}
"""The figures of the table by split, and the splits that each is of."""


def linear(fitted: Reading, test: Reading) -> list[np.ndarray]:
    """Float [K] for each comparison of `test`: the linear reward fitted to `fitted`'s labels."""
    weights = fit_head(fitted.states, fitted.comparisons)
    return [states @ weights for states in test.states]


def _linear_accuracy(fitted: Reading, test: Reading) -> float:
    return macro_accuracy(linear(fitted, test), test.by_gold)


def _by_text(reading: Reading, scorer: Callable[[Sequence[str]], np.ndarray]) -> float:
    return macro_accuracy([scorer(answers(c)) for c in reading.comparisons], reading.by_gold)


def garbage_ties(world: World) -> float:
    """The share of pairs of garbage texts with the same gold; of all families, the highest."""
    rng, vocabulary = random.Random(0), sorted(LEXICONS[world.lexicon].kinds)

    def garbage() -> str:
        if rng.random() < 0.5:
            return "".join(rng.choices(string.printable, k=rng.randint(1, 60)))
        return " ".join(rng.choices(vocabulary, k=rng.randint(1, 10)))

    def ties(asked: str) -> float:
        found = collections.Counter(world.gold(asked, garbage()) for _ in range(GARBAGE))
        return sum(n * (n - 1) for n in found.values()) / (GARBAGE * (GARBAGE - 1))

    return max(ties(question(comparison)) for comparison in one_of_each(world))


# The page


def page(m: Measured) -> str:
    """The whole page as Markdown."""
    slots = {
        "lexicon": m.cfg.lexicon,
        "seeds": m.cfg.seeds,
        "items": f"{m.cfg.items:,}",
        "comparisons_per_second": f"{m.speeds[0]:,.0f}",
        "questions_per_second": f"{m.speeds[1]:,.0f}",
        "flattery": f"{100 * FLATTERY:g} %",
        "world": inspect.getdoc(toy),
        "attributes": inspect.getdoc(grading.attributes),
        "rules": rules(m),
        "by_split": by_split(m),
        "by_family": by_family(m),
    }
    slots |= labels(m.cfg)
    for shown in (samples.graded_answers, samples.compared, samples.rated, samples.solved):
        slots |= shown(m.world)
    slots["text"] = "\n\n".join(c.prompt + "\n".join(c.responses) for c in m.text[:2])
    return TEMPLATE.read_text("utf-8").format_map(slots)


def rules(m: Measured) -> str:
    """Every design rule with its figure."""
    text = {question(c) for c in m.text}
    in_text = sum(len(text & d.questions(SPLITS)) for d in m.drawn)
    in_train = sum(len(d.questions(["train"]) & d.questions(SPLITS[1:])) for d in m.drawn)
    in_val = sum(len(d.questions(["val"]) & d.questions(TEST)) for d in m.drawn)
    known = sum(len(d.families("train") & d.families("ood_prompt")) for d in m.drawn)
    ties, families = garbage_ties(m.world), len(m.world.families)
    likely, probed = (
        {split: m.over_seeds(figure, split).mean() for split in splits}
        for figure, splits in ((likelihood, SPLITS), (probe, TEST))
    )
    few, short = f"at least {LEAST_FAMILIES}", f"at most {LONGEST_QUESTION}"
    untied = f"at most {number(MOST_TIES)} %"
    rows = [
        ("families of questions", few, families, families >= LEAST_FAMILIES),
        ("tokens of the longest question", short, m.longest, m.longest <= LONGEST_QUESTION),
        ("garbage texts with the same gold", untied, f"{number(ties)} %", ties <= MOST_TIES),
        ("prompts of the pretraining text in any split", 0, in_text, not in_text),
        ("prompts of `train` in any other split", 0, in_train, not in_train),
        ("prompts of `val` in a test split", 0, in_val, not in_val),
        ("families of `train` in `ood_prompt`", 0, known, not known),
        ("likelihood orders by gold, on every split", *within(RANKING, likely)),
        ("a linear probe does, on every test split", *within(PROBE, probed)),
    ]
    cells = ([*row, "met" if holds else "**not met**"] for *row, holds in rows)
    return markdown(["rule", "asked", "measured", ""], cells)


def within(bounds: tuple[float, float], values: Mapping[str, float]) -> tuple[str, str, bool]:
    """What is asked of all values, the lowest and the highest with their splits, and whether they
    keep to it."""
    low, high = min(values, key=values.get), max(values, key=values.get)
    asked = " to ".join(f"{100 * bound:.0f}" for bound in bounds)
    span = " to ".join(f"{number(values[split])} (`{split}`)" for split in (low, high))
    return asked, span, bounds[0] <= values[low] and values[high] <= bounds[1]


def by_split(m: Measured) -> str:
    """Every figure of `COLUMNS` on its splits."""

    def cell(figure: Figure, splits: Sequence[toy.Split], split: toy.Split) -> str:
        if split not in splits:
            return ""
        return spread(estimate(m.over_seeds(figure, split)))

    rows = [[f"`{split}`", *(cell(*c, split) for c in COLUMNS.values())] for split in SPLITS]
    return markdown(["", *COLUMNS], rows)


def by_family(m: Measured) -> str:
    """Likelihood and probe on every family, out of distribution and in it, over all seeds."""

    def cell(found: Accuracy | None) -> str:
        return "" if found is None else spread(vars(found), mean="accuracy")

    head, columns = ["family"], []
    for split in ("ood_prompt", "id"):
        rows = [c for d in m.drawn for c in d.splits[split].by_gold]
        logps = [row for d in m.drawn for row in d.splits[split].logps]
        probed = [row for d in m.drawn for row in linear(d.others[split], d.splits[split])]
        head += [f"likelihood, `{split}`", f"probe, `{split}`"]
        columns += [accuracy_by_subset(scores, rows) for scores in (logps, probed)]
    found = {name: [column.get(name) for column in columns] for name in m.world.families}
    return markdown(head, ([name, *map(cell, cells)] for name, cells in found.items()))


def labels(cfg: Config) -> dict[str, str]:
    """What each knob does to labels, and where the mark is in each split, at seed 0."""
    rows = []
    for knob, value in KNOBS:
        knobs = {"label_noise": 0.0, "cue_agreement": 0.5} | {knob: value}
        drawn = World(0, cfg.lexicon, **knobs).comparisons("train", cfg.items)
        marked = ("!" in answers(c)[0] for c in drawn)
        rows.append([f"`{knob}={value:g}`", share(map(is_noisy, drawn)), share(marked)])
    cued = [World(0, cfg.lexicon, cue_agreement=agreement) for agreement in AGREEMENTS]
    marks = [
        [f"`{split}`", *(share(map(follows_mark, w.comparisons(split, cfg.items))) for w in cued)]
        for split in SPLITS
    ]
    return {
        "knobs": markdown(["knob", "against gold, %", "prefer the mark, %"], rows),
        "cue": markdown(["%", *(f"{agreement:g}" for agreement in AGREEMENTS)], marks),
    }


def share(holds: Iterable[bool]) -> str:
    """How often it holds, in %."""
    return number(np.mean(list(holds)))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
