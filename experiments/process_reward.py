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
intervals]; of the aggregates those by which a method is known):

    best of all, %                 by  answer right  steps right  labels          F1
    outcome                      last    31.1 ± 2.5    6.4 ± 0.9   14402  31.3 ± 1.4
    outcome, same solutions      last    22.8 ± 2.7    3.6 ± 0.9    4800  31.4 ± 1.7
    process                   product    30.0 ± 1.8   12.2 ± 2.6   14402  51.7 ± 2.2
    roll-outs                    last    25.6 ± 2.5    4.2 ± 0.9   16576  30.8 ± 1.3
    roll-outs, consensus      product    33.3 ± 2.2    9.4 ± 1.5    9586  41.8 ± 2.0
    roll-outs, share             last    27.5 ± 1.9    4.2 ± 1.1   19061  42.5 ± 1.1
    likelihood                           96.1 ± 0.4   95.8 ± 0.4
    chance                               31.9          5.0

    points over outcome, by *               answer               steps                   F1
    outcome, same solutions     -8.3 [-16.7, +3.3]   -2.8 [-8.3, +1.7]    +0.1 [-7.1, +9.6]
    process                    -1.1 [-13.3, +11.7]  +5.8 [-3.3, +16.7]  +20.4 [+9.6, +25.0]
    roll-outs                   -5.6 [-13.3, +5.0]   -2.2 [-5.0, +0.0]    -0.6 [-6.9, +6.2]
    roll-outs, consensus        +2.2 [-6.7, +10.0]   +3.1 [-3.3, +6.7]  +10.5 [+1.2, +14.8]
    roll-outs, share           -3.6 [-11.7, +10.0]   -2.2 [-6.7, +1.7]  +11.2 [+7.8, +13.7]

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
import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe
from jaxtyping import Bool, Float

from experiments.process_data import (
    TOGETHER,
    Labeller,
    Sizes,
    Worked,
    comparison,
    draw,
    of_author,
    of_consensus,
    of_outcome,
    of_roll_outs,
    of_shares,
)
from jaxrm import cli, toy
from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import PackedBatch
from jaxrm.errors import require
from jaxrm.evaluate.benchmarks import processbench
from jaxrm.huggingface import hub
from jaxrm.losses import generation, process
from jaxrm.methods import process_labels
from jaxrm.models import heads, transformer
from jaxrm.models.transformer import RewardModel
from jaxrm.read.packed import Packed, pack_alike, reading_shape
from jaxrm.report.tables import aligned, interval, spread
from jaxrm.report.webpage import leave
from jaxrm.statistics import Paired, estimate, paired
from jaxrm.train.rundir import open_run
from jaxrm.train.sweep import Record, sweep
from jaxrm.train.terms import LossFn, Term, Terms

RATES = (1e-3, 3e-3)
TEXT_RATE = 3e-3
AGGREGATES = {
    "product": process.product,
    "min": process.least,
    "last": process.last,
    "mean": process.mean,
}
MEASURES = ("answer", "steps")
"""Of a chosen solution: is its answer right, and are all of its steps?"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Process against outcome reward models on sums worked out step by step."""

    run_dir: Path = Path("runs/process_reward")
    seed: int = 0
    """The first."""
    seeds: int = 6
    text: int = 20000
    """Solutions that the base reads before all else; 0 for a base that can add."""
    sizes: Sizes = Sizes()
    base: Path | None = None
    """A directory in Hugging Face layout that knows the toy world; the shipped base without it."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""

    def __post_init__(self):
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.seeds >= 2, "--seeds", "at least 2", self.seeds)
        require(self.text >= 0, "--text", "at least 0", self.text)
        require(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)


# The methods


@dataclasses.dataclass(frozen=True)
class Method:
    """How it labels, by which aggregate it is known, and how many times the questions of `process`
    it has at most: of several, one label for each solution."""

    labels: Labeller
    aggregate: str
    times: int = 1


METHODS = {
    "outcome": Method(of_outcome, "last", times=6),
    "outcome, same solutions": Method(of_outcome, "last"),
    "process": Method(of_author, "product"),
    "roll-outs": Method(of_roll_outs, "last"),
    "roll-outs, consensus": Method(of_consensus, "product"),
    "roll-outs, share": Method(of_shares, "last"),
}
"""A model of roll-outs says how likely the answer is to be right, so its last step counts; one of
labels that people give, or two opinions agree on, whether a step is: so arXiv 2501.07301."""


# The losses


def at_steps(strength: float | None) -> LossFn:
    """Cross-entropy at the steps that have a label."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        logits = heads.step_outputs(model, model.hidden(batch), batch, rng)[..., 0]
        values = process.step_cross_entropy(logits, batch.step_label, batch.step_mask)
        return {"steps": Term(1.0, values, batch.step_mask)}

    return loss_fn


def of_text(strength: float | None) -> LossFn:
    """Negative log-likelihood of each token of the solutions."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        logps = heads.target_logps(model, model.hidden(batch), batch)
        return {"text": Term(1.0, generation.nll(logps), batch.target_mask)}

    return loss_fn


def laboratory(base: Path) -> Lab:
    """`TOGETHER` solutions of five steps fit a row."""
    return Lab(base, length=192)


def recipe(lab: Lab) -> Recipe:
    """A step takes at least five tokens of a row."""
    return Recipe(at_steps, responses=TOGETHER, steps=lab.length // 5)


# What is run


@dataclasses.dataclass(frozen=True)
class Job:
    """One method's model; `base` is the fingerprint of what it starts from."""

    method: str
    rate: float
    seed: int
    sizes: Sizes
    base: str


def run(job: Job, base: Path) -> Record:
    """What the job's model was trained on, and what it chooses."""
    lab, sizes = laboratory(base), job.sizes
    if job.method == "likelihood":
        params, known = lab.start(job.seed).params, {}
        scores = functools.partial(likelihoods, lab, params)
    else:
        data = training_data(job)
        process_labels.check(data)
        fitted = lab.fit(
            recipe(lab), lab.trees(data), rate=job.rate, epochs=sizes.epochs, seed=job.seed
        )
        scores = functools.partial(step_scores, lab, fitted.params)
        rows = [row for c in data for row in c.steps]
        labels = sum(not math.isnan(step.label) for row in rows for step in row)
        known = {"solutions": len(rows), "labels": labels}
        known |= {"tokens": fitted.tokens, "seconds": fitted.seconds}
    test = draw("test", job.seed, sizes.items, sizes.candidates, sizes.numbers)
    val = draw("val", job.seed, sizes.items // 2, sizes.candidates, sizes.numbers)
    tuned, found = scores(val), scores(test)
    if job.method != "likelihood":
        known |= {"f1": first_errors(val, *tuned, test, *found)}
    groups = [
        dataclasses.replace(worked, solutions=worked.solutions[i : i + TOGETHER])
        for worked in val
        for i in range(0, sizes.candidates, TOGETHER)
    ]
    in_groups = (part.reshape(len(groups), TOGETHER, -1) for part in tuned)
    return {
        **dataclasses.asdict(job),
        **known,
        "val": choices(groups, *in_groups),
        "test": choices(test, *found),
    }


def training_data(job: Job) -> list[Comparison]:
    """Questions with the method's labels: of a method with more questions than `process` has, as
    many labels as that has."""
    sizes, method = job.sizes, METHODS[job.method]
    n = sizes.questions * method.times
    questions = draw("train", job.seed, n, TOGETHER, sizes.numbers)
    labels = method.labels(questions, sizes, job.seed)
    data = [comparison(*both) for both in zip(questions, labels, strict=True)]
    if method.times == 1:
        return data
    author = of_author(questions[: sizes.questions], sizes, job.seed)
    left = sum(int(np.isfinite(row).sum()) for rows in author for row in rows)
    kept = []
    for of_question in data:
        each = zip(of_question.responses, of_question.steps, strict=True)
        responses, ends = zip(*itertools.islice(each, left), strict=True)
        kept.append(dataclasses.replace(of_question, responses=responses, steps=ends))
        left -= len(responses)
        if not left:
            break
    return kept


Scores = tuple[Float[np.ndarray, "n K steps"], Bool[np.ndarray, "n K steps"]]
"""Log-probabilities that steps are right, and where there are steps."""


def step_scores(lab: Lab, params: Any, questions: Sequence[Worked]) -> Scores:
    """Of every solution's steps."""
    data = pack(lab, questions)
    logits = lab.read(params, data, {"steps": heads.steps_by_response})["steps"]
    count = [[len(s.steps) for s in worked.solutions] for worked in questions]
    widest = max(map(max, count))
    logits = logits.reshape(len(questions), -1, logits.shape[-1])[..., :widest]
    mask = np.arange(widest) < np.array(count)[..., None]
    return np.asarray(jax.nn.log_sigmoid(logits)), mask


def likelihoods(lab: Lab, params: Any, questions: Sequence[Worked]) -> Scores:
    """The language model's log-prob of every solution, as that of a single step."""
    data = pack(lab, questions, "all")
    logps = lab.read(params, data, {"logps": heads.response_logps})["logps"]
    logps = logps.reshape(len(questions), -1, 1)
    return logps, np.ones_like(logps, bool)


def pack(lab: Lab, questions: Sequence[Worked], ask: str = "none") -> Packed:
    """The solutions to be read, `TOGETHER` in a comparison."""
    data = [
        comparison(dataclasses.replace(worked, solutions=worked.solutions[i : i + TOGETHER]))
        for worked in questions
        for i in range(0, len(worked.solutions), TOGETHER)
    ]
    shape = reading_shape(lab.rows, lab.length, ask)
    return pack_alike(data, lab.trees(data), dataclasses.replace(shape, steps=recipe(lab).steps))


def choices(
    questions: Sequence[Worked], logps: np.ndarray, mask: np.ndarray
) -> dict[str, dict[str, float]]:
    """How often the solution that has the highest aggregate is right, by aggregate and measure."""
    found = {}
    for name, aggregate in AGGREGATES.items():
        places = np.argmax(np.asarray(aggregate(logps, mask)), axis=1)
        taken = [w.solutions[i] for w, i in zip(questions, places, strict=True)]
        right = [s.outcome for s in taken], [all(s.labels) for s in taken]
        found[name] = {m: float(np.mean(r)) for m, r in zip(MEASURES, right, strict=True)}
    return found


def first_errors(
    val: Sequence[Worked],
    val_logps: np.ndarray,
    val_mask: np.ndarray,
    test: Sequence[Worked],
    logps: np.ndarray,
    mask: np.ndarray,
) -> dict[str, float]:
    """ProcessBench's F1 on the test, and its two accuracies, by the threshold that is best on val.

    The first error is the first step that does not follow.
    """
    known, known_scores = _prefixes(val, val_logps, val_mask)
    right = [processbench.is_right(c) for c in known]
    found = [processbench.Found.of(*both) for both in zip(known, known_scores, strict=True)]
    threshold = processbench.best_threshold(right, found)
    asked, scores = _prefixes(test, logps, mask)
    credits = list(processbench.fixed(asked, scores, threshold))
    error, correct = (
        float(np.mean([c.value for c in credits if c.group.endswith(kind)]))
        for kind in ("error", "correct")
    )
    return {"f1": processbench.f1(error, correct), "error": error, "correct": correct}


def _prefixes(
    questions: Sequence[Worked], logps: np.ndarray, mask: np.ndarray
) -> tuple[list[Comparison], list[np.ndarray]]:
    """Each solution as ProcessBench has it: its beginnings, those before the first error first."""
    found, scores = [], []
    for q, worked in enumerate(questions):
        for k, solution in enumerate(worked.solutions):
            count = len(solution.steps)
            before = solution.labels.index(False) if False in solution.labels else count
            texts = worked.texts(solution)
            beginnings = tuple(", ".join(texts[: t + 1]) for t in range(count))
            ranks = (0,) * before + (1,) * (count - before)
            found.append(Comparison(worked.question, beginnings, ranks=ranks))
            scores.append(logps[q, k][mask[q, k]])
    return found, scores


def with_text(cfg: Config, base: Path) -> Path:
    """The base after reading the author's solutions, kept in the run directory."""
    directory = cfg.run_dir / "base"
    if not cfg.text:
        return base
    if not directory.exists():
        lab, text = laboratory(base), Recipe(of_text, ask="all", responses=TOGETHER)
        questions = draw("text", 0, -(-cfg.text // TOGETHER), TOGETHER, cfg.sizes.numbers)
        trees = lab.trees([comparison(worked) for worked in questions])
        params = jax.device_put(lab.fit(text, trees, rate=TEXT_RATE).params)
        model = transformer.merge(lab.start(0).structure, params)
        hub.save(model.language_model(), directory, lab.tokenizer)
    return directory


def measure(cfg: Config) -> dict[str, Any]:
    """Every figure of the table."""
    base = with_text(cfg, cfg.base or toy.shipped_base())
    key, seeds = hub.fingerprint(base), range(cfg.seed, cfg.seed + cfg.seeds)

    def records(jobs: Sequence[Job]) -> list[Record]:
        here = functools.partial(run, base=base)
        return sweep(jobs, here, cfg.run_dir / "jobs", workers=cfg.workers)

    tried = records([Job(m, rate, cfg.seed, cfg.sizes, key) for m in METHODS for rate in RATES])
    rates = {}
    for name, method in METHODS.items():
        own = [record for record in tried if record["method"] == name]
        best = max(own, key=lambda record: record["val"][method.aggregate]["answer"])
        rates[name] = best["rate"]
    rates["likelihood"] = 0.0
    found = records([Job(m, rates[m], seed, cfg.sizes, key) for seed in seeds for m in rates])
    by_method = {m: [r for r in found if r["method"] == m] for m in rates}
    return {
        "seeds": list(seeds),
        "chance": chance(cfg),
        "rates": rates,
        "methods": {m: of_method(by_method[m]) for m in rates},
        "gains": gains(by_method),
    }


def chance(cfg: Config) -> dict[str, float]:
    """How often a scorer that knows nothing chooses right. It gives copies one score, so that it
    chooses among distinct solutions: many authors do not slip, and are alike."""
    sizes = cfg.sizes
    distinct = [
        set(worked.solutions)
        for seed in range(cfg.seed, cfg.seed + cfg.seeds)
        for worked in draw("test", seed, sizes.items, sizes.candidates, sizes.numbers)
    ]
    answer = [np.mean([s.outcome for s in solutions]) for solutions in distinct]
    right = [np.mean([all(s.labels) for s in solutions]) for solutions in distinct]
    return {m: float(np.mean(r)) for m, r in zip(MEASURES, (answer, right), strict=True)}


def of_method(records: Sequence[Record]) -> dict[str, Any]:
    """A method's figures over seeds, each a mean with its standard error."""

    def figure(value: Callable[[Record], float]) -> dict[str, float | int]:
        return estimate([value(record) for record in records])

    costs = ("solutions", "labels", "tokens", "seconds")
    return {
        **{name: figure(lambda r, name=name: r[name]) for name in costs if name in records[0]},
        **({"f1": figure(lambda r: r["f1"]["f1"])} if "f1" in records[0] else {}),
        "test": {
            name: {m: figure(lambda r, name=name, m=m: r["test"][name][m]) for m in MEASURES}
            for name in AGGREGATES
        },
    }


def gains(by_method: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Paired]]:
    """What each method gains over `outcome`, each by its own aggregate, in each measure."""

    def values(method: str, measure: str) -> np.ndarray:
        own = METHODS[method].aggregate
        return np.array([record["test"][own][measure] for record in by_method[method]])

    others = [method for method in METHODS if method != "outcome"]
    return {
        method: {m: paired(values(method, m) - values("outcome", m)) for m in MEASURES}
        | {"f1": paired([a["f1"]["f1"] - b["f1"]["f1"]
                         for a, b in zip(by_method[method], by_method["outcome"], strict=True)])}
        for method in others
    }  # fmt: skip


def text_table(results: Mapping[str, Any]) -> str:
    """The figures for a terminal, in percent and points."""
    rows = []
    for name, of in results["methods"].items():
        shown = list(AGGREGATES) if name in METHODS else ["last"]
        for aggregate in shown:
            own = name in METHODS and METHODS[name].aggregate == aggregate
            right = (spread(of["test"][aggregate][m]) for m in MEASURES)
            more = (f"{of['labels']['mean']:.0f}", spread(of["f1"])) if own else ("", "")
            rows.append([name, f"{aggregate}{' *' if own else ''}", *right, *more])
    head = ["best of all, %", "by", "answer right", "steps right", "labels", "F1"]
    gained = [
        [name, *(interval(of[m]) for m in (*MEASURES, "f1"))]
        for name, of in results["gains"].items()
    ]
    blind = ", ".join(f"{m} {100 * results['chance'][m]:.1f}" for m in MEASURES)
    return "\n\n".join([
        aligned(head, rows),
        f"chance: {blind}",
        aligned(["points over outcome, by *", *MEASURES, "F1"], gained),
    ])  # fmt: skip


def main(cfg: Config) -> None:
    """Runs what is not yet there, and writes what was found."""
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    directory = open_run(cfg.run_dir, cfg, [cfg.base])
    results = measure(cfg)
    leave(directory, __doc__, results, text_table(results))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
