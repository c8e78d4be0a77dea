"""Do weight averages and ensembles resist label noise better than what costs as much?

    python -m experiments.warm

WARM (arXiv 2401.12187) averages the weights of M reward models that were fine-tuned from one start
with other learning rates and orders, and claims that the average memorises fewer wrong labels.
Ensembles (Coste et al., arXiv 2310.02743) keep all M and take the mean of their rewards, the least
(WCO), or the mean less a penalty on their variance (UWO) or deviation (LCB). Here a quarter of the
toy world's labels is turned round, and all of them meet controls that cost as much: the member that
is best on `val`, one run of M times the steps, and a running average of one run's weights. All
begin at one head, fitted to the frozen base's states (LP-FT, arXiv 2202.10054): the Bayesian linear
head of the table, which says what fine-tuning adds to it.

What has a setting has four trials, chosen for each seed by accuracy on `val`, which is as noisy as
the training labels; the longer run's setting is where it stops. Members' rewards are standardised
on `val`, and centred within the prompt for best-of-n. Flips that are uniform leave the order of
responses as it was, so they can hurt by being memorised alone: `flipped` is how often a model sides
with a wrong training label.

What it printed here (cost in models, in training / in use; ± one standard error over seeds; 95 %
intervals of the sign-flip test, not adjusted for their number: adjusted, none leaves out 0). Not
supported: on unseen families WARM and the ensembles do as single runs do, at most .2 points apart,
with intervals within 1.6. After 4 epochs WARM is .7 points better on `id` than the mean of its
members, as is the running average of one run (.6), which costs a quarter; the head alone is as
good. It sides with wrong training labels as often as its members do (21.9 and 21.5 %): that
averaging memorises less is not seen, though one run of as many steps memorises far more (34.1 %).
Members lie in one valley, without any barrier, close to their start: at the rates that `val`
prefers fine-tuning adds nothing to the head on frozen states, and there is little for an average to
repair. One earlier trial, of seed 0 with 500 pairs, rates two to five times as high and a head
fitted with hardly any penalty, had 71 % on `id` for single runs, 73 % for WARM and 80 % for a
well-penalised frozen head; so the penalty came to be chosen on `val` and the rates were lowered.

epochs 1, 300 pairs, noise 0.25, 6 seeds
%                       cost          id  ood_prompt     flipped       clean   best of 6
----------------------------------------------------------------------------------------
BT, mean of members    1 / 1  85.0 ± 0.6  77.5 ± 2.4  15.8 ± 1.9  86.1 ± 0.9  77.5 ± 3.1
BT, best on val        M / 1  85.2 ± 0.7  77.6 ± 2.7  15.8 ± 2.0  86.0 ± 1.0  77.7 ± 3.2
BT, M times the steps  M / 1  84.9 ± 0.6  77.3 ± 2.3  17.3 ± 2.2  87.0 ± 0.9  77.4 ± 3.1
EMA of one run         1 / 1  85.1 ± 0.7  77.4 ± 2.5  15.1 ± 2.2  85.8 ± 1.0  77.5 ± 3.2
WARM                   M / 1  85.2 ± 0.6  77.5 ± 2.5  15.5 ± 2.1  86.1 ± 0.9  77.7 ± 3.2
ensemble mean          M / M  85.4 ± 0.6  77.5 ± 2.5  15.9 ± 2.1  86.0 ± 0.9  77.8 ± 3.2
WCO                    M / M  85.2 ± 0.7  77.3 ± 2.4  18.2 ± 2.3  86.1 ± 1.2  78.2 ± 3.0
UWO                    M / M  85.4 ± 0.6  77.5 ± 2.5  16.8 ± 2.3  85.8 ± 0.9  78.0 ± 3.1
LCB                    M / M  85.5 ± 0.6  77.6 ± 2.5  15.7 ± 2.3  86.1 ± 0.9  77.8 ± 3.1
Bayesian head          0 / 1  85.2 ± 0.7  77.6 ± 2.7  13.7 ± 1.9  85.2 ± 1.1  77.1 ± 3.0

points                           id - BT           ood - BT      WARM - it: id     WARM - it: ood
-------------------------------------------------------------------------------------------------
BT, mean of members                                          +0.2 [-0.2, +0.9]  -0.0 [-0.3, +0.4]
BT, best on val        +0.2 [-0.6, +1.1]  +0.1 [-1.1, +1.2]  -0.0 [-0.5, +0.8]  -0.2 [-1.2, +1.0]
BT, M times the steps  -0.1 [-1.0, +0.7]  -0.2 [-1.6, +0.9]  +0.3 [-0.8, +1.0]  +0.2 [-1.0, +1.5]
EMA of one run         +0.1 [-0.1, +0.3]  -0.1 [-0.7, +0.5]  +0.1 [-0.3, +1.0]  +0.1 [-0.8, +0.7]
WARM                   +0.2 [-0.2, +0.9]  -0.0 [-0.3, +0.4]
ensemble mean          +0.4 [-0.2, +0.9]  -0.0 [-0.3, +0.2]  -0.2 [-0.5, +0.0]  +0.0 [-0.2, +0.3]
WCO                    +0.2 [-0.5, +1.1]  -0.2 [-0.7, +0.6]  +0.0 [-0.5, +1.0]  +0.2 [-0.8, +0.7]
UWO                    +0.4 [+0.2, +0.6]  +0.0 [-0.3, +0.4]  -0.2 [-0.5, +0.2]  -0.0 [-0.5, +0.3]
LCB                    +0.5 [-0.1, +0.9]  +0.1 [-0.5, +1.2]  -0.3 [-0.8, +0.3]  -0.1 [-0.7, +0.5]
Bayesian head          +0.2 [-0.6, +1.4]  +0.1 [-1.1, +1.3]  -0.0 [-1.5, +1.5]  -0.1 [-1.3, +1.0]
largest barrier between members, nats: 0.0000; least cosine of their heads: 0.998
WARM over the best control (BT, best on val), ood_prompt: refuted

epochs 4, 300 pairs, noise 0.25, 6 seeds
%                       cost          id  ood_prompt     flipped       clean   best of 6
----------------------------------------------------------------------------------------
BT, mean of members    1 / 1  84.2 ± 0.5  77.1 ± 2.4  21.5 ± 2.5  88.6 ± 1.0  77.5 ± 2.8
BT, best on val        M / 1  85.2 ± 0.7  76.9 ± 2.5  16.5 ± 2.1  87.1 ± 1.0  77.0 ± 3.0
BT, M times the steps  M / 1  82.3 ± 1.0  77.1 ± 2.3  34.1 ± 5.2  91.7 ± 1.3  77.1 ± 2.5
EMA of one run         1 / 1  84.8 ± 0.5  77.1 ± 2.5  18.4 ± 2.3  88.0 ± 1.0  77.4 ± 3.0
WARM                   M / 1  84.9 ± 0.6  77.1 ± 2.5  21.9 ± 1.8  89.3 ± 1.0  77.4 ± 2.9
ensemble mean          M / M  84.7 ± 0.5  77.0 ± 2.5  22.1 ± 1.7  89.4 ± 0.8  77.4 ± 2.8
WCO                    M / M  84.2 ± 0.5  76.9 ± 2.5  26.1 ± 2.6  89.3 ± 0.9  78.0 ± 2.6
UWO                    M / M  84.6 ± 0.4  77.1 ± 2.6  22.7 ± 2.2  89.3 ± 0.7  77.4 ± 2.8
LCB                    M / M  85.0 ± 0.4  77.1 ± 2.5  22.9 ± 2.3  89.4 ± 0.8  77.5 ± 2.9
Bayesian head          0 / 1  85.2 ± 0.7  77.6 ± 2.7  13.7 ± 1.9  85.2 ± 1.1  77.1 ± 3.0

points                           id - BT           ood - BT      WARM - it: id     WARM - it: ood
-------------------------------------------------------------------------------------------------
BT, mean of members                                          +0.7 [+0.1, +1.5]  +0.0 [-0.7, +0.6]
BT, best on val        +1.0 [+0.3, +2.6]  -0.2 [-0.8, +0.2]  -0.3 [-2.0, +0.7]  +0.2 [-0.2, +0.5]
BT, M times the steps  -1.8 [-4.9, +0.6]  +0.0 [-0.8, +0.7]  +2.6 [-0.3, +5.3]  +0.0 [-0.5, +0.8]
EMA of one run         +0.6 [+0.1, +1.3]  +0.0 [-0.4, +0.7]  +0.1 [-0.7, +0.8]  +0.0 [-0.8, +0.8]
WARM                   +0.7 [+0.1, +1.5]  +0.0 [-0.7, +0.6]
ensemble mean          +0.5 [-0.1, +1.5]  -0.1 [-0.8, +0.4]  +0.2 [-0.5, +0.7]  +0.1 [-0.2, +0.8]
WCO                    +0.0 [-2.1, +1.3]  -0.2 [-1.0, +0.8]  +0.7 [-1.0, +3.0]  +0.2 [-1.0, +1.0]
UWO                    +0.5 [+0.1, +1.5]  -0.0 [-0.8, +0.7]  +0.3 [-0.3, +0.7]  +0.0 [-0.7, +1.0]
LCB                    +0.8 [+0.1, +1.7]  +0.0 [-0.8, +0.4]  -0.0 [-1.0, +0.8]  +0.0 [-0.5, +1.0]
Bayesian head          +1.0 [-0.0, +3.6]  +0.5 [-1.3, +1.6]  -0.3 [-3.0, +1.5]  -0.5 [-1.5, +0.5]
largest barrier between members, nats: 0.0000; least cosine of their heads: 0.994
WARM over the best control (EMA of one run), ood_prompt: refuted
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrm import cli, statistics, toy
from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError, require
from jaxrm.methods import ensembles
from jaxrm.methods.attributes import STATES
from jaxrm.methods.bench import Bench, Fitted
from jaxrm.methods.library import METHODS as LIBRARY
from jaxrm.methods.task import InMemory, Model, Task
from jaxrm.models import average, uncertainty
from jaxrm.read.accuracy import macro_accuracy, order_of
from jaxrm.read.packed import Packed
from jaxrm.report.webpage import leave
from jaxrm.study import outcome, trials
from jaxrm.study.config import StudyConfig
from jaxrm.study.draws import Condition, Toy
from jaxrm.study.records import Record
from jaxrm.study.trials import Job
from jaxrm.train.loop import Point
from jaxrm.train.state import Params

FACTORS = (1.0, 0.3, 1.0, 3.0)
"""Of the members' learning rates. The first is also that of the run whose weights are averaged as
it goes, and of the run of M times the steps."""
HORIZONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Of a moving average, as shares of the run's steps."""
PENALTIES = (0.1, 0.5, 1.0, 2.0)
BETAS = (0.25, 0.5, 1.0, 2.0)
PRECISIONS = (1.0, 10.0, 100.0, 1000.0)
"""What UWO, LCB and the Bayesian head choose from."""
BARRIER_ITEMS = 150
"""Comparisons of `val` that the barriers between members are measured on."""

BASELINE = "BT, mean of members"
CONTROLS = (BASELINE, "BT, best on val", "BT, M times the steps", "EMA of one run")
FIGURES = ("id", "ood_prompt", "flipped", "clean", "best_of")


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Train M models on noisy labels, and combine them in every way."""

    run_dir: Path = Path("runs/warm")
    rate: float = 1e-4
    """The learning rate of the first member."""
    epochs: tuple[int, ...] = (1, 4)
    pairs: int = 300
    label_noise: float = 0.25
    items: int = 400
    """Comparisons of `id` and of `ood_prompt`."""
    val_items: int = 400
    candidates: int = 6
    """That best-of-n chooses from."""
    prompts: int = 100
    """Of best-of-n, from `ood_prompt`."""

    def __post_init__(self):
        super().__post_init__()
        self.at_least(1, "pairs", "items", "val_items", "prompts")
        self.at_least(2, "candidates")
        require(self.rate > 0, "--rate", "above 0", self.rate)
        require(min(self.epochs, default=0) >= 1, "--epochs", "numbers, at least 1", self.epochs)
        require(0 < self.label_noise <= 0.5, "--label-noise", "in (0, .5]", self.label_noise)


@dataclasses.dataclass(frozen=True)
class Noisy(Toy):
    """The toy world with labels turned round, and prompts with candidates to choose the best of."""

    candidates: int = 6
    prompts: int = 100

    splits = ("val", "id", "ood_prompt", "best_of")

    def draw(self, split: str, n: int, seed: int) -> list[Comparison]:
        """The first n comparisons of `train` or another split."""
        if split == "best_of":
            world = toy.World(seed, cue_agreement=self.cue_agreement)
            return world.comparisons("ood_prompt", self.prompts, self.candidates)
        drawn = super().draw(split, n, seed)
        if split == "train" and not 0 < turned_round(drawn).sum() < n:
            raise DataError(f"seed {seed} turned none or all of the labels round: more --pairs")
        return drawn


def turned_round(comparisons: Sequence[Comparison]) -> np.ndarray:
    """Bool [n]: whether the label prefers the response with less gold."""
    gold = np.array([comparison.scores for comparison in comparisons])
    return gold[:, 0] < gold[:, 1]


# How a job is run

Scores = Mapping[str, np.ndarray]
"""Rewards of every set, [n, K], the response first that its label puts first."""


def run(job: Job, base: Path) -> Record:
    """Trains the members and the controls, and returns every method's figures."""
    bench, bt = Bench(base, rows=job.rows, length=job.length), LIBRARY["bt"]
    sizes = {"train": job.condition.pairs} | dict(job.splits)
    packed = functools.partial(trials.packed, bench, job.condition.data, seed=job.seed)
    sets = {split: packed(split, n) for split, n in sizes.items()}

    def model(params: Params) -> Model:
        return Model(bench, bt, Fitted(bench.structure(), jax.device_get(params), steps=0))

    def scores(one: Model) -> Scores:
        return {name: one.scores(data) for name, data in sets.items()}

    def on_val(rewards: np.ndarray) -> float:
        return macro_accuracy(list(rewards), sets["val"].comparisons)

    def best(tried: Sequence[Scores]) -> Scores:
        return max(tried, key=lambda rewards: on_val(rewards["val"]))

    def best_model(models: Iterable[Model]) -> Scores:
        return scores(max(models, key=lambda one: on_val(one.scores(sets["val"]))))

    untrained = model(bench.start(job.seed))
    frozen = {name: untrained.read(data, STATES)["states"] for name, data in sets.items()}
    differences = frozen["train"][:, 0] - frozen["train"][:, 1]
    fits = [uncertainty.fit_bayesian_head(differences, precision=p) for p in PRECISIONS]
    head = max(fits, key=lambda fit: on_val(fit.reward(frozen["val"])))
    start = {"reward_head": {"weight": head.weights[:, None].astype(np.float32)}}

    rate, epochs, m = job.trial.learning_rate, job.condition.epochs, len(FACTORS)
    options = {"rate": rate, "epochs": epochs, "seed": 1000 * job.seed}
    task = Task(bench, InMemory(sets["train"]), sets["val"], strength=None, **options)
    tried = [(rate * factor, task.seed + i) for i, factor in enumerate(FACTORS)]
    members = ensembles.members(task, bt, tried, params=start)
    points = functools.partial(bench.points, bt, sets["train"].trees, params=start)
    steps = members[0].fitted.steps
    averages = moving_averages(points(**options, count=steps), steps)
    longer = [model(p.params) for p in points(**options | {"epochs": m * epochs}, count=m)]

    of_members = [scores(member) for member in members]
    scales = [uncertainty.scale_of(rewards["val"], "val") for rewards in of_members]
    stacked = {name: np.stack([rewards[name] for rewards in of_members]) for name in sets}
    standard = {name: uncertainty.standardise(one, scales) for name, one in stacked.items()}
    standard["best_of"] = uncertainty.centre(standard["best_of"])

    def combined(combine: Callable[..., np.ndarray], **setting: float) -> Scores:
        return {name: combine(rewards, **setting) for name, rewards in standard.items()}

    by_method = {
        "BT, best on val": best(of_members),
        "BT, M times the steps": best_model(longer),
        "EMA of one run": best_model(map(model, averages)),
        "WARM": scores(ensembles.averaged(members)),
        "ensemble mean": combined(uncertainty.mean),
        "WCO": combined(uncertainty.wco),
        "UWO": best([combined(uncertainty.uwo, penalty=penalty) for penalty in PENALTIES]),
        "LCB": best([combined(uncertainty.lcb, beta=beta) for beta in BETAS]),
        "Bayesian head": bayesian(head, frozen),
    }
    single = [figures(rewards, sets) for rewards in of_members]
    mean = {name: float(np.mean([one[name] for one in single])) for name in single[0]}
    params = [member.fitted.params for member in members]
    some = bench.pack(sets["val"].comparisons[:BARRIER_ITEMS])

    def loss(params: Params) -> float:
        return order_of(model(params).scores(some), some.comparisons)["loss"]

    lines = [average.line(loss, *both, points=3) for both in itertools.combinations(params, 2)]
    return {
        "seed": job.seed,
        "epochs": epochs,
        "methods": {BASELINE: mean} | {name: figures(r, sets) for name, r in by_method.items()},
        "members": single,
        "head_cosine": float(average.cosines([p["reward_head"] for p in params]).min()),
        "barriers": [line.barrier for line in lines],
    }


def moving_averages(points: Iterable[Point], steps: int) -> list[Params]:
    """Those of a run that is looked at after every step, over each of `HORIZONS`."""
    decays = [max(0.0, 1 - 1 / (share * steps)) for share in HORIZONS]
    step, means = jax.jit(average.ema_step), None
    for point in points:
        means = means or [point.params] * len(decays)
        both = zip(means, decays, strict=True)
        means = [step(mean, point.params, point.step, decay) for mean, decay in both]
    return jax.device_get(means)


def bayesian(head: uncertainty.BayesianHead, frozen: Mapping[str, np.ndarray]) -> Scores:
    """The rewards of a head on frozen states, of best-of-n their lower bound relative to the
    prompt's mean."""
    among = frozen["best_of"] - frozen["best_of"].mean(axis=1, keepdims=True)
    scores = {name: head.reward(states) for name, states in frozen.items()}
    return scores | {"best_of": head.reward(among) - head.deviation(among)}


def figures(scores: Scores, sets: Mapping[str, Packed]) -> dict[str, float]:
    """Family-macro accuracy of each split; agreement with the training labels that were turned
    round, and with the others; and the gold of what best-of-n chooses, ties alike."""
    flipped = turned_round(sets["train"].comparisons)
    agrees = scores["train"][:, 0] > scores["train"][:, 1]
    candidates = np.array([comparison.scores for comparison in sets["best_of"].comparisons])
    chosen = scores["best_of"] == scores["best_of"].max(axis=1, keepdims=True)
    of_splits = {name: sets[name].comparisons for name in ("val", "id", "ood_prompt")}
    return {
        **{name: macro_accuracy(list(scores[name]), c) for name, c in of_splits.items()},
        "flipped": float(agrees[flipped].mean()),
        "clean": float(agrees[~flipped].mean()),
        "best_of": float(np.mean((candidates * chosen).sum(axis=1) / chosen.sum(axis=1))),
    }


# What it says


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Of the records of one number of epochs: methods, their gains over the baseline, and WARM's
    over them."""
    every = [(r["seed"], *item) for r in records for item in r["methods"].items()]
    by_method = [{"method": method, "seed": seed, **values} for seed, method, values in every]
    measured = outcome.values(by_method, {f: operator.itemgetter(f) for f in ("val", *FIGURES)})
    contrasts = outcome.over(measured, BASELINE)
    contrasts += [("WARM", other) for other in measured if other not in (BASELINE, "WARM")]
    ood = {method: values["ood_prompt"] for method, values in measured.items()}
    best = max(CONTROLS, key=lambda method: ood[method].mean())
    return outcome.summary(measured, contrasts) | {
        "seeds": [record["seed"] for record in records],
        "best_control": best,
        "verdict": statistics.verdict(statistics.paired(ood["WARM"] - ood[best])),
        "largest_barrier": statistics.estimate([max(record["barriers"]) for record in records]),
        "head_cosine": statistics.estimate([record["head_cosine"] for record in records]),
    }


def text(condition: Condition, results: Mapping[str, Any]) -> str:
    """What was measured, the differences between methods, and the verdict."""
    barrier, cosine = (results[name]["mean"] for name in ("largest_barrier", "head_cosine"))
    best, verdict = results["best_control"], results["verdict"]
    return (
        f"{condition}, {len(results['seeds'])} seeds\n{outcome.tables(results, FIGURES)}\n"
        f"largest barrier between members, nats: {barrier:.4f}; "
        f"least cosine of their heads: {cosine:.3f}\n"
        f"WARM over the best control ({best}), ood_prompt: {verdict}"
    )


def main(cfg: Config) -> None:
    """Runs what has not been run, and writes what it found."""
    directory = cfg.open()
    data = Noisy(cfg.label_noise, 0.7, candidates=cfg.candidates, prompts=cfg.prompts)
    conditions = [Condition(data, cfg.pairs, epochs) for epochs in cfg.epochs]
    sizes = {"items": cfg.items, "val_items": cfg.val_items}
    contest = cfg.contest(["members"], conditions, run=run, **sizes)
    choices = {"members": {"learning_rate": cfg.rate, "strength": None}}
    records = contest.measure(choices, cfg.measured, second_budget=False)
    by_epochs = {n: summary([r for r in records if r["epochs"] == n]) for n in cfg.epochs}
    parts = [text(condition, by_epochs[condition.epochs]) for condition in conditions]
    leave(directory, __doc__, {"epochs": by_epochs, "records": records}, "\n\n".join(parts))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
