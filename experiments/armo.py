"""ArmoRM (arXiv 2406.12845): grades on several attributes, weighed by a gate that reads the prompt.

    python -m experiments.armo

Raters grade seven attributes of each response, with errors, gaps, and up to .2 too much for long
answers; the eighth, verbosity, is its length. Gold is a weighted mean of the seven. In world A the
weights are the same for all families of questions, in world B each family has its own. So a gate
should gain nothing in A, and something in B where families are known; there is no way to know the
weights of families that training lacks (`ood_prompt`).

- bt: Bradley-Terry on the pairs, which is all that it sees. The others see the grades too.
- smorm: Bradley-Terry + MSE on the grades, one trunk (arXiv 2507.07375); its first output ranks.
- urm: a trunk trained on the Gaussian likelihood of grades (arXiv 2410.00847), its means gated.
- armo: ridge regression on the frozen states of bt, debiased of verbosity, gated.
- armo, no gate: the weights of attributes are fitted to the pairs too, but are constant.
- armo, no debias: the attributes as they were fitted, verbosity among them.
- qrm: quantiles on the states of bt (arXiv 2409.10164), their means gated, no debias.
- base: ...: the same on the states of the base, of which no reward model was trained. `base: bt` is
  a linear Bradley-Terry reward there.
- gold attributes: the true ones, with the weights of world A: what constant weights could reach.

Every method has two trials, chosen on `val`, whose labels are as noisy as training's (`base: bt`
has one). `val` is graded too: ridge regression chooses its strength there.

What it printed here, at the defaults (600 pairs, 6 seeds; family-macro accuracy ± one standard
error over seeds; "longer" is how often the longer response of a pair wins):

    world A, %           setting           id   ood_prompt  ood_response  longer, id
    bt                    0.0003   81.2 ± 0.7   72.3 ± 3.9    79.4 ± 1.1  32.3 ± 1.7
    smorm                    0.1   80.9 ± 1.3   71.8 ± 3.2    78.8 ± 1.7  32.8 ± 1.8
    armo                   0.003   81.3 ± 0.8   72.1 ± 3.4    79.8 ± 0.8  32.7 ± 1.7
    armo, no gate           0.03   82.3 ± 0.9   74.1 ± 3.7    80.5 ± 0.6  32.4 ± 1.9
    armo, no debias        0.001   80.4 ± 1.0   69.8 ± 4.4    78.8 ± 1.0  34.3 ± 1.9
    armo, neither           0.03   82.3 ± 0.8   73.6 ± 3.9    80.3 ± 0.7  32.7 ± 1.9
    base: bt                   0   76.9 ± 0.8   66.4 ± 4.4    76.8 ± 1.6  37.6 ± 2.3
    base: armo             0.001   81.6 ± 0.7   70.1 ± 4.8    80.1 ± 0.8  33.1 ± 1.1
    base: armo, no gate     0.01   82.2 ± 0.7   71.2 ± 5.0    80.4 ± 0.8  33.4 ± 1.4
    gold attributes            0  100.0 ± 0.0  100.0 ± 0.0   100.0 ± 0.0  37.2 ± 0.5

    world B, %           setting           id   ood_prompt  ood_response  longer, id
    bt                    0.0003   82.0 ± 0.9   72.3 ± 4.0    80.2 ± 1.2  38.1 ± 0.9
    smorm                    0.1   81.2 ± 1.4   70.9 ± 3.8    79.5 ± 2.2  38.5 ± 1.7
    armo                   0.003   83.5 ± 0.8   70.9 ± 4.0    80.9 ± 1.4  36.2 ± 1.9
    armo, no gate           0.03   83.9 ± 0.6   73.2 ± 4.3    81.7 ± 1.3  36.3 ± 1.9
    armo, no debias        0.003   82.4 ± 0.7   69.2 ± 4.5    79.1 ± 1.6  37.8 ± 1.9
    armo, neither           0.03   83.8 ± 0.6   73.0 ± 4.4    81.6 ± 1.4  36.4 ± 1.8
    base: bt                   0   79.0 ± 0.5   65.5 ± 5.7    76.6 ± 1.4  39.4 ± 1.9
    base: armo             0.003   83.4 ± 0.9   71.8 ± 4.5    81.8 ± 0.8  36.5 ± 1.8
    base: armo, no gate     0.03   83.1 ± 0.8   72.9 ± 4.8    82.0 ± 0.7  36.9 ± 1.7
    gold attributes            0   96.1 ± 0.4   98.2 ± 0.5    97.5 ± 0.2  40.9 ± 0.9

    points, 95 % sign-flip interval            id           ood_prompt        ood_response
    A: armo - bt               +0.1 [-4.2, +3.6]    -0.1 [-8.2, +5.8]   +0.4 [-3.2, +4.6]
    A: armo - armo, no gate    -0.9 [-1.6, +0.2]    -1.9 [-3.6, +0.2]   -0.7 [-2.2, +0.4]
    A: armo - smorm            +0.4 [-3.0, +5.0]  +0.3 [-10.4, +12.4]   +1.0 [-2.4, +7.4]
    A: armo - armo, no debias  +0.9 [-1.4, +3.2]    +2.4 [-1.2, +7.4]   +1.0 [-1.0, +2.6]
    B: armo - bt               +1.5 [-1.4, +3.8]    -1.4 [-7.6, +8.8]   +0.7 [-2.8, +4.0]
    B: armo - armo, no gate    -0.3 [-2.6, +1.4]    -2.3 [-4.0, -0.6]   -0.9 [-3.0, +0.8]
    B: armo - smorm            +2.4 [+0.2, +7.4]  -0.0 [-10.6, +16.4]   +1.4 [-3.0, +8.6]
    B: armo - armo, no debias  +1.2 [+0.4, +2.4]    +1.7 [-2.4, +4.2]   +1.7 [+0.4, +2.8]

- The gate: not supported. It gains nothing in A, as it should, and nothing in B either, where on
  families that it was not trained on it loses. There is little to gain: constant weights on the
  true attributes get 96 % in B. That armo beats smorm on B's `id` is not the gate's doing: without
  it the difference is as large (+2.7 [-0.2, +6.8]).
- The debias: with the gate it helps in B, and without a gate it changes nothing (at most .4).
  Armo's rewards prefer the longer response less often than gold does, debiased or not.
- The grades: open. No method with them is surely better than bt on its trunk, smorm least of all:
  it was best at the smallest weight of its grades. (Its trials were 1 and 3 at first; on two of
  these seeds both were worse than bt, on `val` too, and 0.1 and 0.3 took their place.)
  On states of the base they are worth a lot: there `armo, no gate` is better than `base: bt` by
  +5.3 [+2.4, +6.8] points on A's `id` and +4.1 [+0.6, +7.6] on B's, and no gap to bt shows, whose
  whole trunk was trained.
- Many intervals were looked at, none of them corrected for that.

`--methods urm qrm`, the same seeds and the same bt (points over bt, 95 % sign-flip interval):

                             id           ood_prompt         ood_response
    A: urm   -9.3 [-12.3, -6.8]   -4.4 [-8.0, +2.8]   -7.6 [-13.2, -2.4]
    A: qrm    -3.5 [-5.6, -1.0]   -1.8 [-9.0, +3.6]    -2.8 [-6.8, +0.0]
    B: urm   -9.0 [-13.0, -7.0]  -4.3 [-12.6, +5.0]   -9.0 [-15.7, -2.7]
    B: qrm    -1.7 [-6.4, +0.6]  -3.2 [-10.5, +2.2]    -2.0 [-6.4, +1.2]

A trunk of grades alone (urm) does not reach one of pairs; on the trunk of pairs quantiles (qrm) do
no better than ridge regression's means, at 19 times the outputs.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe, head_alone

from jaxrm import cli, toy
from jaxrm.data.audit import floors
from jaxrm.data.packing import PackedBatch
from jaxrm.errors import require
from jaxrm.evaluate.probe import final_states, fit_head
from jaxrm.huggingface import hub
from jaxrm.losses import attributes, preference
from jaxrm.models import armo, heads
from jaxrm.models.gate import ConstantGate, Gate, Gated, PromptGate, prompt_states
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel
from jaxrm.read.accuracy import macro_accuracy
from jaxrm.read.packed import Packed
from jaxrm.report.tables import aligned, interval, spread
from jaxrm.report.webpage import leave
from jaxrm.statistics import estimate, paired
from jaxrm.toy.gold import WEIGHTS
from jaxrm.train.rundir import open_run
from jaxrm.train.state import Params
from jaxrm.train.sweep import Record, sweep
from jaxrm.train.terms import LossFn, Term, Terms

WORLDS = {"A": "constant", "B": "by_family"}
SPLITS = ("id", "ood_prompt", "ood_response")
NAMES = (*WEIGHTS, "verbosity")
VERBOSITY = armo.index_of("verbosity", NAMES)

RATES = (3e-4, 1e-3)
"""Of a trunk."""
MSE_STRENGTHS = (0.1, 0.3)
"""Smorm's coefficient of its MSE, at bt's learning rate."""
QUANTILE_RATES = (1e-2, 3e-2)
"""Of qrm's head."""
GATE_RATES, CONSTANT_RATES = (1e-3, 3e-3), (1e-2, 3e-2)

GATE, CONSTANT = PromptGate(layers=0, temperature=10.0, scale=10.0), ConstantGate(scale=10.0)
"""Linear in the prompt's state: on `val` of other seeds hidden layers did worse, for 600 noisy
pairs are soon known by heart. The scale brings margins of grades from 0 to 1 to the order of 1."""
GATE_STEPS, GATE_BATCH = 300, 256


DEFAULT = (
    *("bt", "smorm", "armo", "armo, no gate", "armo, no debias", "armo, neither"),
    *("base: bt", "base: armo", "base: armo, no gate", "gold attributes"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """ArmoRM beside Bradley-Terry and SMORM in two toy worlds."""

    run_dir: Path = Path("runs/armo")
    methods: tuple[str, ...] = DEFAULT
    """What is compared with bt; there are urm and qrm too."""
    seed: int = 100
    """The first; the gate and its rates were chosen on others."""
    seeds: int = 6
    pairs: int = 600
    """To train on, all of them graded."""
    val_items: int = 500
    items: int = 500
    """Pairs of each test split."""
    base: Path | None = None
    """A directory in Hugging Face layout that knows the toy world; the shipped base without it."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""

    def __post_init__(self):
        for name in ("pairs", "val_items", "items"):
            value = getattr(self, name)
            require(value >= 1, f"--{name.replace('_', '-')}", "at least 1", value)
        known = ", ".join(METHODS)
        require(set(self.methods) <= set(METHODS), "--methods", f"among {known}", self.methods)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.seeds >= 2, "--seeds", "at least 2", self.seeds)
        require(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)


# The losses


def smorm(strength: float | None) -> LossFn:
    """Bradley-Terry on the first output, `strength` times MSE on the others."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, model.hidden(batch), batch, rng)
        pairs = preference.bradley_terry(*batch.pairs(outputs[..., 0]))
        errors = attributes.regression(outputs[..., 1:], batch.attributes, batch.attributes_mask)
        return {
            "reward": Term(1.0, pairs, batch.pair_weight * batch.pair_mask),
            "attributes": Term(strength, errors, batch.attributes_mask),
        }

    return loss_fn


def gaussian(strength: float | None) -> LossFn:
    """The likelihood of grades: a mean and a log-deviation of each attribute."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, model.hidden(batch), batch, rng)
        mean, log_deviation = jnp.split(outputs, 2, axis=-1)
        grades = batch.attributes, batch.attributes_mask
        values = attributes.gaussian_nll(mean, log_deviation, *grades)
        return {"attributes": Term(1.0, values, batch.attributes_mask)}

    return loss_fn


def quantiles(strength: float | None) -> LossFn:
    """The pinball loss of grades: 19 quantiles of each attribute."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, model.hidden(batch), batch, rng)
        outputs = outputs.reshape(*outputs.shape[:-1], len(NAMES), len(attributes.LEVELS))
        values = attributes.quantile(outputs, batch.attributes, batch.attributes_mask)
        return {"attributes": Term(1.0, values, batch.attributes_mask)}

    return loss_fn


SMORM, URM = Recipe(smorm, attributes=len(NAMES)), Recipe(gaussian, attributes=len(NAMES))
QRM = Recipe(quantiles, trains=head_alone, attributes=len(NAMES))


# The data of a world, and what bt and the base make of it


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One seed's drawing of one of the worlds."""

    weighting: str
    seed: int
    pairs: int
    val_items: int
    items: int


@dataclasses.dataclass(frozen=True)
class Job:
    """One method's trial; `rate` is bt's learning rate, `base` the base's fingerprint."""

    method: str
    setting: float
    drawn: Drawn
    base: str
    rate: float | None = None


States = Callable[[str], Mapping[str, np.ndarray]]
"""Split -> "states" and "prompts", float32 [n, 2, d] each: at the end of responses, of prompts."""

Scores = Callable[[str], np.ndarray]
"""Split -> rewards [n, 2], the better response's first."""


@functools.lru_cache(maxsize=10)
def packed(base: Path, drawn: Drawn, split: str) -> Packed:
    """The split, graded by raters; of verbosity, which is there to be counted, no grade lacks."""
    world = toy.World(seed=drawn.seed, weighting=drawn.weighting)
    n = {"train": drawn.pairs, "val": drawn.val_items}.get(split, drawn.items)
    graded = []
    for comparison in world.rated(world.comparisons(split, n)):
        lengths = floors.longer(floors.response_texts([comparison])) / 80
        rows = zip(comparison.attributes, lengths, strict=True)
        rows = tuple((*row, min(float(length), 1.0)) for row, length in rows)
        graded.append(dataclasses.replace(comparison, attributes=rows))
    return Lab(base).pack(graded)


@functools.lru_cache(maxsize=32)
def trunk(base: Path, drawn: Drawn, rate: float | None) -> Params:
    """The parameters of bt at that learning rate; of the base, without one."""
    lab = Lab(base)
    if rate is None:
        return lab.start(drawn.seed).params
    trees = packed(base, drawn, "train").trees
    return lab.fit(Recipe(), trees, rate=rate, seed=drawn.seed).params


@functools.lru_cache(maxsize=20)
def states_of(base: Path, drawn: Drawn, rate: float | None, split: str) -> Mapping[str, np.ndarray]:
    """The frozen states of `trunk`."""
    return read_states(Lab(base), trunk(base, drawn, rate), packed(base, drawn, split))


def read_states(lab: Lab, params: Params, data: Packed) -> Mapping[str, np.ndarray]:
    """As `States` has them."""
    return lab.read(params, data, {"states": final_states, "prompts": prompt_states})


@functools.lru_cache(maxsize=4)
def ridge_heads(base: Path, drawn: Drawn, rate: float | None) -> np.ndarray:
    """Float64 [d, A]: the attributes on the states of `trunk`."""

    def of(split: str) -> tuple[np.ndarray, np.ndarray]:
        states = states_of(base, drawn, rate, split)["states"]
        labels = armo.labels_of(packed(base, drawn, split).comparisons, NAMES)
        return states.reshape(len(labels), -1), labels

    return armo.fit_heads(*of("train"), *of("val"), NAMES).weights


# The methods


def trained_pairs(job: Job, base: Path) -> Scores:
    """Bradley-Terry."""
    params, lab = trunk(base, job.drawn, job.setting), Lab(base)

    def scores(split: str) -> np.ndarray:
        data = packed(base, job.drawn, split)
        return lab.read(params, data, {"rewards": heads.rewards})["rewards"]

    return scores


def trained_both(job: Job, base: Path) -> Scores:
    """SMORM."""
    lab, train = Lab(base, HeadConfig(outputs=1 + len(NAMES))), packed(base, job.drawn, "train")
    options = {"rate": job.rate, "strength": job.setting, "seed": job.drawn.seed}
    params = lab.fit(SMORM, train.trees, **options).params

    def scores(split: str) -> np.ndarray:
        data = packed(base, job.drawn, split)
        return lab.read(params, data, {"outputs": heads.outputs})["outputs"][..., 0]

    return scores


def trained_gaussian(job: Job, base: Path) -> Scores:
    """URM: its trunk and heads, then a gate."""
    lab, train = Lab(base, HeadConfig(outputs=2 * len(NAMES))), packed(base, job.drawn, "train")
    params = lab.fit(URM, train.trees, rate=job.setting, seed=job.drawn.seed).params
    means = params["reward_head"]["weight"][:, : len(NAMES)]

    @functools.cache
    def states(split: str) -> Mapping[str, np.ndarray]:
        return read_states(lab, params, packed(base, job.drawn, split))

    return weighed(states, means, GATE, GATE_RATES[-1], job.drawn.seed)


def frozen_quantiles(job: Job, base: Path) -> Scores:
    """QRM: quantiles on the states of bt, then a gate."""
    shape = len(NAMES), len(attributes.LEVELS)
    lab = Lab(base, HeadConfig(outputs=shape[0] * shape[1]))
    fresh = lab.start(job.drawn.seed).params["reward_head"]
    start = trunk(base, job.drawn, job.rate) | {"reward_head": fresh}
    options = {"rate": job.setting, "seed": job.drawn.seed, "params": start}
    weight = lab.fit(QRM, packed(base, job.drawn, "train").trees, **options).params["reward_head"][
        "weight"
    ]
    states = functools.partial(states_of, base, job.drawn, job.rate)
    means = weight.reshape(-1, *shape).mean(axis=-1)
    return weighed(states, means, GATE, GATE_RATES[-1], job.drawn.seed)


def of_ridge(
    job: Job, base: Path, *, gate: Gate, finish: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Scores:
    """ArmoRM on the states of bt at the job's rate, or without one on those of the base."""
    states = functools.partial(states_of, base, job.drawn, job.rate)
    fitted = ridge_heads(base, job.drawn, job.rate)
    weights = finish(fitted, states("train")["states"])
    return weighed(states, weights, gate, job.setting, job.drawn.seed)


def unbiased(weights: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Heads without what they owe to verbosity on the states [n, 2, d] of training."""
    rewards = states.reshape(-1, states.shape[-1]) @ weights
    penalties = armo.verbosity_penalties(rewards, VERBOSITY)
    return armo.debiased(weights, penalties, VERBOSITY)


def as_fitted(weights: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Heads as they are."""
    return weights


def on_base(job: Job, base: Path, *, method: Callable[[Job, Path], Scores]) -> Scores:
    """A method on the states of the base."""
    return method(dataclasses.replace(job, rate=None), base)


def weighed(states: States, weights: np.ndarray, gate: Gate, rate: float, seed: int) -> Scores:
    """Attributes on frozen states by a gate that is fitted to the training pairs."""
    train = states("train")
    chosen, rejected = np.moveaxis(train["states"] @ weights, 1, 0)
    options = {"steps": GATE_STEPS, "batch": GATE_BATCH, "learning_rate": rate, "seed": seed}
    params = armo.fit_gate(gate, train["prompts"][:, 0], chosen, rejected, **options)
    gated = Gated(gate, params)

    def scores(split: str) -> np.ndarray:
        read = states(split)
        return np.asarray(gated.rewards(read["states"] @ weights, read["prompts"]))

    return scores


def probed(job: Job, base: Path) -> Scores:
    """A linear Bradley-Terry reward on the states of the base."""
    states = functools.partial(states_of, base, job.drawn, None)
    comparisons = packed(base, job.drawn, "train").comparisons
    weights = fit_head(list(states("train")["states"]), comparisons)
    return lambda split: states(split)["states"] @ weights


def known(job: Job, base: Path) -> Scores:
    """The true attributes, with the weights of world A."""
    world = toy.World(seed=job.drawn.seed, weighting="constant")

    def scores(split: str) -> np.ndarray:
        comparisons = packed(base, job.drawn, split).comparisons
        return np.array(
            [[world.gold(c.prompt[0].content, r[-1].content) for r in c.responses]
             for c in comparisons]
        )  # fmt: skip

    return scores


@dataclasses.dataclass(frozen=True)
class Method:
    """How it scores once it is fitted, and the settings of its trials."""

    fit: Callable[[Job, Path], Scores]
    trials: tuple[float, ...]


ARMO = functools.partial(of_ridge, gate=GATE, finish=unbiased)
NO_GATE = functools.partial(of_ridge, gate=CONSTANT, finish=unbiased)
NO_DEBIAS = functools.partial(of_ridge, gate=GATE, finish=as_fitted)
NEITHER = functools.partial(of_ridge, gate=CONSTANT, finish=as_fitted)

METHODS = {
    "bt": Method(trained_pairs, RATES),
    "smorm": Method(trained_both, MSE_STRENGTHS),
    "urm": Method(trained_gaussian, RATES),
    "armo": Method(ARMO, GATE_RATES),
    "armo, no gate": Method(NO_GATE, CONSTANT_RATES),
    "armo, no debias": Method(NO_DEBIAS, GATE_RATES),
    "armo, neither": Method(NEITHER, CONSTANT_RATES),
    "qrm": Method(frozen_quantiles, QUANTILE_RATES),
    "base: bt": Method(probed, (0.0,)),
    "base: armo": Method(functools.partial(on_base, method=ARMO), GATE_RATES),
    "base: armo, no gate": Method(functools.partial(on_base, method=NO_GATE), CONSTANT_RATES),
    "gold attributes": Method(known, (0.0,)),
}

CONTRASTS = (
    ("armo", "armo, no gate"),
    ("base: armo", "base: armo, no gate"),
    ("armo", "smorm"),
    ("armo, no gate", "smorm"),
    ("armo, no gate", "armo, neither"),
    ("armo", "armo, no debias"),
    ("base: armo, no gate", "base: bt"),
)
"""Beside every method over bt."""


# What is run and found


def run(job: Job, base: Path) -> Record:
    """What the job's reward model does on `val` and on the test splits."""
    scores = METHODS[job.method].fit(job, base)
    figures = {}
    for split in ("val", *SPLITS):
        rewards, comparisons = np.asarray(scores(split)), packed(base, job.drawn, split).comparisons
        figures[split] = {
            "macro": macro_accuracy(list(rewards), comparisons),
            "longer": prefers_longer(rewards, comparisons),
        }
    return {**dataclasses.asdict(job), "splits": figures}


def prefers_longer(rewards: np.ndarray, comparisons: Sequence[Any]) -> float:
    """Of the pairs that differ in length, the share whose longer response has more reward."""
    lengths = floors.longer(floors.response_texts(comparisons)).reshape(-1, 2)
    margin, longer = rewards[:, 0] - rewards[:, 1], lengths[:, 0] - lengths[:, 1]
    return float((np.sign(margin) == np.sign(longer))[longer != 0].mean())


def measure(cfg: Config) -> dict[str, Any]:
    """The figures of both worlds."""
    base = cfg.base or toy.shipped_base()
    key, seeds = hub.fingerprint(base), range(cfg.seed, cfg.seed + cfg.seeds)

    def tried(methods: Sequence[str], rates: Mapping[str, float | None]) -> list[Record]:
        jobs = [
            Job(method, setting, Drawn(weighting, seed, cfg.pairs, cfg.val_items, cfg.items), key,
                rates[weighting])
            for weighting in WORLDS.values()
            for seed in seeds
            for method in methods
            for setting in METHODS[method].trials
        ]  # fmt: skip
        here = functools.partial(run, base=base)
        return sweep(jobs, here, cfg.run_dir / "jobs", workers=cfg.workers)

    first = tried(["bt"], dict.fromkeys(WORLDS.values()))
    by_world = {w: [r for r in first if r["drawn"]["weighting"] == w] for w in WORLDS.values()}
    rates = {weighting: chosen(records) for weighting, records in by_world.items()}
    methods = tuple(dict.fromkeys(("bt", *cfg.methods)))
    records = first + tried(methods[1:], rates)
    found = {}
    for world, weighting in WORLDS.items():
        here = [record for record in records if record["drawn"]["weighting"] == weighting]
        found[world] = of_world({m: [r for r in here if r["method"] == m] for m in methods})
    return {"seeds": list(seeds), "items": cfg.items, "worlds": found}


def chosen(records: Sequence[Record]) -> float:
    """The setting of one method that is best on `val`, by the mean over seeds."""
    settings = dict.fromkeys(record["setting"] for record in records)
    return max(settings, key=lambda setting: np.mean(values(records, setting, "val", "macro")))


def values(records: Sequence[Record], setting: float, split: str, figure: str) -> np.ndarray:
    """Float64 [seeds]: a figure of a method at one setting."""
    return np.array([r["splits"][split][figure] for r in records if r["setting"] == setting])


def of_world(records: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """Each method's figures at its chosen setting, and the gains of some over others."""
    settings = {method: chosen(of_method) for method, of_method in records.items()}

    def figure(method: str, split: str, name: str) -> np.ndarray:
        return values(records[method], settings[method], split, name)

    methods = {
        method: {
            "setting": settings[method],
            "splits": {
                split: {name: estimate(figure(method, split, name)) for name in ("macro", "longer")}
                for split in ("val", *SPLITS)
            },
        }
        for method in records
    }
    contrasts = [(method, "bt") for method in records if method != "bt"]
    contrasts += [pair for pair in CONTRASTS if set(pair) <= set(records)]
    gains = {
        f"{a} - {b}": {
            split: paired(figure(a, split, "macro") - figure(b, split, "macro")) for split in SPLITS
        }
        for a, b in contrasts
    }
    return {"methods": methods, "gains": gains}


def text_table(results: Mapping[str, Any]) -> str:
    """The figures for a terminal, in percent and points."""
    parts = []
    for world, found in results["worlds"].items():
        head = [f"world {world}, %", "setting", *SPLITS, "longer, id"]
        rows = [
            [method, f"{of['setting']:g}"]
            + [spread(of["splits"][split]["macro"]) for split in SPLITS]
            + [spread(of["splits"]["id"]["longer"])]
            for method, of in found["methods"].items()
        ]
        gains = [
            [contrast, *(interval(of[split]) for split in SPLITS)]
            for contrast, of in found["gains"].items()
        ]
        gains_head = [f"world {world}, points", *SPLITS]
        parts += [aligned(head, rows), aligned(gains_head, gains)]
    return "\n\n".join(parts)


def main(cfg: Config) -> None:
    """Runs what is not yet there, and writes what was found."""
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    directory = open_run(cfg.run_dir, cfg, [cfg.base])
    results = measure(cfg)
    leave(directory, __doc__, results, text_table(results))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
