"""Does GRM generalise better than controls that were tuned as hard? A study on the toy world.

    python -m experiments.grm_gemma --lexicon dev --pretrain --run-dir runs/dev
    python -m experiments.study_grm --screen --base runs/dev/base/export --run-dir runs/screen
    python -m experiments.study_grm --confirm --run-dir runs/study_grm
    python -m experiments.study_grm --report docs/study_grm_records.jsonl --page docs/results_grm.md

GRM (arXiv 2406.10216) keeps the language model beside the reward head and claims better rewards
out of distribution. Here its three variants meet Bradley-Terry and what else might do the same:
early stopping, fitting the head before the rest (arXiv 2202.10054), a pull to the initial weights
(arXiv 1802.01483), and replay of the pretraining text. Every method gets four trials.

`--screen` tries them on the "dev" lexicon, reads `val` alone, and writes the choices. `--confirm`
takes the choices of `study_grm_choices.json` to the "report" lexicon and to seeds that no choice
has seen, evaluates on all splits, and writes the page (study_grm_page.py). Every training run is a
file of RUN/jobs; the same command goes on where it was stopped. `--report` writes the page again
from the records, of which those of the results page are kept beside it.

The methods and their trials are in study_grm_methods.py. Here is which runs are made of them, and
then how one is run.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxrm.study.lab import Lab, mesh
from jaxrm.train.short import Point

from experiments.study_grm_methods import METHODS, RATES, STRENGTHS, trials
from experiments.study_grm_page import MAIN, write
from jaxrm import cli, files, toy
from jaxrm.data import packing
from jaxrm.data.packing import Ask, TokenTree
from jaxrm.errors import DataError, OptionError, require
from jaxrm.evaluate.probe import final_states, fit_head
from jaxrm.huggingface import hub
from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.read.accuracy import macro_accuracy
from jaxrm.read.packed import Packed, cosine_distance, of_rewards
from jaxrm.study.records import Trial
from jaxrm.study.tuning import choice, choices_table
from jaxrm.train.state import Params
from jaxrm.train.sweep import Record, sweep

Part = Literal["main", "sizes", "strengths", "heads", "frozen", "curves"]

SCREEN_SEEDS, CONFIRM_SEEDS, EXPLORING, CURVES = 3, 12, 3, 2
"""How many: of the screen (from 0 on), and of the confirmation's part main, its other parts, and
its learning curves."""
FIRST_SEED = 100
"""Where the confirmation's seeds begin."""

EARLY_POINTS, EARLY_ITEMS = 6, 500
"""Where `bt_early` looks, and at how many comparisons of `val`."""
TEXTS = 1000
"""Questions of the pretraining text that replay draws from."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """What training data a run has: pairs, share of labels flipped, how often the style cue is on
    the better side, and epochs."""

    pairs: int
    label_noise: float
    cue_agreement: float
    epochs: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """The GRM study: choose on one lexicon, confirm on another."""

    screen: bool = False
    """Tune every method on `val` of the dev lexicon; needs --base."""
    confirm: bool = False
    """Measure the chosen trials on the report lexicon and its shipped base."""
    report: Path | None = None
    """Write the page again from the records of a confirmation, RUN/records.jsonl."""
    page: Path | None = None
    """Where the page goes, with its figures beside it; RUN/results.md without it."""
    base: Path | None = None
    """The base of the screen, which has read the dev lexicon."""
    run_dir: Path = Path("runs/study_grm")
    choices: Path = Path(__file__).with_name("study_grm_choices.json")
    """What the screen chose, as --confirm reads it. A screen writes RUN/choices.json."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""
    methods: tuple[str, ...] = MAIN
    """What the part main compares; a screen tries `frozen` too. Bradley-Terry is always among
    them."""
    parts: tuple[Part, ...] = ("main", "sizes", "strengths", "heads", "frozen", "curves")
    """What --confirm runs."""
    seeds: int | None = None
    """How many; without it 3 to screen, and 12 to confirm (of them 3 for all but the main part)."""
    pairs: int = 2000
    """Training pairs of the main condition; the other sizes are a quarter, half and double."""
    items: int = 2000
    """Comparisons of `ood_prompt`."""
    val_items: int = 1000
    side_items: int = 500
    """Comparisons of each other split."""
    sample_items: int = 300
    """Comparisons of `id` and `ood_prompt` for language ability and drift, and of each split for
    the learning curves."""
    curve_points: int = 8

    def __post_init__(self):
        stages = (self.screen, self.confirm, self.report is not None)
        require(sum(stages) == 1, "--screen, --confirm, --report", "one of the three", stages)
        for name in ("pairs", "items", "val_items", "side_items", "sample_items", "curve_points"):
            value = getattr(self, name)
            require(value >= 1, f"--{name.replace('_', '-')}", "at least 1", value)
        require(self.pairs >= 4, "--pairs", "at least 4", self.pairs)
        require(self.seeds is None or self.seeds >= 1, "--seeds", "at least 1", self.seeds)
        require(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)
        known = ", ".join(METHODS)
        require(set(self.methods) <= set(METHODS), "--methods", f"among {known}", self.methods)

    @property
    def conditions(self) -> dict[str, Condition]:
        """Those of the part main: noisy labels, few of them, and clean ones."""
        main = Condition(self.pairs, label_noise=0.25, cue_agreement=0.7)
        return {
            "A": main,
            "B": dataclasses.replace(main, pairs=self.pairs // 4),
            "C": dataclasses.replace(main, label_noise=0.0),
        }


# What is run


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How many comparisons of which splits a run is evaluated on, (split, n) each.

    Attributes:
      splits: after training, by rewards.
      sampled: after training, by the language model's ranking, and by the drift of states.
      curves: at each of `points` equally spaced steps, by rewards.
    """

    splits: tuple[tuple[str, int], ...]
    sampled: tuple[tuple[str, int], ...] = ()
    curves: tuple[tuple[str, int], ...] = ()
    points: int = 0


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run, and all that its record depends on; `base` is the base's fingerprint."""

    method: str
    trial: Trial
    condition: Condition
    seed: int
    lexicon: str
    base: str
    evaluation: Evaluation
    head: HeadConfig = HeadConfig()


def screen(cfg: Config) -> dict[str, Any]:
    """Each method's best trial on `val`: {method: {learning_rate, strength, trials}}."""
    if cfg.base is None:
        raise OptionError("--screen needs --base, a base that has read the dev lexicon")
    seeds = range(SCREEN_SEEDS if cfg.seeds is None else cfg.seeds)
    job = functools.partial(
        Job,
        condition=cfg.conditions["A"],
        lexicon="dev",
        base=hub.fingerprint(cfg.base),
        evaluation=Evaluation((("val", cfg.val_items),)),
    )

    def choose(methods: Sequence[str], rate: float, title: str) -> dict[str, Any]:
        asked = [(m, trial) for m in methods for trial in trials(m, rate)]
        jobs = [job(method=m, trial=t, seed=seed) for m, t in asked for seed in seeds]
        records = run_all(jobs, cfg, cfg.base, title)
        return {m: choice([r for r in records if r["method"] == m]) for m in methods}

    first = choose(["bt"], RATES[0], "screen, Bradley-Terry")
    others = [method for method in dict.fromkeys((*cfg.methods, "frozen")) if method != "bt"]
    return first | choose(others, first["bt"]["learning_rate"], "screen, all others")


def confirm(cfg: Config, choices: Mapping[str, Any]) -> list[Record]:
    """The records of all parts, each run once, under the first part that asks for it."""
    base = toy.shipped_base()
    sides = [(split, cfg.side_items) for split in ("id", "ood_response", "spurious")]
    splits = (("val", cfg.val_items), *sides, ("ood_prompt", cfg.items))
    sampled = tuple((split, cfg.sample_items) for split in ("id", "ood_prompt"))
    final = Evaluation(splits, sampled)
    curves = Evaluation(splits, sampled, (("val", cfg.sample_items), *sampled), cfg.curve_points)
    key = hub.fingerprint(base)
    jobs: dict[Job, Part] = {}
    for part, arm in arms(cfg):
        if part not in cfg.parts:
            continue
        if arm.method not in choices:
            raise DataError(f"{cfg.choices} has no choice for {arm.method}: screen it first")
        chosen = choices[arm.method]
        strength = chosen["strength"] if arm.strength is None else arm.strength
        job = Job(
            arm.method,
            Trial(chosen["learning_rate"], strength),
            arm.condition,
            arm.seed,
            "report",
            key,
            curves if part == "curves" else final,
            arm.head,
        )
        jobs.setdefault(job, part)
    records = run_all(list(jobs), cfg, base, "confirm")
    return [record | {"part": part} for record, part in zip(records, jobs.values(), strict=True)]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A run of the confirmation: the method's chosen trial, but for a strength given here."""

    method: str
    condition: Condition
    seed: int
    strength: float | None = None
    head: HeadConfig = HeadConfig()


def arms(cfg: Config) -> Iterator[tuple[Part, Arm]]:
    """Every part's runs, the main part's first, and that seed by seed.

    So what is there when it is stopped is balanced, and jobs in a row share their data.
    """
    main, both = cfg.conditions["A"], ("bt", "grm_sft")
    seeds = range(FIRST_SEED, FIRST_SEED + (CONFIRM_SEEDS if cfg.seeds is None else cfg.seeds))
    exploring = seeds[:EXPLORING]
    methods = dict.fromkeys(("bt", *cfg.methods))
    for seed, condition, method in itertools.product(seeds, cfg.conditions.values(), methods):
        yield "main", Arm(method, condition, seed)
    sizes = [cfg.pairs // 4, cfg.pairs // 2, cfg.pairs, 2 * cfg.pairs]
    for seed, size, noise, method in itertools.product(exploring, sizes, (0.0, 0.25), both):
        condition = dataclasses.replace(main, pairs=size, label_noise=noise)
        yield "sizes", Arm(method, condition, seed)
    for seed, strength in itertools.product(exploring, STRENGTHS["grm_sft"]):
        yield "strengths", Arm("grm_sft", main, seed, strength=strength)
    for seed, layers, method in itertools.product(exploring, (1, 2), both):
        yield "heads", Arm(method, main, seed, head=HeadConfig("mlp", hidden=256, layers=layers))
    for seed in exploring:
        yield "frozen", Arm("frozen", main, seed)
    for seed, epochs, method in itertools.product(seeds[:CURVES], (1, 4), both):
        yield "curves", Arm(method, dataclasses.replace(main, epochs=epochs), seed)


def run_all(jobs: Sequence[Job], cfg: Config, base: Path, title: str) -> list[Record]:
    """The records of jobs from one base, in order."""
    here = functools.partial(run, base=base)
    return sweep(jobs, here, cfg.run_dir / "jobs", workers=cfg.workers, progress=title)


# How a job is run. What several jobs share is kept for the life of the process.

ABILITY = {"logps": heads.response_logps, "states": final_states}
"""What is read from a model beside its rewards."""


def run(job: Job, base: Path) -> Record:
    """Trains from the base at `base`, evaluates, and returns the record, without its part."""
    method, condition, evaluation = METHODS[job.method], job.condition, job.evaluation
    rates = {"label_noise": condition.label_noise, "cue_agreement": condition.cue_agreement}
    world = toy.World(seed=job.seed, lexicon=job.lexicon, **rates)
    lab = Lab(base, job.head)
    start = lab.start(job.seed)
    training = packed(lab, world, "train", condition.pairs, "all")
    trees, params = training.trees, start.params
    if method.fits_head:
        states = lab.read(start.params, training, ABILITY)["states"]
        weight = fit_head(list(states), training.comparisons)[:, None]
        params = params | {"reward_head": {"weight": weight.astype(np.float32)}}
    if method.knows_reference:
        trees = lab.with_references(training)

    def rewards(params: Params, split: str, n: int) -> dict[str, float]:
        with jax.set_mesh(mesh()):
            return of_rewards(start.structure, params, packed(lab, world, split, n))

    best, curve = -1.0, []
    points = EARLY_POINTS if method.stops_early else max(evaluation.points, 1)
    for point in train(lab, job, params, trees, points):
        if evaluation.points:
            found = {split: rewards(point.params, split, n) for split, n in evaluation.curves}
            curve.append({"step": point.step} | flat(found))
        value = point.step
        if method.stops_early:
            value = rewards(point.params, "val", EARLY_ITEMS)["macro"]
        if value > best:
            # Copied, because the next step takes their memory.
            best, stopped, kept = value, point.step, jax.tree.map(jnp.copy, point.params)

    figures = {
        split: rewards(kept, split, n) | {"language": None} for split, n in evaluation.splits
    }
    drift = {}
    for split, n in evaluation.sampled:
        sample = packed(lab, world, split, n, "all")
        found = lab.read(kept, sample, ABILITY)
        figures[split]["language"] = macro_accuracy(list(found["logps"]), sample.comparisons)
        drift[split] = cosine_distance(base_states(base, world, split, n), found["states"])
    return {
        "method": job.method,
        **dataclasses.asdict(job.trial),
        "condition": dataclasses.asdict(condition),
        "seed": job.seed,
        "head": {"kind": job.head.kind, "layers": job.head.layers},
        "splits": figures,
        "drift": drift,
        "stopped": stopped,
        "steps": point.steps,
        "curve": curve,
        "seconds": round(point.seconds, 2),
        "tokens": point.tokens,
    }


def flat(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """A point of the learning curves: "<split>/<figure>"."""
    names = ("macro", "loss")
    return {f"{split}/{name}": of[name] for split, of in figures.items() for name in names}


def train(
    lab: Lab, job: Job, params: Params, trees: Sequence[TokenTree], points: int
) -> Iterator[Point]:
    """The job's model at each of `points` equal parts of its training, which begins at `params`."""
    recipe = METHODS[job.method].recipe
    return lab.train(
        recipe,
        trees,
        rate=job.trial.learning_rate,
        strength=job.trial.strength,
        epochs=job.condition.epochs,
        seed=job.seed,
        params=params,
        texts=text_trees(lab, job.lexicon) if recipe.text else (),
        points=points,
    )


@functools.lru_cache(maxsize=64)
def packed(lab: Lab, world: toy.World, split: str, n: int, ask: Ask = "none") -> Packed:
    """The first n comparisons of a split."""
    return lab.pack(world.comparisons(split, n), ask)


@functools.lru_cache(maxsize=2)
def text_trees(lab: Lab, lexicon: str) -> list[TokenTree]:
    """Text that the base has read (it is that of seed 0), in parts that fit a row."""
    text = toy.World(seed=0, lexicon=lexicon).pretraining_text(TEXTS)
    return [part for tree in lab.trees(text) for part in packing.split(tree, lab.length)]


@functools.lru_cache(maxsize=8)
def base_states(base: Path, world: toy.World, split: str, n: int) -> np.ndarray:
    """Float32 [n, 2, d]: the untrained states that rewards are to be read from."""
    lab = Lab(base)
    return lab.read(lab.start(0).params, packed(lab, world, split, n, "all"), ABILITY)["states"]


def main(cfg: Config) -> None:
    """Runs the asked stage, and writes what it found."""
    page = cfg.page or cfg.run_dir / "results.md"
    files.check_apart(cfg.run_dir, [cfg.base])
    files.check_apart(page, [cfg.base, cfg.report, cfg.choices])
    if cfg.screen:
        choices = screen(cfg)
        path = cfg.run_dir / "choices.json"
        with files.replacing(path) as draft:
            draft.write_text(json.dumps(choices, indent=2) + "\n", encoding="utf-8")
        print(f"{choices_table(choices)}\n\n{path}")
        return
    if not cfg.choices.is_file():
        raise DataError(f"{cfg.choices} does not exist: --screen makes the choices")
    if cfg.report is not None and not cfg.report.is_file():
        raise DataError(f"{cfg.report} does not exist: --confirm makes the records")
    choices = json.loads(cfg.choices.read_bytes())
    if cfg.report is None:
        records = confirm(cfg, choices)
        with files.replacing(cfg.run_dir / "records.jsonl") as draft:
            draft.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    else:
        records = [json.loads(line) for line in cfg.report.read_text("utf-8").splitlines()]
    write(records, choices, page)
    print(page)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
