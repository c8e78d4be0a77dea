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
hardly followed. PCRM and BSR have the better of two strengths on that `val` (one seed, 200 pairs);
like `rrm_long` they are trained only where `--methods` names them.

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
import functools
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrm import cli, files, toy
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.packing import PackedBatch
from jaxrm.errors import require
from jaxrm.huggingface import hub
from jaxrm.losses import preference, regularizers
from jaxrm.methods import augmentation as rrm
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.read.accuracy import macro_accuracy
from jaxrm.read.packed import Packed
from jaxrm.report.tables import aligned, interval, spread
from jaxrm.report.webpage import leave
from jaxrm.statistics import estimate, paired
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe, beside, pairwise
from jaxrm.toy.samples import answers, question
from jaxrm.train.rundir import open_run
from jaxrm.train.sweep import Record, sweep
from jaxrm.train.terms import BatchTerm, LossFn, Term, Terms, reward_monitors

SPLITS = ("id", "spurious", "ood_prompt")
"""Where accuracy is measured, on clean labels."""

ROWS = 4
"""Of a batch: few, because there are few pairs."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train with and without a spurious cue, and toggle it."""

    run_dir: Path = Path("runs/rrm")
    """Where the results go; the same command goes on where it was stopped."""
    base: Path | None = None
    """A Hugging Face directory to train from; the toy base that ships without it."""
    seed: int = 0
    """The first."""
    seeds: int = 6
    """Below 6 no interval excludes 0."""
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
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""

    def __post_init__(self):
        for name in ("seeds", "pairs", "items"):
            require(getattr(self, name) >= 2, f"--{name}", "at least 2", getattr(self, name))
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        known = "bt" in self.methods and set(self.methods) <= set(METHODS)
        words = f"bt, and others of {', '.join(METHODS)}"
        require(known, "--methods", words, self.methods)
        require(1 <= self.epochs <= 1 + rrm.FOLD, "--epochs", "from 1 to 15", self.epochs)
        holds = self.agreements and all(0 <= value <= 1 for value in self.agreements)
        require(bool(holds), "--agreements", "numbers in [0, 1]", self.agreements)


# The methods


def rrm_loss(strength: float | None) -> LossFn:
    """Bradley-Terry on pairs, indifference on ties; a tie weighs as much as a pair."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        rewards = heads.rewards(model, model.hidden(batch), batch, rng)
        of_groups, ranks = batch.groups(rewards), batch.groups(batch.response_rank)
        ties = batch.group_mask.all(-1) & (ranks[..., 0] == ranks[..., 1])
        losses = (
            preference.bradley_terry(*batch.pairs(rewards)),
            regularizers.neutral(of_groups[..., 0], of_groups[..., 1]),
        )
        weights = batch.pair_weight * batch.pair_mask, ties.astype(jnp.float32)
        reward = Term(1.0, jnp.concatenate(losses, 1), jnp.concatenate(weights, 1))
        return {"reward": reward, **reward_monitors(rewards, batch)}

    return loss_fn


@beside
def bsr_loss(rewards, batch: PackedBatch, strength: float) -> BatchTerm:
    """Bradley-Terry + strength x the square of the batch's mean reward."""
    return BatchTerm(strength, regularizers.sum_to_zero(rewards, batch.response_mask))


@pairwise
def pcrm_loss(chosen, rejected, batch: PackedBatch, strength: float):
    """Bradley-Terry with margins held near a prior of that strength."""
    lengths = batch.pairs(batch.response_length)
    target = preference.length_prior(*lengths, beta1=strength)
    return preference.prior_constrained(chosen, rejected, target)


Data = Callable[[Sequence[Comparison], int, int], tuple[Sequence[Comparison], int]]
"""(training pairs, epochs, seed) -> what is trained on, and in how many epochs."""


def given(pairs: Sequence[Comparison], epochs: int, seed: int) -> tuple[Sequence[Comparison], int]:
    """What there is."""
    return pairs, epochs


def pool(pairs: Sequence[Comparison], epochs: int, seed: int) -> tuple[Sequence[Comparison], int]:
    """What there is, and all that RRM makes of it, once."""
    return [*pairs, *rrm.augment(pairs, seed)], 1


def drawn(pairs: Sequence[Comparison], epochs: int, seed: int) -> tuple[Sequence[Comparison], int]:
    """As many comparisons of the pool as `given` sees."""
    everything, _ = pool(pairs, epochs, seed)
    places = np.random.default_rng(seed).permutation(len(everything))[: epochs * len(pairs)]
    return [everything[place] for place in places], 1


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
      data: what it trains on.
      rate: its learning rate.
      strength: of the recipe.
      everywhere: whether it is trained at all agreements, or at the highest alone.
    """

    recipe: Recipe
    data: Data = given
    rate: float = 1e-3
    strength: float | None = None
    everywhere: bool = False


METHODS: Mapping[str, Method] = {
    "bt": Method(Recipe(), everywhere=True),
    "rrm": Method(Recipe(rrm_loss), drawn, everywhere=True),
    "rrm_long": Method(Recipe(rrm_loss), pool),
    "pcrm": Method(Recipe(pcrm_loss), strength=6.0),
    "bsr": Method(Recipe(bsr_loss), strength=0.1),
    "bt_slow": Method(Recipe(), rate=3e-4),
    "rrm_slow": Method(Recipe(rrm_loss), drawn, rate=3e-4),
}


# What is run


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run, and all that its record depends on; `base` is the base's fingerprint."""

    method: str
    rate: float
    strength: float | None
    agreement: float
    seed: int
    base: str
    pairs: int
    epochs: int
    items: int


def measure(cfg: Config) -> dict[str, Any]:
    """Every number of the table."""
    base = cfg.base or toy.shipped_base()
    seeds, highest = range(cfg.seed, cfg.seed + cfg.seeds), max(cfg.agreements)
    runs = [
        Job(
            name,
            method.rate,
            method.strength,
            agreement,
            seed,
            base=hub.fingerprint(base),
            pairs=cfg.pairs,
            epochs=cfg.epochs,
            items=cfg.items,
        )
        for seed in seeds
        for name in cfg.methods
        for method in (METHODS[name],)
        for agreement in (cfg.agreements if method.everywhere else (highest,))
    ]
    here = functools.partial(run, base=base)
    found = sweep(runs, here, cfg.run_dir / "jobs", workers=cfg.workers, progress="rrm")
    arms: dict[tuple[float, str], list[Record]] = {}
    for one, record in zip(runs, found, strict=True):
        arms.setdefault((one.agreement, one.method), []).append(record)
    return {
        "seeds": list(seeds),
        "labels": labels(toy.World(cfg.seed), cfg.pairs, cfg.seed),
        "arms": [
            {"agreement": agreement, "method": name, **summary(arms, agreement, name)}
            for agreement, name in sorted(arms, key=lambda arm: (arm[0], [*METHODS].index(arm[1])))
        ],
    }


def summary(
    arms: Mapping[tuple[float, str], Sequence[Record]], agreement: float, name: str
) -> dict[str, Any]:
    """The mean of each figure over seeds, and its gain over Bradley-Terry."""
    figures, gains = {}, {}
    for figure in (*SPLITS, "sensitivity", "tokens"):
        values = np.array([record[figure] for record in arms[agreement, name]], np.float64)
        figures[figure] = estimate(values)
        if name != "bt":
            gains[figure] = paired(values - [record[figure] for record in arms[agreement, "bt"]])
    return {"figures": figures, "gains": gains}


def labels(world: toy.World, pairs: int, seed: int) -> dict[str, float]:
    """What gold says to the labels that RRM makes of some comparisons: how often the own response
    is really worse, and a tie none (by more than the least gap of training pairs)."""
    made = rrm.augment(world.comparisons("train", min(pairs, 100)), seed)
    gaps: dict[str, list[float]] = {rrm.NON_CONTEXTUAL: [], rrm.NEUTRAL: []}
    for comparison in made:
        asked = question(comparison)
        first, second = (world.gold(asked, text) for text in answers(comparison))
        gaps[comparison.subset].append(first - second)
    return {
        "n": len(made),
        "non_contextual_wrong": float(np.mean(np.array(gaps[rrm.NON_CONTEXTUAL]) < 0)),
        "neutral_unequal": float(np.mean(np.abs(gaps[rrm.NEUTRAL]) > toy.world.LEAST_GAP)),
    }


def run(job: Job, base: Path) -> Record:
    """Trains and measures."""
    lab, method = Lab(base, rows=ROWS), METHODS[job.method]
    world = toy.World(job.seed, cue_agreement=job.agreement)
    pairs = world.comparisons("train", job.pairs)
    comparisons, epochs = method.data(pairs, job.epochs, job.seed)
    fitted = lab.fit(
        method.recipe,
        lab.trees(comparisons),
        rate=job.rate,
        strength=job.strength,
        epochs=epochs,
        seed=job.seed,
    )

    def rewards(data: Packed) -> np.ndarray:
        return lab.read(fitted.params, data, {"rewards": heads.rewards})["rewards"]

    accuracies = {}
    for split in SPLITS:
        data = packed(lab, world, split, job.items)
        accuracies[split] = macro_accuracy(list(rewards(data)), data.comparisons)
    return {
        **accuracies,
        "sensitivity": sensitivity(rewards(both_marks(lab, world, job.items // 2))),
        "tokens": fitted.tokens,
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 2),
    }


def sensitivity(rewards: np.ndarray) -> float:
    """The mean change of the reward from "." to "!", in deviations of the reward.

    Args:
      rewards: float [n, 4] of two answers, each with "." and then with "!".
    """
    plain, marked = rewards[:, 0::2].astype(np.float64), rewards[:, 1::2].astype(np.float64)
    return float((marked - plain).mean() / plain.std())


@functools.lru_cache(maxsize=16)
def packed(lab: Lab, world: toy.World, split: str, n: int) -> Packed:
    """The first n comparisons of a split."""
    return lab.pack(world.comparisons(split, n))


@functools.lru_cache(maxsize=4)
def both_marks(lab: Lab, world: toy.World, n: int) -> Packed:
    """The two answers to n prompts of `id`, each with "." and with "!" after its core."""
    return lab.pack([toggled(comparison) for comparison in world.comparisons("id", n)])


def toggled(comparison: Comparison) -> Comparison:
    """Each answer with "." and then with "!"; the first mark of an answer ends its core."""
    texts = [
        re.sub("[.!]", mark, answer, count=1)
        for answer, mark in itertools.product(answers(comparison), ".!")
    ]
    responses = tuple((Message("assistant", text),) for text in texts)
    return Comparison(comparison.prompt, responses, id=comparison.id)


# What is shown


def table(results: Mapping[str, Any]) -> str:
    """Accuracies in % and sensitivities, with the gain in sensitivity and on `ood_prompt`."""
    rows = []
    for arm in results["arms"]:
        figures, gains = arm["figures"], arm["gains"]
        cells = [spread(figures[split]) for split in SPLITS]
        cells += [spread(figures["sensitivity"], 1, 2)]
        cells += [
            interval(gains[name], scale, digits) if gains else ""
            for name, scale, digits in (
                ("sensitivity", 1, 2),
                ("id", 100, 1),
                ("ood_prompt", 100, 1),
            )
        ]
        tokens = f"{figures['tokens']['mean'] / 1000:.0f}k"
        rows.append([arm["method"], f"{arm['agreement']:g}", *cells, tokens])
    heads = ("id, %", "spurious, %", "ood_prompt, %", "sensitivity")
    against = ("sensitivity - bt", "id - bt", "ood_prompt - bt")
    return aligned(["method", "cue", *heads, *against, "tokens"], rows)


def main(cfg: Config) -> None:
    """Measures, and prints the table."""
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    directory = open_run(cfg.run_dir, cfg, [cfg.base])
    results = files.plain(measure(cfg))
    made = results["labels"]
    contradicted = (
        f"of RRM's labels gold contradicts {100 * made['non_contextual_wrong']:.0f} % of the "
        f"non-contextual ones and {100 * made['neutral_unequal']:.0f} % of the ties"
    )
    leave(directory, __doc__, results, f"{table(results)}\n\n{contradicted}")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
