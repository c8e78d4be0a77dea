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

    methods         id, %  ood_prompt, %  spurious, %
    -------------------------------------------------
    bt         78.0 ± 0.3     68.1 ± 2.5   68.7 ± 2.7
    judge      75.2 ± 0.9     64.3 ± 2.3   67.3 ± 4.0
    critique   73.4 ± 1.8     65.9 ± 1.7   54.5 ± 2.9
    note       85.1 ± 0.6     84.7 ± 2.0   86.1 ± 0.9
    base note  86.1 ± 0.6     85.0 ± 2.4   87.5 ± 0.9

    gains                   id, points   ood_prompt, points      spurious, points
    -----------------------------------------------------------------------------
    judge - bt       -2.9 [-5.6, -0.4]   -3.7 [-13.7, +4.0]    -1.4 [-15.3, +7.7]
    critique - bt   -4.6 [-13.3, +1.0]   -2.1 [-8.7, +10.0]   -14.2 [-27.0, +6.0]
    note - bt        +7.1 [+4.0, +9.7]  +16.7 [+5.7, +27.3]   +17.4 [+9.0, +24.0]
    base note - bt  +8.0 [+5.0, +10.0]  +16.9 [+4.7, +29.3]  +18.8 [+10.7, +24.4]

    judge on id, %: same in both orders 45.7 ± 1.8, leaning to A -0.7 ± 0.7
    bt, chosen on val: 0.001, 4 epochs, 87k tokens
    judge, chosen on val: 0.001, 4 epochs, 101k tokens
    critique, chosen on val: 0.0003, 1 epochs, 36k tokens

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
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from jaxrm import cli, toy
from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.methods.bench import Bench
from jaxrm.methods.judge import CRITIC, JUDGE, after_notes
from jaxrm.methods.library import METHODS
from jaxrm.methods.off_policy import first_tokens
from jaxrm.models import heads
from jaxrm.read.accuracy import macro_accuracy
from jaxrm.report.tables import spread
from jaxrm.report.webpage import leave
from jaxrm.statistics import estimate
from jaxrm.study import outcome
from jaxrm.study.config import StudyConfig
from jaxrm.study.draws import Condition, Toy
from jaxrm.study.records import Trial
from jaxrm.study.trials import Job
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.samples import answers, question
from jaxrm.train.state import Params
from jaxrm.train.sweep import Record

TRIALS = [Trial(3e-4, 1), Trial(1e-3, 1), Trial(1e-3, 4)]
"""What every method chooses from. The strength of a trial is its epochs."""

ROWS = 4
"""A judge learns slowly: small batches, and so many steps."""

USER, MODEL, END = "<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>\n"
"""The toy world's turns, as its pretraining text has them."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Train a scalar reward, a judge and a critic on the same labels."""

    run_dir: Path = Path("runs/judge")
    tuning_seeds: int = 1
    pairs: int = 500
    """Training pairs."""
    items: int = 300
    """Comparisons of each split."""

    def __post_init__(self):
        super().__post_init__()
        self.at_least(1, "tuning_seeds")
        self.at_least(2, "pairs", "items")


class Pairs(Toy):
    """Comparisons of the toy world; accuracy is measured by clean labels."""

    splits = ("id", "ood_prompt", "spurious")


# Bradley-Terry


def pair_trees(bench: Bench, world: toy.World, pairs: Sequence[Comparison]) -> list[TokenTree]:
    """The pairs as they are."""
    return bench.trees(pairs)


def scalar(
    bench: Bench, world: toy.World, params: Params, comparisons: Sequence[Comparison]
) -> dict[str, float]:
    """The reward's accuracy."""
    rewards = bench.read(params, bench.pack(comparisons), {"rewards": heads.rewards})["rewards"]
    return {"macro": macro_accuracy(list(rewards), comparisons)}


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


def verdict_trees(bench: Bench, world: toy.World, pairs: Sequence[Comparison]) -> list[TokenTree]:
    """Pairs in random order, and their verdicts, of which only the letter counts."""
    orders = [random.Random(f"{world.seed} {pair.id}").random() < 0.5 for pair in pairs]
    return first_tokens(bench.trees(list(map(verdicts, pairs, orders))), 1)


def judged(bench: Bench, params: Params, comparisons: Sequence[Comparison]) -> np.ndarray:
    """Float64 [n, 2]: how likely the judge finds the answer shown first better, of each pair as it
    is and with its answers exchanged."""
    asked = [verdicts(pair, exchanged) for pair in comparisons for exchanged in (False, True)]
    data = bench.pack_trees(asked, first_tokens(bench.trees(asked), 1), "all")
    logps = bench.read(params, data, {"logps": heads.response_logps})["logps"].astype(float)
    return scipy.special.expit(logps[:, 0] - logps[:, 1]).reshape(-1, 2)


def verdict(
    bench: Bench, world: toy.World, params: Params, comparisons: Sequence[Comparison]
) -> dict[str, float]:
    """The accuracy over both orders, the share of pairs of which the same answer is preferred in
    both, and the mean probability of the first place, less a half."""
    said = judged(bench, params, comparisons)
    better = (said[:, 0] + 1 - said[:, 1]) / 2
    return {
        "macro": macro_accuracy(list(np.stack([better, 1 - better], axis=1)), comparisons),
        "consistent": float(np.mean((said[:, 0] > 0.5) != (said[:, 1] > 0.5))),
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


def note_trees(bench: Bench, world: toy.World, pairs: Sequence[Comparison]) -> list[TokenTree]:
    """Pairs with notes, of whose tokens only the notes' count."""

    def alone(branch: Branch, note: str) -> Branch:
        length = len(bench.tokenizer.hf(note, add_special_tokens=False)["input_ids"])
        end, places = len(branch.tokens) - 1, np.arange(len(branch.tokens))
        return dataclasses.replace(branch, targets=(places >= end - length) & (places < end))

    trees = bench.trees([noted(world, pair) for pair in pairs])
    notes = (2 * readers_words(world, pair.subset) for pair in pairs)
    return [
        dataclasses.replace(tree, branches=tuple(map(alone, tree.branches, words)))
        for tree, words in zip(trees, notes, strict=True)
    ]


def criticised(
    bench: Bench, world: toy.World, params: Params, comparisons: Sequence[Comparison]
) -> tuple[np.ndarray, np.ndarray]:
    """What the critic says of answers, [n, 2] each: its reward after its notes, and the log-odds
    of praise."""
    data = bench.pack_trees(comparisons, note_trees(bench, world, comparisons), "all")
    readings = {"rewards": heads.rewards, "logps": heads.response_logps}
    said = bench.read(params, data, readings)
    rewards, logps = (said[name].reshape(-1, 2, 2) for name in readings)
    return np.asarray(after_notes(rewards, logps)), logps[..., 0] - logps[..., 1]


def critique(
    bench: Bench, world: toy.World, params: Params, comparisons: Sequence[Comparison]
) -> dict[str, float]:
    """The accuracy of rewards after notes, of the notes, and of the base's notes."""
    rewards, notes = criticised(bench, world, params, comparisons)
    _, before = criticised(bench, world, bench.start(0), comparisons)
    scores = {"macro": rewards, "note": notes, "base note": before}
    return {name: macro_accuracy(list(each), comparisons) for name, each in scores.items()}


# What is run and shown

ARMS = {
    "bt": (METHODS["bt"], pair_trees, scalar),
    "judge": (JUDGE, verdict_trees, verdict),
    "critique": (CRITIC, note_trees, critique),
}
"""The method, what it trains on, and what is told of its parameters."""

SHOWN = {
    **{arm: (arm, "macro") for arm in ARMS},
    "note": ("critique", "note"),
    "base note": ("critique", "base note"),
}
"""The rows of the tables: an arm, and the figure that is its accuracy."""


def run(job: Job, base: Path) -> Record:
    """Trains, and measures on the job's splits."""
    bench, world, draw = Bench(base, rows=job.rows), toy.World(job.seed), job.condition.data.draw
    method, trees, told = ARMS[job.method]
    fitted = bench.fit(
        method,
        trees(bench, world, draw("train", job.condition.pairs, job.seed)),
        rate=job.trial.learning_rate,
        epochs=job.trial.strength,
        seed=job.seed,
    )
    splits = {
        split: told(bench, world, fitted.params, draw(split, n, job.seed))
        for split, n in job.splits
    }
    trial = {"method": job.method, **dataclasses.asdict(job.trial), "seed": job.seed}
    return trial | {"splits": splits, "tokens": fitted.tokens, "seconds": fitted.seconds}


def measure(cfg: Config) -> dict[str, Any]:
    """Every number of the tables."""
    contest = cfg.contest(
        ARMS,
        [Condition(Pairs(label_noise=0.16, cue_agreement=0.7), cfg.pairs)],
        lambda method, rate: TRIALS,
        items=cfg.items,
        val_items=cfg.items,
        run=run,
        options={"rows": ROWS},
    )
    end = cfg.measured.stop
    choices = contest.tune(range(end, end + cfg.tuning_seeds), TRIALS[0].learning_rate)
    records = contest.measure(choices, cfg.measured, second_budget=False)
    by_arm = {arm: [record for record in records if record["method"] == arm] for arm in ARMS}
    measured = {
        row: {
            split: np.array([record["splits"][split][figure] for record in by_arm[arm]])
            for split in Pairs.splits
        }
        for row, (arm, figure) in SHOWN.items()
    }
    orders = [record["splits"]["id"] for record in by_arm["judge"]]
    return {
        "seeds": list(cfg.measured),
        "choices": choices,
        "tokens": {arm: np.mean([r["tokens"] for r in by_arm[arm]]) for arm in ARMS},
        **{f: estimate([told[f] for told in orders]) for f in ("consistent", "leaning")},
        **outcome.summary(measured, outcome.over(measured, "bt")),
    }


def text(results: Mapping[str, Any]) -> str:
    """Accuracies, gains over Bradley-Terry, and what the order of answers does to the judge."""
    consistent, leaning = (spread(results[name]) for name in ("consistent", "leaning"))
    told = [f"judge on id, %: same in both orders {consistent}, leaning to A {leaning}"]
    for arm, choice in results["choices"].items():
        rate, epochs = choice["learning_rate"], choice["strength"]
        tokens = f"{results['tokens'][arm] / 1000:.0f}k tokens"
        told.append(f"{arm}, chosen on val: {rate:g}, {epochs} epochs, {tokens}")
    return "\n\n".join([outcome.tables(results, Pairs.splits), "\n".join(told)])


def main(cfg: Config) -> None:
    """Measures, and prints the tables."""
    directory, results = cfg.open(), measure(cfg)
    leave(directory, __doc__, results, text(results))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
