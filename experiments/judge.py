"""Is a judge that says a verdict better than a scalar reward? RM-R1 (arXiv 2505.02387) without RL.

    python -m experiments.judge

Three ways to learn from the same noisy labels of the toy world, from the same base:

- `bt`: Bradley-Terry on a scalar reward.
- `judge`: a generative judge. It reads the question and both answers, in random order, and its next
  token is the verdict, "A" or "B" (`jaxrm.losses.judge.verdict`). It is asked in both orders.
- `critique`: critique-out-loud (arXiv 2408.11791), the language model and the reward on one trunk.
  An answer is followed by a reader's note, a word of praise or of blame. The language model learns
  to praise what was preferred and to blame the other; the reward is read after the note, and
  trained on the model's own notes. `note` is what that model's notes alone say, praise against
  blame, and `base note` is the same of the base before any training.

What it is not. RM-R1's judge writes out rubrics and reasons, distilled from a stronger model and
then trained by reinforcement learning, which needs a sampler: here is the verdict alone, without
either stage (its reward is `jaxrm.losses.judge.rm_r1_reward`). Critiques are one word, and both
possible ones are always looked at, weighed by their probability: that is a mean over infinitely
many sampled critiques. No critique is given but what the label says. Each method is given the two
words with which the readers of a question's family praise and blame, which the base has read in its
text, in all families; `base note` says what that knowledge is worth without labels.

Each method chooses among the same trials by accuracy on `val`, which is labelled as noisily as
training is, on a seed of its own.

What it printed here (500 pairs with 16 % of labels flipped, 300 comparisons of each split, 6 seeds;
macro accuracy ± a standard error, gains with sign-flip intervals):

    accuracy, %          id  ood_prompt    spurious  same in both orders  leaning to A  tokens
    ------------------------------------------------------------------------------------------
    bt           78.0 ± 0.3  68.1 ± 2.5  68.7 ± 2.7                                        87k
    judge        75.2 ± 0.9  64.3 ± 2.3  67.3 ± 4.0           45.7 ± 1.8    -0.7 ± 0.7    101k
    critique     73.4 ± 1.8  65.9 ± 1.7  54.5 ± 2.9                                        36k
    note         85.1 ± 0.6  84.7 ± 2.0  86.1 ± 0.9
    base note    86.1 ± 0.6  85.0 ± 2.4  87.5 ± 0.9

    over bt, points                    id             ood_prompt                spurious
    ------------------------------------------------------------------------------------
    judge             -2.9 (-5.6 to -0.4)   -3.7 (-13.7 to +4.0)    -1.4 (-15.3 to +7.7)
    critique         -4.6 (-13.3 to +1.0)   -2.1 (-8.7 to +10.0)   -14.2 (-27.0 to +6.0)
    note              +7.1 (+4.0 to +9.7)  +16.7 (+5.7 to +27.3)   +17.4 (+9.0 to +24.0)
    base note        +8.0 (+5.0 to +10.0)  +16.9 (+4.7 to +29.3)  +18.8 (+10.7 to +24.4)

    chosen on val, (rate, epochs): bt (1e-3, 4), judge (1e-3, 4), critique (3e-4, 1)

Not supported at this size: the judge is worse than a scalar reward from the same labels on `id`,
open elsewhere, and contradicts itself on more than half of the pairs when they are exchanged, with
no leaning to either place on average. The reward after a critique is no better than one without.
What a critic's own words say is far better, but that is no gain of the method: the base's notes say
as much before any label, because the readers of its text knew gold (`jaxrm.toy`), which is
knowledge that no reward here was read from. Training on 500 noisy labels did not improve them.
The trials are few, chosen on one seed; Bradley-Terry's two best differed by .7 points there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe

from jaxrm import cli, files, toy
from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import Branch, PackedBatch, TokenTree
from jaxrm.errors import require
from jaxrm.evaluate import scorers
from jaxrm.evaluate.scorers import Judge
from jaxrm.huggingface import hub
from jaxrm.losses import generation, judge, preference
from jaxrm.methods.off_policy import first_tokens
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.read.accuracy import macro_accuracy
from jaxrm.read.packed import pack_alike, reading_shape
from jaxrm.report.tables import aligned, interval, spread
from jaxrm.report.webpage import leave
from jaxrm.statistics import estimate, paired
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.samples import answers, question
from jaxrm.train.rundir import open_run
from jaxrm.train.state import Params
from jaxrm.train.sweep import Record, sweep
from jaxrm.train.terms import LossFn, Term, Terms

SPLITS = ("id", "ood_prompt", "spurious")
"""Where accuracy is measured, on clean labels."""

TRIALS = ((3e-4, 1), (1e-3, 1), (1e-3, 4))
"""(learning rate, epochs) that every method chooses from."""

ROWS = 4
"""A judge learns slowly: small batches, and so many steps."""

USER, MODEL, END = "<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>\n"
"""The toy world's turns, as its pretraining text has them."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a scalar reward, a judge and a critic on the same labels."""

    run_dir: Path = Path("runs/judge")
    """Where the results go; the same command goes on where it was stopped."""
    base: Path | None = None
    """A Hugging Face directory to train from; the toy base that ships without it."""
    seed: int = 0
    """The first; choices are made on the seeds after the last."""
    seeds: int = 6
    """Below 6 no interval excludes 0."""
    tuning_seeds: int = 1
    pairs: int = 500
    """Training pairs."""
    items: int = 300
    """Comparisons of each split."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""

    def __post_init__(self):
        for name, least in (("seeds", 2), ("tuning_seeds", 1), ("pairs", 2), ("items", 2)):
            value = getattr(self, name)
            require(value >= least, f"--{name.replace('_', '-')}", f"at least {least}", value)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)


# The judge


def shown(asked: str, first: str, second: str) -> str:
    """What the judge reads: the question and, as two turns of a model, the answers.

    After it "A" or "B" is said. The answers stand as the base knows answers to stand.
    """
    return f"{USER}{asked}{END}{MODEL}{first}{END}{MODEL}{second}{END}"


def verdicts(comparison: Comparison, exchanged: bool) -> Comparison:
    """The question which of a pair is better, and the right verdict before the wrong one."""
    first, second = answers(comparison)[::-1] if exchanged else answers(comparison)
    ranks = (1, 0) if exchanged else (0, 1)
    return Comparison(shown(question(comparison), first, second), ("A", "B"), ranks=ranks)


def judge_trees(lab: Lab, comparisons: Sequence[Comparison], seed: int) -> list[TokenTree]:
    """Pairs in random order, and their verdicts, of which only the letter counts."""
    orders = [random.Random(f"{seed} {c.id}").random() < 0.5 for c in comparisons]
    return first_tokens(lab.trees(list(map(verdicts, comparisons, orders))), 1)


def judge_loss(strength: None) -> LossFn:
    """The cross-entropy of the verdict."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        logps = heads.response_logps(model, model.hidden(batch), batch)
        right, wrong = batch.pairs(logps)  # the "chosen" verdict is the right one
        values = judge.verdict(right, wrong, 1.0)
        return {"verdict": Term(1.0, values, batch.pair_weight * batch.pair_mask)}

    return loss_fn


def of_model(lab: Lab, params: Params) -> Judge:
    """The model as a judge: how likely it finds the first of two answers better, as shown."""
    shape = reading_shape(lab.rows, lab.length, "all")

    def judge_pairs(pairs: Sequence[Comparison]) -> list[float]:
        asked = [verdicts(pair, exchanged=False) for pair in pairs]
        data = pack_alike(asked, first_tokens(lab.trees(asked), 1), shape)
        logps = lab.read(params, data, {"logps": heads.response_logps})["logps"].astype(float)
        return scipy.special.expit(logps[:, 0] - logps[:, 1]).tolist()

    return judge_pairs


def judged(lab: Lab, params: Params, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The judge's scores over both orders, and how much the order alone decides.

    Returns:
      scores: [2] of each comparison.
      consistent: the share of pairs of which it prefers the same answer in both orders.
      leaning: the mean probability of the first place, less a half.
    """
    said: list[float] = []

    def listened(pairs: Sequence[Comparison]) -> list[float]:
        given = of_model(lab, params)(pairs)
        said.extend(given)
        return given

    scores = scorers.of_judge(listened)(comparisons)
    first, exchanged = np.reshape(said, (-1, 2)).T  # each pair is asked in both orders, in turn
    return {
        "scores": scores,
        "consistent": float(np.mean((first > 0.5) != (exchanged > 0.5))),
        "leaning": float(np.mean(said) - 0.5),
    }


# The critic


def readers_words(world: toy.World, family: str) -> tuple[str, str]:
    """The words of praise and of blame of the readers of a family of questions."""
    return LEXICONS[world.lexicon].reactions[[*world.families].index(family)]


def noted(world: toy.World, comparison: Comparison) -> Comparison:
    """Each answer with praise and then with blame after it; the order of the four is no ranking."""
    notes = readers_words(world, comparison.subset)
    texts = tuple(f"{text}{END}{note}" for text in answers(comparison) for note in notes)
    return Comparison(f"{USER}{question(comparison)}{END}{MODEL}", texts, ranks=(0, 1, 2, 3))


def critique_trees(
    lab: Lab, world: toy.World, comparisons: Sequence[Comparison]
) -> list[TokenTree]:
    """Pairs with notes, of whose tokens only the notes' count."""

    def length(note: str) -> int:
        return len(lab.tokenizer.hf(note, add_special_tokens=False)["input_ids"])

    trees = lab.trees([noted(world, comparison) for comparison in comparisons])
    of_notes = [map(length, readers_words(world, c.subset)) for c in comparisons]
    return [notes_alone(tree, 2 * tuple(n)) for tree, n in zip(trees, of_notes, strict=True)]


def notes_alone(tree: TokenTree, lengths: Sequence[int]) -> TokenTree:
    """The tree with so many tokens before each branch's EOS as its targets."""

    def last(branch: Branch, length: int) -> Branch:
        end = len(branch.tokens) - 1
        places = np.arange(len(branch.tokens))
        return dataclasses.replace(branch, targets=(places >= end - length) & (places < end))

    return dataclasses.replace(tree, branches=tuple(map(last, tree.branches, lengths)))


def expected(rewards: jax.Array, logps: jax.Array) -> jax.Array:
    """Rewards after notes [..., notes], as a mean over the notes that the model would write."""
    return jnp.sum(jax.nn.softmax(jax.lax.stop_gradient(logps)) * rewards, axis=-1)


def critique_loss(strength: None) -> LossFn:
    """Bradley-Terry on the reward after the model's own notes + the notes' log-likelihood."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        hidden = model.hidden(batch)
        rewards = batch.groups(heads.rewards(model, hidden, batch, rng))
        logps = batch.groups(heads.response_logps(model, hidden, batch))
        chosen = expected(rewards[..., :2], logps[..., :2])
        rejected = expected(rewards[..., 2:], logps[..., 2:])
        praise, blame = logps[..., 0], logps[..., 3]  # of the chosen, and of the rejected
        real = batch.group_mask[..., 0]
        return {
            "reward": Term(1.0, preference.bradley_terry(chosen, rejected), real),
            "note": Term(1.0, generation.nll(praise) + generation.nll(blame), real),
        }

    return loss_fn


def criticised(
    lab: Lab, world: toy.World, params: Params, comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """What the critic says of answers, [2] of each comparison: its reward after its notes
    (`scores`), and the log-odds of praise (`note`)."""
    trees = critique_trees(lab, world, comparisons)
    data = pack_alike(comparisons, trees, reading_shape(lab.rows, lab.length, "all"))
    found = lab.read(params, data, {"rewards": heads.rewards, "logps": heads.response_logps})
    rewards, logps = (found[name].reshape(-1, 2, 2) for name in ("rewards", "logps"))
    return {
        "scores": list(np.asarray(expected(rewards, logps))),
        "note": list(logps[..., 0] - logps[..., 1]),
    }


# The methods

Figures = Mapping[str, Mapping[str, float]]
"""Accuracy, and what else is told, by the name of a row of the table."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
      trees: (laboratory, world, training pairs, seed) -> what is trained on.
      figures: (laboratory, world, parameters, comparisons) -> figures of the held-out comparisons.
    """

    recipe: Recipe
    trees: Callable[[Lab, toy.World, Sequence[Comparison], int], list[TokenTree]]
    figures: Callable[[Lab, toy.World, Params, Sequence[Comparison]], Figures]


def bt_figures(lab, world, params, comparisons) -> Figures:
    """The reward's accuracy."""
    rewards = lab.read(params, lab.pack(comparisons), {"rewards": heads.rewards})["rewards"]
    return {"bt": {"accuracy": macro_accuracy(list(rewards), comparisons)}}


def judge_figures(lab, world, params, comparisons) -> Figures:
    """The verdicts' accuracy over both orders, and what the order does to them."""
    found = judged(lab, params, comparisons)
    accuracy = macro_accuracy(found.pop("scores"), comparisons)
    return {"judge": {"accuracy": accuracy, **found}}


def critique_figures(lab, world, params, comparisons) -> Figures:
    """The accuracy of rewards after notes, of the notes, and of the base's notes."""
    found = criticised(lab, world, params, comparisons)
    base = criticised(lab, world, lab.start(0).params, comparisons)
    of = {"critique": found["scores"], "note": found["note"], "base note": base["note"]}
    return {name: {"accuracy": macro_accuracy(given, comparisons)} for name, given in of.items()}


METHODS: Mapping[str, Method] = {
    "bt": Method(Recipe(), lambda lab, world, pairs, seed: lab.trees(pairs), bt_figures),
    "judge": Method(
        Recipe(judge_loss, ask="all"),
        lambda lab, world, pairs, seed: judge_trees(lab, pairs, seed),
        judge_figures,
    ),
    "critique": Method(
        Recipe(critique_loss, ask="all", responses=4),
        lambda lab, world, pairs, seed: critique_trees(lab, world, pairs),
        critique_figures,
    ),
}

ARMS = ("bt", "judge", "critique", "note", "base note")
"""The rows of the table."""


# What is run


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run, and all that its record depends on; `base` is the base's fingerprint."""

    method: str
    rate: float
    epochs: int
    seed: int
    base: str
    pairs: int
    items: int
    splits: tuple[str, ...]


def measure(cfg: Config) -> dict[str, Any]:
    """Every number of the table."""
    base = cfg.base or toy.shipped_base()
    job = functools.partial(Job, base=hub.fingerprint(base), pairs=cfg.pairs, items=cfg.items)

    def records(jobs: Sequence[Job], title: str) -> list[Record]:
        here = functools.partial(run, base=base)
        return sweep(jobs, here, cfg.run_dir / "jobs", workers=cfg.workers, progress=title)

    seeds = range(cfg.seed, cfg.seed + cfg.seeds)
    trials = [
        job(name, *trial, seed, splits=("val",))
        for seed in range(seeds.stop, seeds.stop + cfg.tuning_seeds)
        for name in METHODS
        for trial in TRIALS
    ]
    tried: dict[str, dict[tuple[float, int], list[float]]] = {name: {} for name in METHODS}
    for one, record in zip(trials, records(trials, "choices"), strict=True):
        value = record["figures"]["val"][one.method]["accuracy"]
        tried[one.method].setdefault((one.rate, one.epochs), []).append(value)
    choices = {name: max(of, key=lambda trial: np.mean(of[trial])) for name, of in tried.items()}

    runs = [job(name, *choices[name], seed, splits=SPLITS) for seed in seeds for name in METHODS]
    done = list(zip(runs, records(runs, "runs"), strict=True))

    def figures(seed: int, split: str) -> Figures:
        parts = [record["figures"][split] for one, record in done if one.seed == seed]
        return {row: of for part in parts for row, of in part.items()}

    arms = {split: [figures(seed, split) for seed in seeds] for split in SPLITS}
    return {
        "seeds": list(seeds),
        "trials": {name: [{"trial": t, "val": of[t]} for t in of] for name, of in tried.items()},
        "choices": choices,
        "tokens": {
            name: np.mean([record["tokens"] for one, record in done if one.method == name])
            for name in METHODS
        },
        "rows": {row: {split: summary(arms[split], row) for split in SPLITS} for row in ARMS},
    }


def summary(arms: Sequence[Figures], row: str) -> dict[str, Any]:
    """The mean of each figure over seeds, and the gain in accuracy over Bradley-Terry."""
    figures = {}
    for name in arms[0][row]:
        figures[name] = estimate([arm[row][name] for arm in arms])
    gains = [arm[row]["accuracy"] - arm["bt"]["accuracy"] for arm in arms]
    return figures | {"gain": None if row == "bt" else paired(gains)}


def run(job: Job, base: Path) -> Record:
    """Trains, and measures on the job's splits."""
    lab, method, world = Lab(base, rows=ROWS), METHODS[job.method], toy.World(job.seed)
    trees = method.trees(lab, world, world.comparisons("train", job.pairs), job.seed)
    fitted = lab.fit(method.recipe, trees, rate=job.rate, epochs=job.epochs, seed=job.seed)
    return {
        "figures": {
            split: method.figures(lab, world, fitted.params, world.comparisons(split, job.items))
            for split in job.splits
        },
        "tokens": fitted.tokens,
        "seconds": round(fitted.seconds, 2),
    }


# What is shown


def accuracies(results: Mapping[str, Any]) -> str:
    """Accuracies in %, and what the order of answers does to the judge on `id`."""
    rows = []
    for row, of in results["rows"].items():
        cells = [spread(of[split]["accuracy"]) for split in SPLITS]
        told = ("consistent", "leaning")
        cells += [spread(of["id"][name]) if name in of["id"] else "" for name in told]
        tokens = results["tokens"].get(row)
        rows.append([row, *cells, "" if tokens is None else f"{tokens / 1000:.0f}k"])
    head = ("accuracy, %", *SPLITS, "same in both orders", "leaning to A", "tokens")
    return aligned(head, rows)


def gains(results: Mapping[str, Any]) -> str:
    """Gains in accuracy over Bradley-Terry, in points."""
    rows = [
        [row, *(interval(of[split]["gain"]) for split in SPLITS)]
        for row, of in results["rows"].items()
        if row != "bt"
    ]
    return aligned(("over bt, points", *SPLITS), rows)


def main(cfg: Config) -> None:
    """Measures, and prints the table."""
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    directory = open_run(cfg.run_dir, cfg, [cfg.base])
    results = files.plain(measure(cfg))
    chosen = f"chosen on val, (rate, epochs): {results['choices']}"
    leave(directory, __doc__, results, "\n\n".join([accuracies(results), gains(results), chosen]))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
