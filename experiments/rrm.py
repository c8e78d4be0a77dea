"""Does RRM's augmentation (arXiv 2409.13156) keep a reward from following a spurious cue?

    python -m experiments.rrm

In the toy world an answer ends its core in "." or "!", which gold ignores. In training the better
of two answers has the "!" with a chance of .5, .7 or .9 (`agreements`); labels are noisy (16 %
flipped). RRM (`jaxrm.methods.augmentation`) meets Bradley-Terry, and two pair objectives that claim
robustness: PCRM (arXiv 2404.00978), which bounds margins by a prior on lengths, and BSR (arXiv
2505.07271), which pulls the batch's mean reward to zero. Sensitivity is the mean change of the
reward when an answer's mark, and nothing else, becomes a "!", in deviations of the reward over
answers. RRM fails where it lowers no sensitivity, or has a "gain" at .5, where there is no cue.

RRM makes 15 comparisons of one. So it is trained in two budgets: `rrm` on as many comparisons as
Bradley-Terry sees in all its epochs, drawn from the 15 fold (equal compute), and `rrm_long` on all
of them once. All methods know the same labels.

The learning rate is 1e-3, because the cue has to be followed before it can be cured: at 3e-4, which
`val` of another seed prefers, Bradley-Terry hardly follows it. `bt_slow` is that cure, `rrm_slow`
both. Rate and size were settled after a look at seeds 0 and 50: with 200 pairs too, the cue was
hardly followed. PCRM and BSR have the better of two strengths on that `val` (one seed, 200 pairs;
PCRM with a steeper prior); like `rrm_long` they are trained only where `--methods` names them.

What it printed here, at the defaults (6 seeds; ± is one standard error, intervals are the sign-flip
test's at 95 %; ood is `ood_prompt`, gains are over Bradley-Terry at 1e-3 and the same agreement):

    method    cue       id, %  spurious, %       ood, %   sensitivity
    -----------------------------------------------------------------
    bt        0.5  77.4 ± 1.6   76.2 ± 2.2   69.3 ± 2.3   0.01 ± 0.01
    rrm       0.5  62.6 ± 3.1   63.4 ± 2.8   63.7 ± 2.9  -0.00 ± 0.00
    bt        0.9  87.2 ± 1.9   45.2 ± 5.2   59.6 ± 2.3   0.51 ± 0.06
    rrm       0.9  62.8 ± 3.3   65.1 ± 2.6   64.6 ± 3.7   0.00 ± 0.00
    bt_slow   0.9  82.9 ± 1.1   79.8 ± 1.8   74.3 ± 2.2   0.03 ± 0.01
    rrm_slow  0.9  74.2 ± 2.4   73.9 ± 1.7   69.3 ± 1.9   0.00 ± 0.00

    method    cue        sensitivity - bt                 id - bt           ood - bt
    --------------------------------------------------------------------------------
    rrm       0.5  -0.01 (-0.07 to +0.03)   -14.8 (-21.8 to -4.3)   -5.6 (-10.0 to +0.8)
    rrm       0.9  -0.51 (-0.63 to -0.30)  -24.4 (-36.3 to -12.4)   +5.0 (-2.4 to +24.3)
    bt_slow   0.9  -0.47 (-0.61 to -0.29)    -4.3 (-11.2 to -0.1)  +14.7 (+6.0 to +24.4)
    rrm_slow  0.9  -0.51 (-0.63 to -0.30)   -13.0 (-26.2 to -7.1)   +9.7 (-3.2 to +20.0)

    of RRM's labels gold contradicts 23 % of the non-contextual ones and 66 % of the ties

Supported as to the cue, at a price: at equal compute RRM removes all that the cue does to the
reward, and there is no false gain at .5; but it costs 15 points of accuracy where there is no cue.
Only one in 15 of its comparisons shows what makes one answer to a question better than another, and
many of its labels are wrong here, where politeness and brevity are worth something under any
question (with 66 % of the ties they differ by more than the least gap between compared answers). A
lower learning rate cures nearly as much and costs 4 points, where RRM at that rate costs 13 (and
`id`, which has the cue, flatters whoever follows it). Whether RRM is worth it where it is given all
of its comparisons (`rrm_long`), or those that its filter keeps, was not measured.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import re
from pathlib import Path

import numpy as np

from jaxrm import cli, toy
from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import require
from jaxrm.methods import augmentation
from jaxrm.methods.library import METHODS as LIBRARY
from jaxrm.methods.method import Method
from jaxrm.methods.task import Task, Trained, one
from jaxrm.report.webpage import leave
from jaxrm.study import outcome, trials
from jaxrm.study.config import StudyConfig
from jaxrm.study.draws import Condition, Toy
from jaxrm.study.records import Record, Trial, macro
from jaxrm.study.trials import Job
from jaxrm.toy.samples import answers, question

SPLITS = ("id", "spurious", "ood_prompt")
"""Of those that are measured, on clean labels, what is shown."""
ROWS = 4
"""Of a batch: few, because there are few pairs."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Train with and without a spurious cue, and toggle it."""

    run_dir: Path = Path("runs/rrm")
    agreements: tuple[float, ...] = (0.5, 0.9)
    """How often the better answer has the "!" in training."""
    methods: tuple[str, ...] = ("bt", "rrm", "bt_slow", "rrm_slow")
    """Of those below; Bradley-Terry must be among them."""
    pairs: int = 400
    """Training pairs, before they are augmented."""
    epochs: int = 3
    """In which they are trained on; 15 are as many comparisons as RRM makes."""
    items: int = 250
    """Comparisons of each split; half as many have their marks toggled."""

    def __post_init__(self):
        super().__post_init__()
        self.at_least(2, "pairs", "items")
        listed = "bt" in self.methods and set(self.methods) <= set(METHODS)
        words = f"bt, and others of {', '.join(METHODS)}"
        require(listed, "--methods", words, self.methods)
        require(1 <= self.epochs <= 1 + augmentation.FOLD, "--epochs", "from 1 to 15", self.epochs)
        shares = bool(self.agreements) and all(0 <= value <= 1 for value in self.agreements)
        require(shares, "--agreements", "numbers in [0, 1]", self.agreements)


# The methods


def once(task: Task, method: Method) -> Trained:
    """One epoch of all that is prepared."""
    return one(dataclasses.replace(task, epochs=1), method)


def drawn(task: Task, method: Method) -> Trained:
    """One epoch of as many of the prepared comparisons as Bradley-Terry sees in all of its own."""
    pool, count = method.prepare(task), task.epochs * len(task.data.comparisons)
    places = np.random.default_rng(task.seed).permutation(len(pool))[:count]
    chosen = [pool[place] for place in places]
    return once(task, dataclasses.replace(method, prepare=lambda task: chosen))


RRM = dataclasses.replace(LIBRARY["rrm"], train=drawn)
METHODS = {
    "bt": LIBRARY["bt"],
    "rrm": RRM,
    "rrm_long": dataclasses.replace(RRM, train=once),
    "pcrm": LIBRARY["pcrm_length"],
    "bsr": LIBRARY["bsr"],
    "bt_slow": LIBRARY["bt"],
    "rrm_slow": RRM,
}
EVERYWHERE = ("bt", "rrm")
"""Those that are trained at all agreements; the others are at the highest alone."""

STRENGTHS = {"pcrm": 6.0, "bsr": 0.1}
TRIALS = {
    name: Trial(3e-4 if name.endswith("_slow") else 1e-3, STRENGTHS.get(name)) for name in METHODS
}


# What is measured


def run(job: Job, base: Path) -> Record:
    """Trains and measures."""
    return trials.run(job, base, METHODS, also=toggling)


def toggling(job: Job, trained: Trained) -> dict[str, float]:
    """The sensitivity of the rewards of answers to half of the prompts of `id`."""
    comparisons = job.condition.data.draw("id", dict(job.splits)["id"] // 2, job.seed)
    data = trained.models[0].bench.pack(list(map(toggled, comparisons)))
    return {"sensitivity": sensitivity(trained.scores(data))}


def toggled(comparison: Comparison) -> Comparison:
    """Each answer with "." and then with "!"; the first mark of an answer ends its core."""
    both = itertools.product(answers(comparison), ".!")
    texts = [re.sub("[.!]", mark, answer, count=1) for answer, mark in both]
    responses = tuple((Message("assistant", text),) for text in texts)
    return Comparison(comparison.prompt, responses, id=comparison.id)


def sensitivity(rewards: np.ndarray) -> float:
    """The mean change of the reward from "." to "!", in deviations of the reward.

    Args:
      rewards: float [n, 4] of two answers, each with "." and then with "!".
    """
    plain, marked = rewards[:, 0::2].astype(np.float64), rewards[:, 1::2].astype(np.float64)
    return float((marked - plain).mean() / plain.std())


def contradicted(world: toy.World, pairs: int) -> dict[str, float]:
    """How often gold contradicts the labels that RRM makes: an own response is really worse, or a
    tie none (by more than the least gap of training pairs)."""
    gaps: dict[str, list[float]] = {augmentation.NON_CONTEXTUAL: [], augmentation.NEUTRAL: []}
    for comparison in augmentation.augment(world.comparisons("train", pairs), world.seed):
        asked = question(comparison)
        first, second = (world.gold(asked, text) for text in answers(comparison))
        gaps[comparison.subset].append(first - second)
    own, ties = (np.array(each) for each in gaps.values())
    unequal = np.abs(ties) > toy.world.LEAST_GAP
    return {"non_contextual": float((own < 0).mean()), "ties": float(unequal.mean())}


def main(cfg: Config) -> None:
    """Measures, and prints the tables."""
    directory = cfg.open()
    agreements = sorted(cfg.agreements)
    conditions = [Condition(Toy(0.16, cue), cfg.pairs, cfg.epochs) for cue in agreements]
    sizes = {"items": cfg.items, "val_items": cfg.items}
    contest = cfg.contest(cfg.methods, conditions, run=run, options={"rows": ROWS}, **sizes)
    jobs = [
        contest.job(name, TRIALS[name], condition, seed, contest.splits(condition))
        for seed in cfg.measured
        for condition in conditions
        for name in cfg.methods
        if name in EVERYWHERE or condition == conditions[-1]
    ]
    records = contest.records(jobs, "rrm")
    arms = [f"{job.method}, {job.condition.data.cue_agreement:g}" for job in jobs]
    named = [record | {"method": arm} for record, arm in zip(records, arms, strict=True)]
    forms = {"sensitivity": (1, 2), "cost": (1, 2)}
    figures = {s: macro(s) for s in SPLITS} | {name: operator.itemgetter(name) for name in forms}
    contrasts = [(arm, f"bt,{arm.split(',')[1]}") for arm in arms if not arm.startswith("bt,")]
    results = outcome.summary(outcome.values(named, figures), list(dict.fromkeys(contrasts)))
    shares = contradicted(toy.World(cfg.seed), min(cfg.pairs, 100))
    labels = (
        f"of RRM's labels gold contradicts {100 * shares['non_contextual']:.0f} % of the "
        f"non-contextual ones and {100 * shares['ties']:.0f} % of the ties"
    )
    text = f"{outcome.tables(results, list(figures), forms)}\n\n{labels}"
    leave(directory, __doc__, results | {"labels": shares, "records": records}, text)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
