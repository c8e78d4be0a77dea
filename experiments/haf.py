"""Does a policy beside the reward help on other data sets? HaF-RM (arXiv 2407.04185).

    python -m experiments.haf

HaF trains one trunk for a reward head and a policy: Bradley-Terry + 0.2 DPO, whose reference is the
base. The paper trains it on five data sets and on their mixture, tests each model on all five, and
compares it with the baseline (Bradley-Terry alone) and with the DPO policy as a reward model, which
is scored by beta (log pi - log pi_ref).

Here the five data sets are themes of the toy world's families of questions: facts, numbers, lists
that are put in another order, things picked from a list, and requests some of which are to be
refused. Each seed holds a third of all families out of training (`ood_prompt`). The mixture has as
many pairs as a single data set, a fifth from each, so all models have seen equally many labels.
Test labels are clean. Every method gets four trials on `val` of the mixture, whose labels are as
noisy as in training, in worlds that nothing else is measured in: Bradley-Terry four learning rates,
HaF two and two shares of DPO, DPO two and two betas.

What it printed here, over 6 seeds (exploratory), ± one standard error, with the 95 % intervals of
the sign-flip test; chosen on `val` were 3e-4 for Bradley-Terry, 3e-4 and a share of .2 for HaF, and
1e-3 and a beta of .5 for DPO:

    accuracy, %                   bt         haf         dpo         haf - bt              dpo - bt
    -----------------------------------------------------------------------------------------------
    single, own set       82.6 ± 0.4  82.5 ± 0.5  84.9 ± 0.8  -0.0 [-0.4, +0.2]    +2.3 [-0.6, +6.0]
    single, other sets    67.0 ± 2.7  66.9 ± 2.6  73.4 ± 0.5  -0.0 [-0.4, +0.1]   +6.5 [+0.1, +17.7]
    single, ood_prompt    66.8 ± 4.5  66.6 ± 4.5  64.8 ± 1.2  -0.2 [-0.4, +0.1]   -2.0 [-14.4, +8.9]
    mixture, all sets     79.7 ± 1.5  79.8 ± 1.5  79.2 ± 1.4  +0.1 [+0.0, +0.2]    -0.6 [-2.8, +3.4]
    mixture, ood_prompt   69.0 ± 2.8  69.0 ± 2.8  62.8 ± 1.5  +0.0 [+0.0, +0.0]   -6.2 [-11.3, +4.0]
    mixture, ood_response 77.8 ± 1.8  77.9 ± 1.8  64.5 ± 1.8  +0.1 [+0.0, +0.7]  -13.3 [-20.9, -1.2]
    mixture, spurious     81.4 ± 1.2  81.5 ± 1.2  56.5 ± 3.6  +0.1 [+0.0, +0.6] -24.8 [-39.9, -13.9]

    bt, trained on   facts  numbers  order  picking  requests
    facts             92.2     69.7   66.0     58.0      60.6
    numbers           87.7     81.3   67.2     59.5      58.6
    order             78.5     68.0   70.7     64.8      64.6
    picking           80.8     68.3   68.2     70.8      55.6
    requests          79.7     64.2   64.2     55.1      97.8
    mixture           90.0     79.8   69.2     70.4      89.3

    dpo, trained on  facts  numbers  order  picking  requests
    facts             90.3     73.7   73.5     74.2      70.2
    numbers           75.2     79.7   73.9     72.8      69.5
    order             74.8     69.2   80.5     79.3      73.5
    picking           78.0     73.8   74.7     83.7      71.7
    requests          77.0     68.3   72.7     72.5      90.1
    mixture           82.0     73.7   75.7     80.3      84.1

The paper's gain of HaF does not show: each cell of its matrix is within .7 points of that of
Bradley-Terry. At the paper's share the policy's gradient on the trunk has about a seventh of the
reward's norm (measured aside, on seed 0), and `val` did not prefer the larger share. The DPO policy
is better on other data sets, but what it carries over seems to be the cue of the training law (a
"!", which ends the better answer in 70 % of pairs, there too): where the cue says nothing it is not
better, and where it is reversed it is much worse. No difference of the 14 is significant after Holm
(p .44 at least). Not quite blind: while the program was timed, `id` and `ood_prompt` of the first
of the six worlds were seen; afterwards one epoch, four rows and HaF's second share were set, and
the rates and betas had been before.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe
from jaxtyping import Array, Float

from jaxrm import cli, parallel, toy
from jaxrm.data.carried import REFERENCE
from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import Ask, PackedBatch, TokenTree
from jaxrm.errors import require
from jaxrm.huggingface import hub
from jaxrm.losses import generation, preference
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.read.accuracy import macro_accuracy
from jaxrm.read.packed import Packed
from jaxrm.read.reading import Reading
from jaxrm.report.tables import aligned, interval, spread
from jaxrm.report.webpage import leave
from jaxrm.statistics import estimate, holm, paired
from jaxrm.train.rundir import open_run
from jaxrm.train.sweep import Record, sweep
from jaxrm.train.terms import LossFn, Term, Terms, reward_monitors

THEMES = {
    "facts": ("colour", "home", "food", "foods"),
    "numbers": ("plus", "sum", "larger", "count", "double", "odd"),
    "order": ("backwards", "rest", "swap"),
    "picking": ("last", "second", "ends"),
    "requests": ("feed", "poison", "forge"),
}
"""The data sets, each of these families of questions."""

MIXTURE = "mixture"
SIDES = ("ood_prompt", "ood_response", "spurious")
"""Splits of the world that are tested beside the data sets."""

BETA = 0.1
"""DPO's in HaF, as in the paper; as a factor of scores it changes no order."""

ROWS = 4
"""Of a batch: few, so that few pairs make many steps."""


@dataclasses.dataclass(frozen=True)
class Config:
    """HaF, Bradley-Terry and DPO on five data sets and their mixture."""

    run_dir: Path = Path("runs/haf")
    """Where the results go; the same command goes on where it was stopped."""
    seed: int = 0
    """The first; seeds that keep all families of a data set from training are passed over."""
    seeds: int = 6
    tuning_seeds: int = 2
    """Worlds in which the trials are made; they follow on those that are reported."""
    base: Path | None = None
    """Another directory in Hugging Face layout than the shipped toy base."""
    workers: int | None = None
    """Processes; one for each core without it."""
    pairs: int = 300
    """Training pairs of every data set, and of the mixture."""
    epochs: int = 1
    val_items: int = 300
    """Comparisons by which a trial is judged."""
    items: int = 100
    """Test comparisons of each data set."""
    side_items: int = 150
    """Test comparisons of each other split."""

    def __post_init__(self):
        require(self.tuning_seeds >= 1, "--tuning-seeds", "at least 1", self.tuning_seeds)
        require(self.seeds >= 2, "--seeds", "at least 2, for a standard error", self.seeds)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.epochs >= 1, "--epochs", "at least 1", self.epochs)
        require(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)
        for name in ("pairs", "val_items", "items", "side_items"):
            value, least = getattr(self, name), len(THEMES)
            require(value >= least, f"--{name.replace('_', '-')}", f"at least {least}", value)


# The methods


def haf(ratio: float) -> LossFn:
    """Bradley-Terry + `ratio` DPO, on one trunk."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        hidden = model.hidden(batch)
        rewards = heads.rewards(model, hidden, batch, rng)
        per_pair = batch.pair_weight * batch.pair_mask
        reward = preference.bradley_terry(*batch.pairs(rewards))
        policy = policy_loss(model, hidden, batch, BETA)
        terms = {"reward": Term(1.0, reward, per_pair), "policy": Term(ratio, policy, per_pair)}
        return terms | reward_monitors(rewards, batch)

    return loss_fn


def dpo(beta: float) -> LossFn:
    """DPO alone."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        policy = policy_loss(model, model.hidden(batch), batch, beta)
        return {"policy": Term(1.0, policy, batch.pair_weight * batch.pair_mask)}

    return loss_fn


def policy_loss(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch, beta: float
) -> Float[Array, "rows pairs"]:
    """DPO of each pair, with the reference's log-probs that the batch brings."""
    logps = heads.response_logps(model, hidden, batch)
    return generation.dpo(*batch.pairs(logps), *batch.pairs(batch.reference_logps), beta)


def implicit_rewards(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
) -> Float[Array, "rows slots"]:
    """The policy as a reward model: beta (log pi - log pi_ref)."""
    logps = heads.response_logps(model, hidden, batch)
    return generation.implicit_rewards(logps, batch.reference_logps, BETA)


@dataclasses.dataclass(frozen=True)
class Method:
    """How a model is trained, tried and read.

    Attributes:
      recipe: of its training.
      trials: (learning rate, strength), four of each method.
      scores: the reading that it is tested by.
      reads: whose tokens that reading needs as targets.
    """

    recipe: Recipe
    trials: Sequence[tuple[float, float | None]]
    scores: Reading = heads.rewards
    reads: Ask = "none"


METHODS = {
    "bt": Method(Recipe(), tuple((rate, None) for rate in (1e-4, 3e-4, 1e-3, 3e-3))),
    "haf": Method(
        Recipe(haf, ask="all", columns=(REFERENCE,)),
        tuple(itertools.product((3e-4, 1e-3), (0.2, 2.0))),
    ),
    "dpo": Method(
        Recipe(dpo, ask="all", columns=(REFERENCE,)),
        tuple(itertools.product((3e-4, 1e-3), (0.1, 0.5))),
        scores=implicit_rewards,
        reads="all",
    ),
}


# The data


def usable_seeds(first: int) -> Iterator[int]:
    """The seeds from `first` on whose worlds train on some family of every data set."""
    for seed in itertools.count(first):
        held_out = toy.World(seed).ood_families
        if not any(held_out.issuperset(families) for families in THEMES.values()):
            yield seed


@functools.lru_cache(maxsize=8)
def data_sets(seed: int, split: toy.Split, n: int) -> Mapping[str, Sequence[Comparison]]:
    """The first n comparisons of each data set."""
    world = toy.World(seed)
    found: dict[str, list[Comparison]] = {name: [] for name in THEMES}
    theme = {family: name for name, families in THEMES.items() for family in families}
    # Families take turns, so this many are enough for a data set that has one of them.
    for comparison in world.comparisons(split, n * (len(world.families) - len(world.ood_families))):
        found[theme[comparison.subset]].append(comparison)
    return {name: comparisons[:n] for name, comparisons in found.items()}


def mixture(seed: int, split: toy.Split, n: int) -> list[Comparison]:
    """Of each data set a fifth of n."""
    each = data_sets(seed, split, n // len(THEMES))
    return list(itertools.chain.from_iterable(each.values()))


@functools.lru_cache(maxsize=8)
def training_trees(lab: Lab, data: str, seed: int, pairs: int) -> Sequence[TokenTree]:
    """The pairs of a data set or the mixture, with the base's log-probs."""
    single = data in THEMES
    comparisons = data_sets(seed, "train", pairs)[data] if single else mixture(seed, "train", pairs)
    return lab.with_references(lab.pack(comparisons, "all"))


@functools.lru_cache(maxsize=4)
def tests(lab: Lab, seed: int, items: int, side_items: int, reads: Ask) -> dict[str, Packed]:
    """Every data set's test comparisons, and those of the other splits."""
    world = toy.World(seed)
    sets = dict(data_sets(seed, "id", items))
    sets |= {split: world.comparisons(split, side_items) for split in SIDES}
    return {name: packed(lab, comparisons, reads) for name, comparisons in sets.items()}


@functools.lru_cache(maxsize=4)
def validation(lab: Lab, seed: int, items: int, reads: Ask) -> dict[str, Packed]:
    """What a trial is judged by."""
    return {"val": packed(lab, mixture(seed, "val", items), reads)}


def packed(lab: Lab, comparisons: Sequence[Comparison], reads: Ask) -> Packed:
    """Comparisons to be read, with the base's log-probs where log-probs are read."""
    plain = lab.pack(comparisons, reads)
    if reads == "none":
        return plain
    return lab.pack_trees(comparisons, lab.with_references(plain), reads)


# What is run


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run, and all that its record depends on; `base` is the base's fingerprint.

    A trial is judged by `val_items` of `val`, any other run by `items` and `side_items` of the test
    sets.
    """

    method: str
    rate: float
    strength: float | None
    data: str
    seed: int
    pairs: int
    epochs: int
    base: str
    val_items: int = 0
    items: int = 0
    side_items: int = 0


def run(job: Job, base: Path) -> Record:
    """Trains, and returns what was found on every set that the job names."""
    method, lab = METHODS[job.method], Lab(base, rows=ROWS)
    trees = training_trees(lab, job.data, job.seed, job.pairs)
    options = {"rate": job.rate, "strength": job.strength, "epochs": job.epochs, "seed": job.seed}
    fitted = lab.fit(method.recipe, trees, **options)
    if job.val_items:
        sets = validation(lab, job.seed, job.val_items, method.reads)
    else:
        sets = tests(lab, job.seed, job.items, job.side_items, method.reads)
    found = {}
    for name, data in sets.items():
        scores = lab.read(fitted.params, data, {"scores": method.scores})["scores"]
        found[name] = macro_accuracy(list(scores), data.comparisons)
    return {"accuracy": found, "steps": fitted.steps, "seconds": round(fitted.seconds, 2)}


def main(cfg: Config) -> None:
    """Tries, measures, and prints the tables."""
    parallel.start()
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    directory = open_run(cfg.run_dir, cfg, [cfg.base])
    base = cfg.base or toy.shipped_base()
    seeds = list(itertools.islice(usable_seeds(cfg.seed), cfg.seeds + cfg.tuning_seeds))
    job = functools.partial(Job, pairs=cfg.pairs, epochs=cfg.epochs, base=hub.fingerprint(base))

    def run_all(jobs: Sequence[Job], title: str) -> list[Record]:
        here = functools.partial(run, base=base)
        return sweep(jobs, here, directory / "jobs", workers=cfg.workers, progress=title)

    tried = [(name, *trial) for name, method in METHODS.items() for trial in method.trials]
    asked = list(itertools.product(tried, seeds[cfg.seeds :]))
    trials = [
        job(*trial, data=MIXTURE, seed=seed, val_items=cfg.val_items) for trial, seed in asked
    ]
    judged = [record["accuracy"]["val"] for record in run_all(trials, "trials")]
    by_trial = dict(zip(tried, np.reshape(judged, (len(tried), -1)).mean(axis=1), strict=True))
    chosen = {name: best(by_trial, name) for name in METHODS}

    trained_on = [*THEMES, MIXTURE]
    arms = list(itertools.product(seeds[: cfg.seeds], METHODS, trained_on))
    sizes = {"items": cfg.items, "side_items": cfg.side_items}
    jobs = [job(*chosen[name], data=data, seed=seed, **sizes) for seed, name, data in arms]
    records = run_all(jobs, "runs")
    columns = [*THEMES, *SIDES]
    accuracies = np.array([[r["accuracy"][column] for column in columns] for r in records])
    shape = (cfg.seeds, len(METHODS), len(trained_on), len(columns))
    results = {
        "seeds": seeds[: cfg.seeds],
        "tuning_seeds": seeds[cfg.seeds :],
        "trials": [(*trial, value) for trial, value in by_trial.items()],
        "chosen": {name: trial[1:] for name, trial in chosen.items()},
        "seconds": {
            name: np.mean([r["seconds"] for r, arm in zip(records, arms, strict=True)
                           if arm[1] == name])
            for name in METHODS
        },
        **figures(accuracies.reshape(shape)),
    }  # fmt: skip
    leave(directory, __doc__, results, tables(results))


def best(by_trial: Mapping[tuple, float], method: str) -> tuple:
    """The method's trial of the highest accuracy on `val`; of equal ones the first."""
    return max((trial for trial in by_trial if trial[0] == method), key=by_trial.__getitem__)


# What is made of it

SUMMARIES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "single, own set": lambda a: np.einsum("...ii->...i", a[..., :5, :5]).mean(-1),
    "single, other sets": lambda a: a[..., :5, :5][..., ~np.eye(5, dtype=bool)].mean(-1),
    "single, ood_prompt": lambda a: a[..., :5, 5].mean(-1),
    "mixture, all sets": lambda a: a[..., 5, :5].mean(-1),
    "mixture, ood_prompt": lambda a: a[..., 5, 5],
    "mixture, ood_response": lambda a: a[..., 5, 6],
    "mixture, spurious": lambda a: a[..., 5, 7],
}
"""[..., trained on, tested on] -> [...]: what is said of a method in one number."""


def figures(accuracies: Float[np.ndarray, "seeds methods 6 8"]) -> dict[str, Any]:
    """Means over seeds with their standard errors, and differences from Bradley-Terry."""

    summary: dict[str, Any] = {}
    for title, of in SUMMARIES.items():
        values = of(accuracies)
        gains = [paired(values[:, m] - values[:, 0]) for m in range(1, len(METHODS))]
        summary[title] = {
            "accuracy": {name: estimate(values[:, m]) for m, name in enumerate(METHODS)},
            "over bt": dict(zip(list(METHODS)[1:], gains, strict=True)),
        }
    adjusted = iter(holm([g.p for of in summary.values() for g in of["over bt"].values()]))
    for of in summary.values():
        of["holm"] = {name: next(adjusted) for name in of["over bt"]}
    matrices = {
        name: [[estimate(cell) for cell in row] for row in np.moveaxis(accuracies[:, m], 0, -1)]
        for m, name in enumerate(METHODS)
    }
    return {"summary": summary, "matrices": matrices}


def tables(results: Mapping[str, Any]) -> str:
    """The summary, and each method's matrix, in percent."""
    rows = []
    for title, of in results["summary"].items():
        means = [spread(found) for found in of["accuracy"].values()]
        gains = [interval(gain) for gain in of["over bt"].values()]
        rows.append([title, *means, *gains])
    names = list(METHODS)
    parts = [aligned(["accuracy, %", *names, *(f"{n} - bt" for n in names[1:])], rows)]
    for name, matrix in results["matrices"].items():
        lines = [
            [data, *(f"{100 * cell['mean']:.1f}" for cell in row)]
            for data, row in zip([*THEMES, MIXTURE], matrix, strict=True)
        ]
        parts.append(aligned([f"{name}, trained on", *THEMES, *SIDES], lines))
    chosen = ", ".join(
        f"{name} {rate:g}" + ("" if strength is None else f" ({strength:g})")
        for name, (rate, strength) in results["chosen"].items()
    )
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in results["seconds"].items())
    parts.append(f"learning rates (strengths): {chosen}; seconds of training: {seconds}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
