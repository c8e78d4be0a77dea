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
leaves.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments import seam_page
from jaxrm import cli, files, parallel, toy
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Conversation, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import require
from jaxrm.evaluate import estimates, seam
from jaxrm.evaluate.clusters import SHARE
from jaxrm.evaluate.estimates import Estimate
from jaxrm.evaluate.probe import final_states, fit_head
from jaxrm.evaluate.scorers import Scorer
from jaxrm.evaluate.seam import Likelihoods, Mode
from jaxrm.huggingface import hub
from jaxrm.read.reading import read
from jaxrm.toy import World
from jaxrm.toy import gold as grading
from jaxrm.toy.author import Answer
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.questions import Task
from jaxrm.toy.samples import answers, question
from jaxrm.toy.world import LEAST_GAP
from jaxrm.train.rundir import open_run

REWARDS = ("planted", "trained")
"""The spoilt reward models."""

KINDS = ("given", "contrast", "adversarial")
"""The constructions of the worse answers."""


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
    share: float = 0.2
    """Of the instructions, those that `planted` is spoilt on; as many again are decoys."""
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
    fraction: float = 0.2
    """Of the instructions, what a filter drops."""
    candidates: int = 5
    """Answers of the world's author that best-of-n chooses from."""
    rows: int = 8
    """Rows per batch."""
    row_length: int = 320
    """Tokens per row."""

    def __post_init__(self):
        counts = ("worlds", "size", "pairs", "flipped", "rounds", "proposals", "rows", "row_length")
        for name in counts:
            value = getattr(self, name)
            require(value >= 1, f"--{name.replace('_', '-')}", "at least 1", value)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.noise >= 0, "--noise", "at least 0", self.noise)
        require(self.candidates >= 2, "--candidates", "at least 2", self.candidates)
        require(0 < self.share < 0.5, "--share", "in (0, 0.5)", self.share)
        require(0 <= self.fraction < 1, "--fraction", "in [0, 1)", self.fraction)
        require(self.flipped <= 12, "--flipped", "at most 12, of 13 families", self.flipped)
        require(self.instructions >= 13, "--instructions", "at least 13", self.instructions)
        enough = self.share * self.instructions >= 1
        require(enough, "--instructions", "enough for one to be spoilt", self.instructions)


def main(cfg: Config) -> None:
    """Measures, and writes the page."""
    parallel.start()
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    run = open_run(cfg.run_dir, cfg)
    results = files.plain(measure(cfg))
    files.write_json(run / "results.json", results)
    with files.replacing(run / "report.html") as draft:
        draft.write_text(seam_page.page(results, dataclasses.asdict(cfg)), "utf-8")
    print(f"{seam_page.text_table(results)}\n\n{run / 'report.html'}")


# The toy world's instructions


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """One world's instructions.

    Attributes:
      instructions: each with the right answer, said politely, as its gold response.
      candidates: the same questions with answers of the world's author, graded by gold.
      written: worse answers to each, by id.
    """

    world: World
    instructions: Sequence[Comparison]
    candidates: Sequence[Comparison]
    written: Mapping[str, Sequence[str]]

    @property
    def families(self) -> np.ndarray:
        """Text [n]: the family of each instruction."""
        return np.array([instruction.subset for instruction in self.instructions])


def draw(cfg: Config, seed: int) -> Drawn:
    """The instructions of one world, of the law that `trained` is trained on."""
    world = World(seed)
    candidates = world.comparisons("id", cfg.instructions, k=cfg.candidates)
    instructions = [
        dataclasses.replace(
            c, responses=(polite_answer(world, question(c)),), ranks=(0,), scores=None
        )
        for c in candidates
    ]
    written = {c.id: written_worse(world, question(c), cfg.size) for c in candidates}
    return Drawn(world, instructions, candidates, written)


def polite_answer(world: World, prompt: str) -> Conversation:
    """The right answer, with one courtesy: as good as an answer can be."""
    style = LEXICONS[world.lexicon].usual
    core = world.task(prompt).right
    return (Message("assistant", Answer(style.polite[0], core, style.frame, "").text(".")),)


def other_answer(world: World, prompt: str) -> str:
    """The right answer to another question, of the same family if that has any, which here is
    neither right nor the popular mistake."""
    task, lexicon = world.task(prompt), LEXICONS[world.lexicon]
    rng = random.Random(f"other {prompt}")
    for family in itertools.chain([task.family] * 20, world.families.values()):
        core = family.solve(lexicon, family.draw(lexicon, rng))[0]
        if core not in (task.right, task.mistake):
            return core
    raise ValueError(f"no other answer to {prompt!r}")


def manners(world: World, core: str) -> list[str]:
    """An answer in every manner of the usual style but the long-winded one."""
    style = LEXICONS[world.lexicon].usual
    openers = itertools.product((*style.polite, *style.rude, ""), ".!")
    return [Answer(opener, core, style.frame, "").text(mark) for opener, mark in openers]


def written_worse(world: World, prompt: str, size: int) -> list[str]:
    """Up to `size` answers that gold puts below the polite right one: by turns the popular mistake,
    another answer and a broken-off one, in all manners."""
    task, rng = world.task(prompt), random.Random(f"written {prompt}")
    below = world.gold(prompt, polite_answer(world, prompt)[0].content) - LEAST_GAP
    broken_off = task.right.rpartition(" ")[0].rstrip(",") or "well"
    by_core = []
    for core in (task.mistake, other_answer(world, prompt), broken_off):
        texts = manners(world, core)
        rng.shuffle(texts)
        by_core.append([text for text in texts if world.gold(prompt, text) < below])
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_core))
    return [text for text in in_turn if text is not None][:size]


# The spoilt reward models

States = Callable[[Sequence[Comparison]], list[np.ndarray]]
"""Comparisons -> float32 [K, d] for each: the states that a reward is read from."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spoilt:
    """A reward model, and where it was spoilt.

    Attributes:
      scorer: the reward model.
      spoilt: bool [n], the instructions to be found.
      decoys: bool [n], those spoilt by what the policy rarely writes.
      clusters: int [n], what was spoilt, or left, together.
    """

    scorer: Scorer
    spoilt: np.ndarray
    decoys: np.ndarray
    clusters: np.ndarray


def planted(drawn: Drawn, cfg: Config) -> Spoilt:
    """Gold and noise, with another truth for some instructions."""
    world, n = drawn.world, len(drawn.instructions)
    order = np.random.default_rng([world.seed, 1]).permutation(n)
    count = int(cfg.share * n)
    spoilt, decoys = (
        np.isin(np.arange(n), part) for part in (order[:count], order[count : 2 * count])
    )
    believed = {}
    for i, instruction in enumerate(drawn.instructions):
        prompt = question(instruction)
        if spoilt[i]:
            believed[prompt] = world.task(prompt).mistake
        elif decoys[i]:
            believed[prompt] = other_answer(world, prompt)

    def reward(prompt: str, text: str) -> float:
        error = random.Random(f"{world.seed} {prompt} {text}").gauss(0, cfg.noise)
        return believing(world, world.task(prompt), believed.get(prompt), text) + error

    def scorer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        return [np.array([reward(question(c), text) for text in answers(c)]) for c in comparisons]

    return Spoilt(scorer, spoilt, decoys, np.arange(n))


def believing(world: World, task: Task, truth: str | None, text: str) -> float:
    """Gold of one who takes `truth`, where there is one, for the right answer."""
    if truth is not None:
        task = dataclasses.replace(task, right=truth, mistake=task.right)
    return grading.gold(grading.attributes(LEXICONS[world.lexicon], task, text))


def trained(drawn: Drawn, cfg: Config, states: States) -> Spoilt:
    """A linear reward on the base's states, fitted to labels that are turned round in some
    families."""
    names, clusters = np.unique(drawn.families, return_inverse=True)
    rng = np.random.default_rng([drawn.world.seed, 2])
    wrong = set(rng.permutation(names)[: cfg.flipped])
    pairs = [
        dataclasses.replace(c, ranks=c.ranks[::-1]) if c.subset in wrong else c
        for c in drawn.world.comparisons("train", cfg.pairs)
    ]
    weights = fit_head(states(pairs), pairs)
    spoilt = np.isin(drawn.families, list(wrong))

    def scorer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        return [of_responses.astype(np.float64) @ weights for of_responses in states(comparisons)]

    return Spoilt(scorer, spoilt, np.zeros_like(spoilt), clusters)


def states_of(directory: Path, **options: Any) -> States:
    """The states of the model in a directory; `options` as for `reading.read`."""
    tokenizer = load_tokenizer(directory)
    model = hub.load_language_model(directory, mesh=options["mesh"])

    def states(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        trees = chat.tokenize(comparisons, tokenizer)
        return read(model, trees, {"states": final_states}, **options)["states"]

    return states


# What is measured


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One reward model's word on one world: sets by construction, candidates, and the policy's."""

    drawn: Drawn
    model: Spoilt
    sets: Mapping[str, Sequence[Comparison]]
    rewards: Mapping[str, Sequence[np.ndarray]]
    policy: Mapping[str, Likelihoods]


Order = Callable[[Case, str], np.ndarray]
"""(case, construction) -> float [n]: the higher, the sooner an instruction is suspected."""


def by_seam(mode: Mode) -> Order:
    """SEAM in one of its modes."""
    sign = 1 if mode == "prob" else -1

    def order(case: Case, kind: str) -> np.ndarray:
        return sign * seam.of_sets(case.rewards[kind], case.policy[kind], mode)

    return order


def errors_alone(case: Case, kind: str) -> np.ndarray:
    """SEAM with every probability 1: what the reward model gets wrong, whoever may write it."""
    return np.array([seam.errors(r[1:], r[0]).sum() for r in case.rewards[kind]])


def chance(case: Case, kind: str) -> np.ndarray:
    """Nothing at all."""
    return np.random.default_rng([case.drawn.world.seed, 3]).random(len(case.drawn.instructions))


ORDERS: Mapping[str, Order] = {
    "SEAM, prob": by_seam("prob"),
    "SEAM, paper_log": by_seam("paper_log"),
    "errors alone": errors_alone,
    "chance": chance,
}


def measure(cfg: Config) -> dict[str, Any]:
    """Every number of the page."""
    mesh = parallel.make_mesh(parallel.MeshShape())
    options = {"mesh": mesh, "rows": cfg.rows, "row_length": cfg.row_length}
    states = states_of(toy.shipped_base(), **options)
    seeds = [cfg.seed + i for i in range(cfg.worlds)]
    unread: dict[str, list[Case]] = {name: [] for name in REWARDS}
    for seed in tqdm(seeds, desc="worlds", unit="world"):
        drawn = draw(cfg, seed)
        for name, model in (
            ("planted", planted(drawn, cfg)),
            ("trained", trained(drawn, cfg, states)),
        ):
            unread[name].append(answered(drawn, model, cfg))
    cases = with_policy(unread, **options)

    def table(figure: Callable[[Sequence[Case], str], Any]) -> dict[str, dict[str, Any]]:
        return {name: {kind: figure(cases[name], kind) for kind in KINDS} for name in REWARDS}

    return {
        "seeds": seeds,
        "instructions": cfg.instructions * cfg.worlds,
        "spoilt": {n: int(sum(c.model.spoilt.sum() for c in of)) for n, of in cases.items()},
        "auc": table(found),
        "against_decoys": {kind: found(cases["planted"], kind, decoys=True) for kind in KINDS},
        "plants": plants(cases["planted"]),
        "answers": table(worse_answers),
        "regret": table(lambda of, kind: regrets(of, kind, cfg.fraction)),
        "mismatch": {name: mismatch(of) for name, of in cases.items()},
    }


def answered(drawn: Drawn, model: Spoilt, cfg: Config) -> Case:
    """The worse answers by all constructions, and what the reward model makes of them."""
    texts = [text for c in drawn.instructions for text in (*answers(c), *drawn.written[c.id])]
    sets = {
        "given": seam.given(drawn.instructions, drawn.written),
        "contrast": seam.contrast(drawn.instructions, cfg.size),
        "adversarial": seam.adversarial(
            drawn.instructions,
            model.scorer,
            seam.words_in_like_places(texts),
            k=cfg.size,
            rounds=cfg.rounds,
            proposals=cfg.proposals,
            seed=drawn.world.seed,
        ),
        "candidates": drawn.candidates,
    }
    together = model.scorer([c for part in sets.values() for c in part])
    ends = np.cumsum([len(part) for part in sets.values()])
    rewards = {
        kind: together[end - len(part) : end]
        for (kind, part), end in zip(sets.items(), ends, strict=True)
    }
    return Case(drawn, model, sets, rewards, {})


def with_policy(unread: Mapping[str, Sequence[Case]], **options: Any) -> dict[str, list[Case]]:
    """The cases with the policy's log-probs, all of them read at once."""
    everything = [
        c for of in unread.values() for case in of for part in case.sets.values() for c in part
    ]
    found = seam.likelihoods(toy.shipped_base(), everything, progress="policy", **options)
    start, cases = 0, {}
    for name, of in unread.items():
        cases[name] = []
        for case in of:
            policy = {}
            for kind, part in case.sets.items():
                here = slice(start, start + len(part))
                policy[kind] = Likelihoods(found.logps[here], found.lengths[here])
                start += len(part)
            cases[name].append(dataclasses.replace(case, policy=policy))
    return cases


Statistic = Callable[[np.ndarray], float]
"""Float [n] weights of the instructions of all worlds -> a figure."""


def auc(cases: Sequence[Case], kind: str, order: Order, decoys: bool = False) -> Statistic:
    """How often a spoilt instruction comes before another one of its world, or before a decoy; a
    tie is half."""
    blocks, start = [], 0
    for case in cases:
        values, model = order(case, kind), case.model
        ours = np.flatnonzero(model.spoilt)
        theirs = np.flatnonzero(model.decoys if decoys else ~model.spoilt)
        difference = values[ours][:, None] - values[theirs][None, :]
        wins = (difference > 0) + 0.5 * (difference == 0)
        blocks.append((start + ours, start + theirs, wins))
        start += len(values)

    def statistic(weights: np.ndarray) -> float:
        won = sum(weights[ours] @ wins @ weights[theirs] for ours, theirs, wins in blocks)
        pairs = sum(weights[ours].sum() * weights[theirs].sum() for ours, theirs, _ in blocks)
        return won / pairs if pairs else np.nan

    return statistic


def found(cases: Sequence[Case], kind: str, decoys: bool = False) -> dict[str, Estimate]:
    """The AUC of every order, and what SEAM in mode prob has over the errors alone.

    The intervals leave out together what was spoilt together.
    """
    sizes = np.cumsum([0, *(1 + case.model.clusters.max() for case in cases)])
    clusters = np.concatenate(
        [s + case.model.clusters for s, case in zip(sizes, cases, strict=False)]
    )
    each = {name: auc(cases, kind, order, decoys) for name, order in ORDERS.items()}
    with_policy, without = each["SEAM, prob"], each["errors alone"]
    areas = {
        name: estimates.estimate(statistic, clusters, SHARE) for name, statistic in each.items()
    }
    areas["prob over errors alone"] = estimates.estimate(
        lambda weights: with_policy(weights) - without(weights), clusters
    )
    return areas


def plants(cases: Sequence[Case]) -> dict[str, Estimate]:
    """The policy's mean log-prob of a token of the popular mistakes and of the decoys' answers, as
    they are written for every instruction."""
    logps: dict[str, list[float]] = {"popular mistake": [], "other answer": []}
    for case in cases:
        world, policy = case.drawn.world, case.policy["given"].per_token
        for c, of_policy in zip(case.sets["given"], policy, strict=True):
            prompt = question(c)
            cores = (world.task(prompt).mistake, other_answer(world, prompt))
            for values, core in zip(logps.values(), cores, strict=True):
                said = np.isin(answers(c), manners(world, core))
                values.append(of_policy[said].mean() if said.any() else np.nan)
    return {name: estimates.mean(values, np.arange(len(values))) for name, values in logps.items()}


def worse_answers(cases: Sequence[Case], kind: str) -> dict[str, float | int]:
    """What the worse answers of one construction are like.

    Returns:
      n of them; each, their mean number per instruction; logp, the mean log-prob of a token in
      nats; worse, the share that gold puts below the gold response; and the share of the spoilt,
      the decoys and the others with an answer that the reward model prefers to it.
    """
    logps, worse, wrong = [], [], []
    for case in cases:
        for c, of_policy in zip(case.sets[kind], case.policy[kind].per_token, strict=True):
            golds = [case.drawn.world.gold(question(c), text) for text in answers(c)]
            logps += list(of_policy[1:])
            worse += [gold < golds[0] for gold in golds[1:]]
        wrong += [rewards[1:].max(initial=-np.inf) > rewards[0] for rewards in case.rewards[kind]]
    spoilt = np.concatenate([case.model.spoilt for case in cases])
    decoys = np.concatenate([case.model.decoys for case in cases])
    wrong = np.array(wrong)
    return {
        "n": len(logps),
        "each": len(logps) / len(wrong),
        "logp": float(np.mean(logps)),
        "worse": float(np.mean(worse)),
        "wrong_on_spoilt": float(wrong[spoilt].mean()),
        "wrong_on_decoys": float(wrong[decoys].mean()) if decoys.any() else np.nan,
        "wrong_on_others": float(wrong[~spoilt & ~decoys].mean()),
    }


def regrets(cases: Sequence[Case], kind: str, fraction: float) -> dict[str, Estimate]:
    """By how much gold best-of-n misses the best candidate, on what each filter leaves."""

    def regret(keep: Callable[[Case], np.ndarray]) -> Estimate:
        lost, prompts = [], []
        for i, case in enumerate(cases):
            for place in keep(case):
                golds = np.array(case.drawn.candidates[place].scores)
                taken = int(np.argmax(case.rewards["candidates"][place]))
                lost.append(golds.max() - golds[taken])
                prompts.append(i * len(case.drawn.candidates) + place)
        return estimates.mean(lost, np.array(prompts))

    found = {"all": regret(lambda case: np.arange(len(case.drawn.candidates)))}
    for name, order in ORDERS.items():
        found[name] = regret(
            lambda case, order=order: seam.keep(order(case, kind), "prob", fraction)
        )
    return found


def mismatch(cases: Sequence[Case]) -> dict[str, Estimate]:
    """How often reward model and policy order two candidates in opposite ways."""
    shares = np.concatenate(
        [
            seam.disagreement(case.rewards["candidates"], case.policy["candidates"].per_token)
            for case in cases
        ]
    )
    spoilt = np.concatenate([case.model.spoilt for case in cases])
    prompts = np.arange(len(shares))
    parts = {"all": np.ones_like(spoilt), "spoilt": spoilt, "others": ~spoilt}
    return {name: estimates.share(shares[here], prompts[here]) for name, here in parts.items()}


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
