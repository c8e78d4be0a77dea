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

What it printed here (± one standard error over seeds; 95 % intervals of the sign-flip test, not
adjusted for their number: adjusted, none leaves out 0). Not supported: on unseen families WARM and
the ensembles do as single runs do, at most .2 points apart, with intervals within 1.6. After 4
epochs WARM is .7 points better on `id` than the mean of its members, as is the running average of
one run (.6), which costs a quarter; the head alone is as good. It sides with wrong training labels
as often as its members do (21.9 and 21.5 %): that averaging memorises less is not seen, though one
run of as many steps memorises far more (34.1 %). Members lie in one valley, without any barrier,
close to their start: at the rates that `val` prefers fine-tuning adds nothing to the head on frozen
states, and there is little for an average to repair. One earlier trial, of seed 0 with 500 pairs,
rates two to five times as high and a head fitted with hardly any penalty, had 71 % on `id` for
single runs, 73 % for WARM and 80 % for a well-penalised frozen head; so the penalty came to be
chosen on `val` and the rates were lowered.

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
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe
from jaxrm.train.short import Point

from jaxrm import cli, parallel, statistics, toy
from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError, require
from jaxrm.evaluate.probe import final_states
from jaxrm.huggingface import hub
from jaxrm.models import average, heads, uncertainty
from jaxrm.read.accuracy import macro_accuracy
from jaxrm.read.packed import Packed
from jaxrm.report.tables import aligned, interval, spread
from jaxrm.report.webpage import leave
from jaxrm.statistics import estimate
from jaxrm.train.rundir import open_run
from jaxrm.train.state import Params
from jaxrm.train.sweep import Record, sweep

HORIZONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Of a moving average, as shares of the run's steps."""
PENALTIES = (0.1, 0.5, 1.0, 2.0)
BETAS = (0.25, 0.5, 1.0, 2.0)
PRECISIONS = (1.0, 10.0, 100.0, 1000.0)
"""What UWO, LCB and the Bayesian head choose from."""
BARRIER_ITEMS = 150
"""Comparisons of `val` that the barriers between members are measured on."""

METHODS = {
    "BT, mean of members": "1 / 1",
    "BT, best on val": "M / 1",
    "BT, M times the steps": "M / 1",
    "EMA of one run": "1 / 1",
    "WARM": "M / 1",
    "ensemble mean": "M / M",
    "WCO": "M / M",
    "UWO": "M / M",
    "LCB": "M / M",
    "Bayesian head": "0 / 1",
}
"""Each with its cost in training and in use, in models."""
BASELINE = "BT, mean of members"
OF_GAINS = ("id", "ood_prompt")
"""What methods are compared in."""
CONTROLS = (BASELINE, "BT, best on val", "BT, M times the steps", "EMA of one run")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train M models on noisy labels, and combine them in every way."""

    run_dir: Path = Path("runs/warm")
    """Where the records and the results go."""
    seed: int = 0
    """The first one."""
    seeds: int = 6
    """How many; below 6 a sign-flip test can reject nothing."""
    base: Path | None = None
    """Another base in Hugging Face layout; the toy world's own without it."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""
    rates: tuple[float, ...] = (1e-4, 3e-5, 1e-4, 3e-4)
    """Of the M members. The first is also that of the run whose weights are averaged as it goes,
    and of the run of M times the steps."""
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
        for name in ("seeds", "pairs", "items", "val_items", "prompts"):
            value = getattr(self, name)
            require(value >= 1, f"--{name.replace('_', '-')}", "at least 1", value)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)
        require(len(self.rates) >= 2, "--rates", "at least two", self.rates)
        require(all(rate > 0 for rate in self.rates), "--rates", "above 0", self.rates)
        require(bool(self.epochs), "--epochs", "at least one number", self.epochs)
        require(all(epochs >= 1 for epochs in self.epochs), "--epochs", "at least 1", self.epochs)
        require(0 < self.label_noise <= 0.5, "--label-noise", "in (0, .5]", self.label_noise)
        require(self.candidates >= 2, "--candidates", "at least 2", self.candidates)


@dataclasses.dataclass(frozen=True)
class Job:
    """The members of one seed and number of epochs, and all that their record depends on."""

    seed: int
    epochs: int
    base: str
    rates: tuple[float, ...]
    pairs: int
    label_noise: float
    items: int
    val_items: int
    candidates: int
    prompts: int


# How a job is run

Scores = Mapping[str, np.ndarray]
"""Rewards of every set, [n, K], the response first that its label puts first."""


def run(job: Job, base: Path) -> Record:
    """Trains the members and the controls, and returns every method's figures."""
    lab = Lab(base)
    sets = draw(job, lab)
    untrained = lab.start(job.seed).params
    frozen = {name: states(lab, untrained, data) for name, data in sets.items()}

    def rewards(params: Params, name: str) -> np.ndarray:
        return lab.read(params, sets[name], {"rewards": heads.rewards})["rewards"]

    def scores(params: Params) -> Scores:
        return {name: rewards(params, name) for name in sets}

    def on_val(scores_of: np.ndarray) -> float:
        return macro_accuracy(list(scores_of), sets["val"].comparisons)

    def best_model(trials: Sequence[Params]) -> Scores:
        return scores(max(trials, key=lambda params: on_val(rewards(params, "val"))))

    def best(trials: Sequence[Scores]) -> Scores:
        return max(trials, key=lambda trial: on_val(trial["val"]))

    differences = frozen["train"][:, 0] - frozen["train"][:, 1]
    fits = [uncertainty.fit_bayesian_head(differences, precision=p) for p in PRECISIONS]
    head = max(fits, key=lambda fit: on_val(fit.reward(frozen["val"])))
    start = untrained | {"reward_head": {"weight": head.weights[:, None].astype(np.float32)}}
    train = functools.partial(
        lab.train, Recipe(), sets["train"].trees, params=start, rate=job.rates[0]
    )
    seeds = [1000 * job.seed + m for m in range(len(job.rates))]
    steps = lab.steps(Recipe(), sets["train"].trees, job.epochs, seeds[0])
    first, averages = with_averages(train(epochs=job.epochs, seed=seeds[0], points=steps), steps)
    members = [first]
    for rate, seed in zip(job.rates[1:], seeds[1:], strict=True):
        members += on_host(train(epochs=job.epochs, rate=rate, seed=seed))
    of_members = [scores(member) for member in members]
    m = len(members)
    longer = on_host(train(epochs=m * job.epochs, seed=seeds[0], points=m))

    scales = [uncertainty.scale_of(of["val"], "val") for of in of_members]
    stacked = {name: np.stack([of[name] for of in of_members]) for name in sets}
    standard = {name: uncertainty.standardise(of, scales) for name, of in stacked.items()}
    standard["best_of"] = uncertainty.centre(standard["best_of"])

    def combined(combine: Callable[[np.ndarray], np.ndarray]) -> Scores:
        return {name: combine(of) for name, of in standard.items()}

    found = {
        "BT, best on val": best(of_members),
        "BT, M times the steps": best_model(longer),
        "EMA of one run": best_model(averages),
        "WARM": scores(average.average(members)),
        "ensemble mean": combined(uncertainty.mean),
        "WCO": combined(uncertainty.wco),
        "UWO": best([combined(functools.partial(uncertainty.uwo, penalty=p)) for p in PENALTIES]),
        "LCB": best([combined(functools.partial(uncertainty.lcb, beta=b)) for b in BETAS]),
        "Bayesian head": bayesian(head, frozen),
    }
    single = [figures(of, sets) for of in of_members]
    mean = {name: float(np.mean([of[name] for of in single])) for name in single[0]}
    return {
        "seed": job.seed,
        "epochs": job.epochs,
        "methods": {BASELINE: mean} | {name: figures(of, sets) for name, of in found.items()},
        "members": single,
        "head_cosine": float(average.cosines([p["reward_head"] for p in members]).min()),
        "barriers": barriers(lab, members, sets["val"]),
    }


def draw(job: Job, lab: Lab) -> dict[str, Packed]:
    """The seed's comparisons, packed."""
    world = toy.World(job.seed, label_noise=job.label_noise)
    drawn = {
        "train": world.comparisons("train", job.pairs),
        "val": world.comparisons("val", job.val_items),
        "id": world.comparisons("id", job.items),
        "ood_prompt": world.comparisons("ood_prompt", job.items),
        "best_of": world.comparisons("ood_prompt", job.prompts, job.candidates),
    }
    if not 0 < turned_round(drawn["train"]).sum() < job.pairs:
        raise DataError(f"seed {job.seed} turned none or all of the labels round: more --pairs")
    return {name: lab.pack(comparisons) for name, comparisons in drawn.items()}


def states(lab: Lab, params: Params, data: Packed) -> np.ndarray:
    """Float32 [n, K, d]: the states that rewards are read from."""
    return lab.read(params, data, {"states": final_states})["states"]


def on_host(points: Iterable[Point]) -> list[Params]:
    """The parameters at every point, in the host's memory."""
    return [jax.device_get(point.params) for point in points]


def with_averages(points: Iterable[Point], steps: int) -> tuple[Params, list[Params]]:
    """The end of a run that is looked at after every step, and its moving averages over each of
    `HORIZONS`."""
    decays = [max(0.0, 1 - 1 / (share * steps)) for share in HORIZONS]
    step, means = jax.jit(average.ema_step), None
    for point in points:
        means = means or [point.params] * len(decays)
        means = [
            step(mean, point.params, point.step, decay)
            for mean, decay in zip(means, decays, strict=True)
        ]
    return jax.device_get((point.params, means))


def bayesian(head: uncertainty.BayesianHead, frozen: Mapping[str, np.ndarray]) -> Scores:
    """The rewards of a head on frozen states, of best-of-n their lower bound relative to the
    prompt's mean."""
    among = frozen["best_of"] - frozen["best_of"].mean(axis=1, keepdims=True)
    scores = {name: head.reward(of) for name, of in frozen.items()}
    return scores | {"best_of": head.reward(among) - head.deviation(among)}


def barriers(lab: Lab, members: Sequence[Params], val: Packed) -> list[float]:
    """The barrier of the Bradley-Terry loss, in nats, half-way between every two members."""
    data = lab.pack(val.comparisons[:BARRIER_ITEMS])

    def loss(params: Params) -> float:
        rewards = lab.read(params, data, {"rewards": heads.rewards})["rewards"].astype(np.float64)
        return float(np.logaddexp(0, rewards[:, 1] - rewards[:, 0]).mean())

    pairs = itertools.combinations(members, 2)
    return [average.line(loss, *pair, points=3).barrier for pair in pairs]


def figures(scores: Scores, sets: Mapping[str, Packed]) -> dict[str, float]:
    """Family-macro accuracy of each split; agreement with the training labels that were turned
    round, and with the others; and the gold of what best-of-n chooses, ties alike."""
    flipped = turned_round(sets["train"].comparisons)
    agrees = scores["train"][:, 0] > scores["train"][:, 1]
    candidates = np.array([comparison.scores for comparison in sets["best_of"].comparisons])
    chosen = scores["best_of"] == scores["best_of"].max(axis=1, keepdims=True)
    splits = {name: sets[name].comparisons for name in ("val", "id", "ood_prompt")}
    return {
        **{name: macro_accuracy(list(scores[name]), of) for name, of in splits.items()},
        "flipped": float(agrees[flipped].mean()),
        "clean": float(agrees[~flipped].mean()),
        "best_of": float(np.mean((candidates * chosen).sum(axis=1) / chosen.sum(axis=1))),
    }


def turned_round(comparisons: Sequence[Comparison]) -> np.ndarray:
    """Bool [n]: whether the label prefers the response with less gold."""
    gold = np.array([comparison.scores for comparison in comparisons])
    return gold[:, 0] < gold[:, 1]


# What it says


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Of the records of one number of epochs, with a standard error and intervals over seeds."""

    def values(method: str, figure: str) -> np.ndarray:
        return np.array([record["methods"][method][figure] for record in records])

    def gain(method: str, other: str, figure: str) -> statistics.Paired | None:
        if len(records) < 2:
            return None
        return statistics.paired(values(method, figure) - values(other, figure))

    measured = list(records[0]["methods"][BASELINE])
    methods = {
        method: {
            "figures": {figure: estimate(values(method, figure)) for figure in measured},
            "gain": {f: gain(method, BASELINE, f) for f in OF_GAINS},
            "warm_minus_it": {f: gain("WARM", method, f) for f in OF_GAINS},
        }
        for method in METHODS
    }
    best = max(CONTROLS, key=lambda method: values(method, "ood_prompt").mean())
    over_best = methods[best]["warm_minus_it"]["ood_prompt"]
    barrier = np.array([max(record["barriers"]) for record in records])
    return {
        "n": len(records),
        "seeds": [record["seed"] for record in records],
        "methods": methods,
        "best_control": best,
        "verdict": None if over_best is None else statistics.verdict(over_best),
        "largest_barrier": estimate(barrier),
        "head_cosine": estimate(np.array([record["head_cosine"] for record in records])),
    }


def text(epochs: int, found: Mapping[str, Any], cfg: Config) -> str:
    """What was measured, the differences between methods, and the verdict."""
    methods = found["methods"]
    shown = ("id", "ood_prompt", "flipped", "clean", "best_of")
    measured = [
        [method, METHODS[method], *(spread(of["figures"][figure]) for figure in shown)]
        for method, of in methods.items()
    ]
    differences = [
        [
            method,
            *(interval(of["gain"][f] if method != BASELINE else None) for f in OF_GAINS),
            *(interval(of["warm_minus_it"][f] if method != "WARM" else None) for f in OF_GAINS),
        ]
        for method, of in methods.items()
    ]
    head = ["points", "id - BT", "ood - BT", "WARM - it: id", "WARM - it: ood"]
    lines = [
        f"epochs {epochs}, {cfg.pairs} pairs, noise {cfg.label_noise}, {found['n']} seeds",
        aligned(["%", "cost", *shown[:-1], f"best of {cfg.candidates}"], measured),
        "",
        aligned(head, differences),
        f"largest barrier between members, nats: {found['largest_barrier']['mean']:.4f}; "
        f"least cosine of their heads: {found['head_cosine']['mean']:.3f}",
        f"WARM over the best control ({found['best_control']}), ood_prompt: {found['verdict']}",
    ]
    return "\n".join(lines)


def main(cfg: Config) -> None:
    """Runs what has not been run, and writes what it found."""
    parallel.start()
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    directory = open_run(cfg.run_dir, cfg, [cfg.base])
    base = toy.shipped_base() if cfg.base is None else cfg.base
    key, shared = hub.fingerprint(base), {f.name for f in dataclasses.fields(Job)}
    options = {n: v for n, v in vars(cfg).items() if n in shared - {"seed", "epochs", "base"}}
    seeds = range(cfg.seed, cfg.seed + cfg.seeds)
    order = itertools.product(seeds, cfg.epochs)
    jobs = [Job(seed=seed, epochs=epochs, base=key, **options) for seed, epochs in order]
    here = functools.partial(run, base=base)
    records = sweep(jobs, here, directory / "jobs", workers=cfg.workers, progress="members")
    found = {
        epochs: summary([record for record in records if record["epochs"] == epochs])
        for epochs in cfg.epochs
    }
    tables = "\n\n".join(text(epochs, found[epochs], cfg) for epochs in cfg.epochs)
    leave(directory, __doc__, {"epochs": found, "records": records}, tables)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
