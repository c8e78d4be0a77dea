"""Does SEAM (arXiv 2406.07971) find the instructions on which a reward model was spoilt?

    python -m experiments.seam

In the toy world two reward models are spoilt in a known way:

- `planted` is the world's gold reward with noise. On a share of the instructions it takes the
  popular mistake, which the policy often writes, for the truth; on as many others, the decoys, it
  takes an answer for the truth that the policy rarely writes.
- `trained` is a linear reward on the frozen base's states, fitted to pairs whose labels are turned
  round in some families of questions, whose instructions are the spoilt ones.

The policy is the toy base's language model. SEAM is computed from its three kinds of worse answers,
in both of its modes, beside the sum of the errors, without the policy, and beside chance. SEAM
means to rank a planted mistake above a decoy, so `planted` shows that it does what it says, and not
that what it says is worth doing: that is asked of best-of-n, on the instructions that a filter
leaves. What it printed is in docs/seam.md.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from jaxrm import cli, files, toy
from jaxrm.data.comparison import Comparison
from jaxrm.errors import require
from jaxrm.evaluate import estimates, probe, seam
from jaxrm.evaluate.clusters import SHARE
from jaxrm.evaluate.estimates import Estimate
from jaxrm.evaluate.scorers import Scorer
from jaxrm.evaluate.seam import Likelihoods, Mode
from jaxrm.huggingface import hub
from jaxrm.methods.bench import Bench
from jaxrm.report.tables import between, markdown, number
from jaxrm.report.webpage import leave
from jaxrm.toy import World
from jaxrm.toy.samples import answers, question
from jaxrm.toy.worse import instructions, manners, mistaken, other_answer, written_worse
from jaxrm.train.rundir import open_run

KINDS = ("given", "contrast", "adversarial")
"""The constructions of the worse answers."""
FRACTION = 0.2
"""Of a world's instructions: what `planted` is spoilt on, its decoys, and what a filter drops."""
ROWS = {"rows": 8, "row_length": 320}
"""What is read at once."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Spoil two reward models, and look for where."""

    run_dir: Path = Path("runs/seam")
    """Where the results go."""
    seed: int = 0
    """Of the first world; the others have the seeds that follow."""
    worlds: int = 3
    instructions: int = 120
    """In each world, of 13 families."""
    size: int = 10
    """Worse answers to an instruction, at most."""
    noise: float = 0.2
    """The deviation of the noise on every reward of `planted`; gold lies between 0 and 1."""
    pairs: int = 1000
    """That `trained` is fitted to."""
    flipped: int = 3
    """Families whose labels it sees turned round."""
    rounds: int = 5
    """Of the search for adversarial answers."""
    proposals: int = 8
    """Texts that it tries for an instruction in a round."""
    candidates: int = 5
    """Answers of the world's author that best-of-n chooses from."""

    def __post_init__(self):
        least = dict.fromkeys(("worlds", "size", "pairs", "flipped", "rounds", "proposals"), 1)
        least |= {"seed": 0, "noise": 0, "candidates": 2, "instructions": 13}
        for name, at_least in least.items():
            value = getattr(self, name)
            require(value >= at_least, f"--{name}", f"at least {at_least}", value)
        require(self.flipped <= 12, "--flipped", "at most 12, of 13 families", self.flipped)


# The spoilt reward models


Spoilt = tuple[Scorer, np.ndarray, np.ndarray, Sequence[str]]
"""A reward model; which instructions it is spoilt on, which are to be found; which are decoys,
spoilt by what the policy rarely writes; and names of what was spoilt, or left, together."""


def planted(world: World, asked: Sequence[Comparison], cfg: Config, bench: Bench) -> Spoilt:
    """Gold and noise, with another truth for some instructions."""
    n, count = len(asked), int(FRACTION * len(asked))
    order = np.random.default_rng([world.seed, 1]).permutation(n)
    spoilt, decoys = (np.isin(np.arange(n), order[i : i + count]) for i in (0, count))
    prompts = np.array(list(map(question, asked)))
    believed = {prompt: world.task(prompt).mistake for prompt in prompts[spoilt]}
    believed |= {prompt: other_answer(world, prompt) for prompt in prompts[decoys]}
    return mistaken(world, believed, cfg.noise), spoilt, decoys, [f"{i:06}" for i in range(n)]


def trained(world: World, asked: Sequence[Comparison], cfg: Config, bench: Bench) -> Spoilt:
    """A linear reward on the base's states, fitted to labels that are turned round in some
    families."""
    families = [comparison.subset for comparison in asked]
    rng = np.random.default_rng([world.seed, 2])
    wrong = rng.permutation(np.unique(families))[: cfg.flipped]
    pairs = [
        dataclasses.replace(c, ranks=c.ranks[::-1]) if c.subset in wrong else c
        for c in world.comparisons("train", cfg.pairs)
    ]
    base = hub.load_language_model(bench.base, mesh=bench.devices)
    scorer = probe.as_scorer(base, bench.tokenizer, pairs, mesh=bench.devices, **ROWS)
    return scorer, np.isin(families, wrong), np.zeros(len(asked), bool), families


REWARDS = {"planted": planted, "trained": trained}


# What is measured


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """The gold response and worse answers, or candidates: their rewards, and the policy's mean
    log-probs of a token, float [K]."""

    asked: Comparison
    rewards: np.ndarray
    logps: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """An instruction under a reward model.

    Attributes:
      spoilt, decoy, cluster: what `Spoilt` says of it.
      chance: a number that knows nothing.
      answers: by construction, and `candidates`.
    """

    world: World
    spoilt: bool
    decoy: bool
    cluster: str
    chance: float
    answers: Mapping[str, Answers]


def items_of(world: World, reward: str, cfg: Config, bench: Bench) -> list[Item]:
    """A world's instructions, of the law that `trained` is trained on, with their answers."""
    candidates = world.comparisons("id", cfg.instructions, k=cfg.candidates)
    asked = instructions(candidates, world)
    scorer, *marks, clusters = REWARDS[reward](world, asked, cfg, bench)
    written = {c.id: written_worse(world, question(c), cfg.size) for c in asked}
    texts = [text for c in asked for text in (*answers(c), *written[c.id])]
    search = {"k": cfg.size, "rounds": cfg.rounds, "proposals": cfg.proposals, "seed": world.seed}
    sets = {
        "given": seam.given(asked, written),
        "contrast": seam.contrast(asked, cfg.size),
        "adversarial": seam.adversarial(asked, scorer, seam.words_in_like_places(texts), **search),
        "candidates": candidates,
    }
    by_kind = {}
    for kind, part in sets.items():
        policy = seam.likelihoods(bench.base, part, mesh=bench.devices, **ROWS)
        by_kind[kind] = list(map(Answers, part, scorer(part), policy.per_token))
    chance = np.random.default_rng([world.seed, 3]).random(len(asked))
    each = zip(*marks, (f"{world.seed:06} {name}" for name in clusters), chance, strict=True)
    return [
        Item(world, *fields, {kind: part[i] for kind, part in by_kind.items()})
        for i, fields in enumerate(each)
    ]


def column(items: Sequence[Item], name: str) -> np.ndarray:
    """A field of all items."""
    return np.array([getattr(item, name) for item in items])


def orders(items: Sequence[Item], kind: str) -> dict[str, np.ndarray]:
    """What instructions are put in order by, float [n] each: the higher, the more suspect."""
    each = [item.answers[kind] for item in items]
    rewards, logps = [a.rewards for a in each], [a.logps for a in each]
    policy = Likelihoods(logps, list(map(np.ones_like, logps)))
    prob, paper_log, errors = (seam.of_sets(rewards, policy, mode) for mode in get_args(Mode))
    seams = {"SEAM, prob": prob, "SEAM, paper_log": -paper_log, "errors alone": errors}
    return seams | {"chance": column(items, "chance")}


def areas(items: Sequence[Item], kind: str, decoys: bool = False) -> dict[str, Estimate]:
    """The AUC of every order: how often a spoilt instruction comes before another one of its world,
    or before a decoy; and what SEAM in mode prob has over the errors alone.

    The intervals leave out together what was spoilt together.
    """
    spoilt, clusters = column(items, "spoilt"), column(items, "cluster")
    parts = spoilt, column(items, "decoy") if decoys else ~spoilt
    worlds = np.array([item.world.seed for item in items])
    each = {name: estimates.auc(v, *parts, worlds) for name, v in orders(items, kind).items()}
    figures = {name: estimates.estimate(area, clusters, SHARE) for name, area in each.items()}
    over = estimates.estimate(lambda w: each["SEAM, prob"](w) - each["errors alone"](w), clusters)
    return figures | {"prob over errors alone": over}


def plants(items: Sequence[Item]) -> dict[str, Estimate]:
    """The policy's mean log-prob of a token of the popular mistakes and of the decoys' answers, as
    they are written for every instruction."""

    def logp(item: Item, core: Callable[[World, str], str]) -> float:
        written = item.answers["given"]
        core = core(item.world, question(written.asked))
        said = np.isin(answers(written.asked), manners(item.world, core))
        return written.logps[said].mean() if said.any() else np.nan

    cores = {"popular mistake": lambda w, p: w.task(p).mistake, "other answer": other_answer}
    all_of = np.arange(len(items))
    return {n: estimates.mean([logp(i, core) for i in items], all_of) for n, core in cores.items()}


def worse_answers(items: Sequence[Item], kind: str) -> dict[str, float]:
    """What the worse answers of one construction are like: their mean number per instruction; the
    mean log-prob of a token; the share that gold puts below the gold response; and the share of the
    spoilt, the decoys and the others with one that the reward model prefers to it."""
    each = [item.answers[kind] for item in items]
    logps = np.concatenate([a.logps[1:] for a in each])
    wrong = np.array([a.rewards[1:].max(initial=-np.inf) > a.rewards[0] for a in each])
    worse: list[bool] = []
    for item, a in zip(items, each, strict=True):
        first, *others = (item.world.gold(question(a.asked), text) for text in answers(a.asked))
        worse += [gold < first for gold in others]
    spoilt, decoys = column(items, "spoilt"), column(items, "decoy")
    parts = {"spoilt": spoilt, "decoys": decoys, "others": ~spoilt & ~decoys}
    shares = {f"wrong on {name}": wrong[part].mean() for name, part in parts.items() if part.any()}
    count = len(logps) / len(items)
    return {"each": count, "log-prob": np.mean(logps), "worse": np.mean(worse)} | shares


def regrets(items: Sequence[Item], kind: str) -> dict[str, Estimate]:
    """By how much gold best-of-n misses the best candidate, on what each filter leaves."""
    each = [(item.answers["candidates"].asked.scores, item.answers["candidates"]) for item in items]
    lost = np.array([max(golds) - golds[int(np.argmax(a.rewards))] for golds, a in each])
    worlds = np.array([item.world.seed for item in items])
    by_world = [np.flatnonzero(worlds == seed) for seed in np.unique(worlds)]
    kept = {"all": np.arange(len(items))}
    for name, values in orders(items, kind).items():
        kept[name] = np.concatenate([p[seam.keep(values[p], fraction=FRACTION)] for p in by_world])
    return {name: estimates.mean(lost[places], places) for name, places in kept.items()}


def mismatch(items: Sequence[Item]) -> dict[str, Estimate]:
    """How often reward model and policy order two candidates in opposite ways."""
    each, spoilt = [item.answers["candidates"] for item in items], column(items, "spoilt")
    shares = seam.disagreement([a.rewards for a in each], [a.logps for a in each])
    parts = {"all": spoilt | True, "spoilt": spoilt, "others": ~spoilt}
    return {n: estimates.share(shares[part], np.flatnonzero(part)) for n, part in parts.items()}


def measure(cfg: Config) -> dict[str, Any]:
    """Every table: {row: {column: figure}}."""
    bench = Bench(toy.shipped_base())
    items: dict[str, list[Item]] = {name: [] for name in REWARDS}
    for seed in tqdm(range(cfg.seed, cfg.seed + cfg.worlds), desc="worlds", unit="world"):
        for name, each in items.items():
            each += items_of(World(seed), name, cfg, bench)

    def table(figures: Callable[[Sequence[Item], str], Any]) -> dict[str, dict[str, Any]]:
        return {f"{name}, {k}": figures(items[name], k) for name in REWARDS for k in KINDS}

    return {
        "AUC": table(areas),
        "AUC against decoys": {kind: areas(items["planted"], kind, decoys=True) for kind in KINDS},
        "regret": table(regrets),
        "worse answers": table(worse_answers),
        "log-prob": {"planted": plants(items["planted"])},
        "mismatch": {name: mismatch(each) for name, each in items.items()},
    }


def text(results: Mapping[str, Any]) -> str:
    """Every table in Markdown, with 95 % intervals over prompts, or families for `trained`."""

    def cell(figure: Mapping[str, Any] | float | None) -> str:
        if not isinstance(figure, Mapping):
            return number(figure, ".2f", 1)
        ends = between(figure["low"], figure["high"], ".2f", 1)
        return f"{number(figure['value'], '.2f', 1)} ({ends})"

    parts = []
    for title, by_row in results.items():
        head = list(next(iter(by_row.values())))
        rows = [[row, *(cell(figures.get(c)) for c in head)] for row, figures in by_row.items()]
        parts.append(markdown([title, *head], rows))
    return "\n\n".join(parts)


def main(cfg: Config) -> None:
    """Measures, and leaves the tables."""
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    run, results = open_run(cfg.run_dir, cfg), files.plain(measure(cfg))
    leave(run, __doc__, results, text(results))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
