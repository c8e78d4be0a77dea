"""Labels of steps, or of answers? Process and outcome reward models (arXiv 2501.07301, 2506.18896).

    python -m experiments.process_reward

The toy world's author works out sums in three to five steps, and slips. Half of the solutions come
out right, a fifth of those by two slips that cancel. Reward models are trained from one base with
one loss, binary cross-entropy at the ends of steps, and differ in their labels alone:

- outcome: whether the answer is right, at the last step; as many labels as `process` has, and so
  about three times the solutions and the compute.
- outcome, same solutions: the same on the solutions of `process`, with a third of the labels.
- process: which steps follow from the one before, up to the first that does not.
- roll-outs: a step is right if any of 8 completions from it comes out right (Monte-Carlo labels,
  a threshold of 0), and steps after the first error have no label, as in arXiv 2501.07301.
- roll-outs, consensus: of those, only the solutions in which a judge sees the same first error.
- roll-outs, share: a step's label is the share of completions that come out right.

Nothing is sampled from a model: completions are the author's, who slips as he does in solutions,
and the judge is told the true first error in 80 % of solutions and names another place in the rest.
The shipped base cannot add, so it first reads sums that the author worked out, right and wrong
(`--text`), which makes a language model; `likelihood` ranks by its log-probs, without any label.

Each model chooses among 64 solutions of a question by the product, the minimum, the last or the
mean of its steps' probabilities: how often is the answer right, and how often are all of its steps?
F1 is ProcessBench's, of finding the first error, with the threshold that is best on `val`. Learning
rates are chosen on `val` of the first seed, by the answers of best-of-4, by the aggregate that a
method is known for (`METHODS`).

What it printed here, at the defaults (6 seeds; ± one standard error over seeds, [95 % sign-flip
intervals]), by each method's own aggregate; the likelihood's choice is right in 96.1 ± 0.4 % by the
answer and 95.8 ± 0.4 % by steps, chance's in 31.9 and 5.0 %. Labels are 14402 for outcome and for
process, 4800 for outcome on the same solutions, and 16576, 9586 and 19061 for the roll-outs:

    methods                   answer, %    steps, %       f1, %
    -----------------------------------------------------------
    outcome                  31.1 ± 2.5   6.4 ± 0.9  31.3 ± 1.4
    outcome, same solutions  22.8 ± 2.7   3.6 ± 0.9  31.4 ± 1.7
    process                  30.0 ± 1.8  12.2 ± 2.6  51.7 ± 2.2
    roll-outs                25.6 ± 2.5   4.2 ± 0.9  30.8 ± 1.3
    roll-outs, consensus     33.3 ± 2.2   9.4 ± 1.5  41.8 ± 2.0
    roll-outs, share         27.5 ± 1.9   4.2 ± 1.1  42.5 ± 1.1

    gains                                   answer, points       steps, points           f1, points
    -----------------------------------------------------------------------------------------------
    outcome, same solutions - outcome   -8.3 [-16.7, +3.3]   -2.8 [-8.3, +1.7]    +0.1 [-7.1, +9.6]
    process - outcome                  -1.1 [-13.3, +11.7]  +5.8 [-3.3, +16.7]  +20.4 [+9.6, +25.0]
    roll-outs - outcome                 -5.6 [-13.3, +5.0]   -2.2 [-5.0, +0.0]    -0.6 [-6.9, +6.2]
    roll-outs, consensus - outcome      +2.2 [-6.7, +10.0]   +3.1 [-3.3, +6.7]  +10.5 [+1.2, +14.8]
    roll-outs, share - outcome         -3.6 [-11.7, +10.0]   -2.2 [-6.7, +1.7]  +11.2 [+7.8, +13.7]

- Finding the first error: labels of steps beat as many labels of answers by 20 points; roll-outs
  that a judge agrees with, and shares of roll-outs, by half of that. Roll-outs that call a step
  right if any completion comes out right are no better than answers: a later slip may cancel an
  error, and one completion of eight is enough.
- Choosing among 64: no reward model is better than chance by answers, two look worse, and process
  is not told from outcome by steps. The base's likelihood, without any label, is right in 96 %:
  what it read are this author's solutions, whose steps are right more often than not. So this
  world says little about choosing.
- The minimum chooses right steps more often than the method's own aggregate for four of the six
  (17 % by process, 14 % by outcome on the same solutions), which was seen afterwards.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxrm import cli
from jaxrm.data.comparison import Comparison
from jaxrm.errors import require
from jaxrm.evaluate.benchmarks.processbench import step_f1
from jaxrm.huggingface import hub
from jaxrm.losses.process import AGGREGATES
from jaxrm.methods import process_labels
from jaxrm.methods.bench import Bench
from jaxrm.methods.method import Method
from jaxrm.methods.process import PROCESS, step_logps
from jaxrm.methods.process_labels import NO_ERROR, first_error, up_to_first_error
from jaxrm.models import heads, transformer
from jaxrm.report.webpage import leave
from jaxrm.study import outcome
from jaxrm.study.config import StudyConfig
from jaxrm.study.draws import Condition
from jaxrm.study.records import Trial
from jaxrm.study.trials import Job
from jaxrm.toy import worked
from jaxrm.toy.worked import Worked
from jaxrm.train.pretrain import language_loss
from jaxrm.train.state import Params
from jaxrm.train.sweep import Record

RATES, TEXT_RATE = (1e-3, 3e-3), 3e-3
LENGTH = 192
"""Of a row: `TOGETHER` solutions of five steps fit."""
TOGETHER = 4
"""Solutions of a question that are packed together, and that a choice on `val` is among."""
MEASURES = {"answer": lambda solution: solution.outcome, "steps": lambda s: all(s.labels)}
"""Of a chosen solution: is its answer right, and are all of its steps?"""
FIGURES = (*MEASURES, "f1")
"""What is told of a method that is trained: what it chooses, and how it finds the first error."""
LARGEST, ROLL_OUTS, JUDGE = 3, 8, 0.8
"""The largest number of a sum, completions from each step, and how often the judge sees the true
first error."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Process against outcome reward models on sums worked out step by step."""

    run_dir: Path = Path("runs/process_reward")
    text: int = 20000
    """Solutions that the base reads before all else; 0 for a base that can add."""
    questions: int = 1200
    """Of `process`, each with 4 solutions."""
    epochs: int = 3
    items: int = 60
    """Questions of the test; `val` has half as many."""
    candidates: int = 64
    """Solutions to each of them."""

    def __post_init__(self):
        super().__post_init__()
        self.at_least(0, "text")
        self.at_least(1, "questions", "epochs")
        self.at_least(2, "items")
        whole = self.candidates >= TOGETHER and self.candidates % TOGETHER == 0
        require(whole, "--candidates", f"a multiple of {TOGETHER}", self.candidates)


@dataclasses.dataclass(frozen=True)
class Sums:
    """Where solutions come from: `candidates` to a question that is measured on."""

    candidates: int

    splits = ("test", "val")
    figure = "answer"

    def draw(self, part: str, n: int, seed: int) -> list[Worked]:
        """Solutions to n questions of a part of the data."""
        count = self.candidates if part in self.splits else TOGETHER
        return worked.draw(part, n, seed, solutions=count, largest=LARGEST)


# Labels of steps, NaN for none

Labels = Sequence[Float[np.ndarray, " steps"]]
"""Of each solution."""


def of_author(solved: Sequence[Worked], seed: int) -> Labels:
    """Which steps follow, up to the first that does not. An author who has slipped rarely slips
    again, so that later labels would teach to take signs of an earlier slip for signs of right
    steps."""
    return [up_to_first_error(w.solution.labels) for w in solved]


def of_outcome(solved: Sequence[Worked], seed: int) -> Labels:
    """The last step has the outcome."""
    return [np.array([math.nan] * (len(w.texts) - 1) + [w.solution.outcome]) for w in solved]


def of_shares(solved: Sequence[Worked], seed: int) -> Labels:
    """The share of completions that come out right."""
    rng = random.Random(f"roll-outs {seed}")
    return [process_labels.share_correct(w.outcomes(ROLL_OUTS, rng)) for w in solved]


def of_roll_outs(solved: Sequence[Worked], seed: int) -> Labels:
    """Whether any does, up to the first step from which none does."""
    return [up_to_first_error(shares > 0) for shares in of_shares(solved, seed)]


def of_consensus(solved: Sequence[Worked], seed: int) -> Labels:
    """Those, of solutions in which the judge sees the same first error."""
    labels, rng = of_roll_outs(solved, seed), random.Random(f"judge {seed}")
    judged = []
    for w in solved:
        place = first_error(w.solution.labels)
        others = [i for i in range(NO_ERROR, len(w.texts)) if i != place]
        judged.append(place if rng.random() < JUDGE else rng.choice(others))
    kept = process_labels.consensus(list(map(first_error, labels)), judged)
    return [np.where(keep, row, math.nan) for row, keep in zip(labels, kept, strict=True)]


METHODS = {
    "outcome": (of_outcome, "last"),
    "outcome, same solutions": (of_outcome, "last"),
    "process": (of_author, "product"),
    "roll-outs": (of_roll_outs, "last"),
    "roll-outs, consensus": (of_consensus, "product"),
    "roll-outs, share": (of_shares, "last"),
    "likelihood": (None, "last"),
}
"""How steps are labelled, and the aggregate that a method is known by. A model of roll-outs says
how likely the answer is to be right, so its last step counts; one of labels that people give, or
two opinions agree on, whether a step is: so arXiv 2501.07301."""


def training_data(method: str, condition: Condition, seed: int) -> list[Comparison]:
    """Questions with the method's labels: as many solutions as `process` has or, of `outcome`, as
    that has labels, which takes less than 6 times the questions."""
    times = 6 if method == "outcome" else 1
    solved = condition.data.draw("train", times * condition.pairs, seed)
    if times > 1:
        of_process = of_author(solved[: condition.pairs * TOGETHER], seed)
        solved = solved[: int(np.isfinite(np.concatenate(of_process)).sum())]
    return worked.comparisons(solved, TOGETHER, METHODS[method][0](solved, seed))


# What is measured


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """Solutions, the log-probabilities that their steps are right, and where there are steps."""

    solved: Sequence[Worked]
    logps: Float[np.ndarray, "solutions steps"]
    mask: Bool[np.ndarray, "solutions steps"]

    def chosen(self, aggregate: str, among: int) -> dict[str, float]:
        """How often the one of `among` solutions that has the highest aggregate is right."""
        totals = np.reshape(AGGREGATES[aggregate](self.logps, self.mask), (-1, among))
        places = np.argmax(totals, axis=1) + among * np.arange(len(totals))
        best = [self.solved[place].solution for place in places]
        return {name: float(np.mean(list(map(right, best)))) for name, right in MEASURES.items()}

    def steps(self) -> tuple[list[int], list[np.ndarray]]:
        """Of each solution, the first step that does not follow, and the steps' log-probs."""
        wrong = [first_error(one.solution.labels) for one in self.solved]
        return wrong, [logps[mask] for logps, mask in zip(self.logps, self.mask, strict=True)]


def scored(bench: Bench, params: Params, solved: Sequence[Worked], likelihood: bool) -> Scored:
    """Of every step, or the solution's log-prob under the language model, as of a single step."""
    data = worked.comparisons(solved, TOGETHER)
    if likelihood:
        reading = {"logps": heads.response_logps}
        logps = bench.read(params, bench.pack(data, "all"), reading)["logps"]
        both = logps, np.ones_like(logps, bool)
    else:
        both = step_logps(bench, params, data)
    return Scored(solved, *(part.reshape(len(solved), -1) for part in both))


def run(job: Job, base: Path) -> Record:
    """What the job's model was trained on, and what it chooses."""
    bench, condition, seed = Bench(base, length=job.length), job.condition, job.seed
    record = {"method": job.method, **dataclasses.asdict(job.trial), "seed": seed, "splits": {}}
    (labels, own), params, read = METHODS[job.method], bench.start(seed), {}
    if labels is not None:
        data = training_data(job.method, condition, seed)
        record["labels"] = process_labels.check(data)
        trial = {"rate": job.trial.learning_rate, "epochs": condition.epochs, "seed": seed}
        params = bench.fit(PROCESS, bench.trees(data), **trial).params
    for split, n in job.splits:
        read[split] = scored(bench, params, condition.data.draw(split, n, seed), labels is None)
        among = TOGETHER if split == "val" else condition.data.candidates
        shares = {aggregate: read[split].chosen(aggregate, among) for aggregate in AGGREGATES}
        record["splits"][split] = shares | shares[own]
    if labels is not None and "test" in read:
        record["f1"] = step_f1(read["val"].steps(), read["test"].steps())
    return record


def with_text(cfg: Config) -> Path:
    """The base after reading the author's solutions, kept in the run directory."""
    directory = cfg.run_dir / "base"
    if cfg.text and not directory.exists():
        bench = Bench(cfg.start, length=LENGTH)
        text = Sums(TOGETHER).draw("text", -(-cfg.text // TOGETHER), 0)
        trees = bench.trees(worked.comparisons(text, TOGETHER))
        reading = Method("a language model", lambda strength: language_loss, ask="all")
        fitted = bench.fit(reading, trees, rate=TEXT_RATE)
        model = transformer.merge(fitted.structure, jax.device_put(fitted.params))
        hub.save(model.language_model(), directory, bench.tokenizer)
    return directory if cfg.text else cfg.start


def measure(cfg: Config) -> dict[str, Any]:
    """Every figure of the tables."""
    contest = dataclasses.replace(cfg, base=with_text(cfg)).contest(
        METHODS,
        [Condition(Sums(cfg.candidates), cfg.questions, cfg.epochs)],
        lambda method, rate: [Trial(rate, None) for rate in RATES],
        items=cfg.items,
        val_items=cfg.items // 2,
        run=run,
        options={"length": LENGTH},
    )
    choices = contest.tune([cfg.seed], RATES[0])
    records = contest.measure(choices, cfg.measured, second_budget=False)
    named = [(f"{r['method']}, {name}", r, name) for r in records for name in AGGREGATES]
    by_aggregate = [r | r["splits"]["test"][name] | {"method": row} for row, r, name in named]
    every = outcome.values(by_aggregate, {name: itemgetter(name) for name in MEASURES})
    trained = [r | r["splits"]["test"] for r in records if "f1" in r]
    labels = outcome.values(trained, {"labels": itemgetter("labels")})
    measured = outcome.values(trained, {name: itemgetter(name) for name in FIGURES})
    return {
        "seeds": list(cfg.measured),
        "choices": choices,
        "chance": chance(cfg),
        "labels": {name: counts["labels"].mean() for name, counts in labels.items()},
        "every": outcome.summary(every, []),
        **outcome.summary(measured, outcome.over(measured, "outcome")),
    }


def chance(cfg: Config) -> dict[str, float]:
    """How often a scorer that knows nothing chooses right. It gives copies one score, so that it
    chooses among distinct solutions: many authors do not slip, and are alike."""
    distinct = []
    for seed in cfg.measured:
        drawn = np.array(Sums(cfg.candidates).draw("test", cfg.items, seed))
        distinct += [{w.solution for w in row} for row in drawn.reshape(-1, cfg.candidates)]
    return {
        name: float(np.mean([np.mean(list(map(right, row))) for row in distinct]))
        for name, right in MEASURES.items()
    }


def text(results: Mapping[str, Any]) -> str:
    """The figures for a terminal, in percent and points."""
    every = outcome.tables(results["every"], list(MEASURES))
    chance = ", ".join(f"{name} {100 * share:.1f}" for name, share in results["chance"].items())
    labels = ", ".join(f"{name} {count:.0f}" for name, count in results["labels"].items())
    lines = f"chance, %: {chance}\nlabels: {labels}\nby a method's own aggregate:"
    return f"{every}\n\n{lines}\n\n{outcome.tables(results, FIGURES)}"


def main(cfg: Config) -> None:
    """Runs what is not yet there, and writes what was found."""
    directory, results = cfg.open(), measure(cfg)
    leave(directory, __doc__, results, text(results))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
