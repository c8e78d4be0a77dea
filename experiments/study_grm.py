"""Does GRM generalise better than controls that were tuned as hard? A study on the toy world.

    python -m experiments.grm_gemma --lexicon dev --pretrain --run-dir runs/dev
    python -m experiments.study_grm --screen --base runs/dev/base/export --run-dir runs/screen
    python -m experiments.study_grm --confirm --run-dir runs/study_grm

GRM (arXiv 2406.10216) keeps the language model beside the reward head and claims better rewards
out of distribution. Here its three variants meet Bradley-Terry and what else might do the same:
early stopping, fitting the head before the rest (arXiv 2202.10054), a pull to the initial weights
(arXiv 1802.01483), and replay of the pretraining text. Every method gets four trials.

`--screen` tries them on the "dev" lexicon, reads `val` alone, and writes the choices. `--confirm`
takes the choices of `study_grm_choices.json` to the "report" lexicon and to seeds that no choice
has seen, evaluates on all splits, and writes the page (see jaxrm.study_report). Every training run
is a file of RUN/jobs; the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from experiments import grm_gemma
from jaxrm import cli, files, parallel, study_report
from jaxrm.data import chat, packing, planning, toy
from jaxrm.data.comparison import Comparison
from jaxrm.data.loader import Loader
from jaxrm.data.packing import Ask, PackedBatch, PackShape, TokenTree
from jaxrm.errors import DataError, OptionError, require
from jaxrm.evaluate.accuracy import accuracy, macro_accuracy
from jaxrm.evaluate.probe import final_states, fit_head
from jaxrm.models import heads, hub, transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel
from jaxrm.reference import fingerprint
from jaxrm.score import Reading
from jaxrm.study_report import Condition, Trial
from jaxrm.train.optimizer import OptimizerConfig, make_schedule
from jaxrm.train.state import Params, TrainState, abstract_state, create_state, join, shardings_of
from jaxrm.train.step import TrainStep, make_train_step
from jaxrm.train.sweep import Record, sweep
from jaxrm.train.terms import LossFn, Term, Terms

Part = Literal["main", "sizes", "strengths", "heads", "frozen", "curves"]

RATES = (3e-5, 1e-4, 3e-4, 1e-3)
"""What Bradley-Terry's learning rate is chosen from."""

HEAD_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
"""The same where the head alone trains."""

STRENGTHS = {
    "l2": (10.0, 30.0, 100.0, 300.0),
    "replay": (0.03, 0.1, 0.3, 0.6),
    "grm_sft": (0.01, 0.03, 0.1, 0.3),
    "grm_dpo": (0.1, 0.3),
    "grm_dpo_reference_free": (0.1, 0.3),
}
"""What a method's strength is chosen from: at Bradley-Terry's learning rate, and where there are
two strengths, at the next lower one too. A pull of L2 acts for `learning_rate x steps`, so that it
has to be large."""

MAIN_METHODS = study_report.MAIN
SCREEN_SEEDS, CONFIRM_SEEDS, EXPLORING, CURVES = 5, 12, 5, 3
"""How many: of the screen (from 0 on), and of the confirmation's part main, its other parts, and
its learning curves."""
FIRST_SEED = 100
"""Where the confirmation's seeds begin."""

WARMUP, CLIP = 0.03, 5.0
EARLY_POINTS, EARLY_ITEMS = 6, 500
"""Where `bt_early` looks, and at how many comparisons of `val`."""
TEXTS = 1000
"""Questions of the pretraining text that replay draws from."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The GRM study: choose on one lexicon, confirm on another."""

    screen: bool = False
    """Tune every method on `val` of the dev lexicon; needs --base."""
    confirm: bool = False
    """Measure the chosen trials on the report lexicon and its shipped base."""
    base: Path | None = None
    """The base of the screen, which has read the dev lexicon."""
    run_dir: Path = Path("runs/study_grm")
    choices: Path = Path(__file__).with_name("study_grm_choices.json")
    """What the screen chose, as --confirm reads it. A screen writes RUN/choices.json."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""
    methods: tuple[str, ...] = MAIN_METHODS
    """What the part main compares; a screen tries `frozen` too. Bradley-Terry is always among
    them."""
    parts: tuple[Part, ...] = ("main", "sizes", "strengths", "heads", "frozen", "curves")
    """What --confirm runs."""
    seeds: int | None = None
    """How many; 5 for the screen and 12 to confirm without it (and 5 for all but the main part)."""
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
        one = self.screen != self.confirm
        require(one, "--screen, --confirm", "given one at a time", (self.screen, self.confirm))
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


# What is run: jobs


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


def trials(method: str, rate: float) -> tuple[Trial, ...]:
    """The four settings that a method may choose from, given Bradley-Terry's learning rate."""
    if method not in STRENGTHS:
        rates = HEAD_RATES if method == "frozen" else RATES
        return tuple(Trial(rate, None) for rate in rates)
    strengths = STRENGTHS[method]
    rates = [rate] if len(strengths) == 4 else [_lower(rate), rate]
    return tuple(Trial(*setting) for setting in itertools.product(rates, strengths))


def _lower(rate: float) -> float:
    """The next lower of `RATES`; the next higher one of the lowest, so that there are always
    two."""
    place = RATES.index(rate)
    return RATES[place - 1] if place else RATES[1]


def screen(cfg: Config) -> dict[str, Any]:
    """Each method's best trial on `val`: {method: {learning_rate, strength, trials}}."""
    if cfg.base is None:
        raise OptionError("--screen needs --base, a base that has read the dev lexicon")
    seeds = range(SCREEN_SEEDS if cfg.seeds is None else cfg.seeds)
    job = functools.partial(
        Job,
        condition=cfg.conditions["A"],
        lexicon="dev",
        base=fingerprint(cfg.base),
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


def choice(records: Sequence[Record]) -> dict[str, Any]:
    """The trial of one method's records with the best mean of family-macro accuracy on `val`.

    Of equal ones it is the first, the one with less of everything.
    """
    settings: dict[tuple[float, float | None], list[float]] = {}
    for record in records:
        setting = record["learning_rate"], record["strength"]
        settings.setdefault(setting, []).append(record["splits"]["val"]["macro"])
    tried = [
        {
            "learning_rate": rate,
            "strength": strength,
            "mean": float(np.mean(values)),
            "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values)))
            if len(values) > 1
            else None,
            "n": len(values),
        }
        for (rate, strength), values in settings.items()
    ]
    best = max(tried, key=lambda trial: trial["mean"])
    return {"learning_rate": best["learning_rate"], "strength": best["strength"], "trials": tried}


def choices_table(choices: Mapping[str, Any]) -> str:
    """All trials as lines of text, the chosen ones marked."""
    lines = [f"{'method':24}{'rate':>8}{'strength':>10}  val, %"]
    for method, chosen in choices.items():
        for trial in chosen["trials"]:
            picked = all(trial[name] == chosen[name] for name in ("learning_rate", "strength"))
            strength = "" if trial["strength"] is None else f"{trial['strength']:g}"
            error = trial["standard_error"]
            spread = "" if error is None else f" ± {100 * error:.1f}"
            figures = f"{100 * trial['mean']:.1f}{spread}{' <' if picked else ''}"
            lines.append(f"{method:24}{trial['learning_rate']:8g}{strength:>10}  {figures}")
    return "\n".join(lines)


def confirm(cfg: Config, choices: Mapping[str, Any]) -> list[Record]:
    """The records of all parts, each run once, under the first part that asks for it."""
    base = toy.shipped_base()
    sides = [(split, cfg.side_items) for split in ("id", "ood_response", "spurious")]
    splits = (("val", cfg.val_items), *sides, ("ood_prompt", cfg.items))
    sampled = tuple((split, cfg.sample_items) for split in ("id", "ood_prompt"))
    final = Evaluation(splits, sampled)
    curves = Evaluation(splits, sampled, (("val", cfg.sample_items), *sampled), cfg.curve_points)
    key = fingerprint(base)
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
    workers = cfg.workers
    if workers is None:
        workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    here = functools.partial(run, base=base)
    return sweep(jobs, here, cfg.run_dir / "jobs", workers=workers, progress=title)


# What is compared: methods


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithText:
    """Pairs, and pretraining text beside them."""

    pairs: PackedBatch
    text: PackedBatch

    @property
    def comparison(self) -> jax.Array:
        """Of all tokens, -1 on padding: what the train step counts."""
        return jnp.concatenate([self.pairs.comparison.ravel(), self.text.comparison.ravel()])


def bradley_terry(strength: float | None) -> LossFn:
    """The baseline, as the experiment trains it."""
    return functools.partial(grm_gemma.loss_fn, name="baseline", cfg=grm_gemma.Config())


def grm(strength: float, *, regularizer: str) -> LossFn:
    """(1 - strength) Bradley-Terry + strength text generation."""
    cfg = grm_gemma.Config(regularizer=regularizer, alpha=strength)
    return functools.partial(grm_gemma.loss_fn, name="grm", cfg=cfg)


def replay(strength: float) -> LossFn:
    """(1 - strength) Bradley-Terry + strength the mean loss of a token of pretraining text."""

    def loss_fn(model: RewardModel, batch: WithText, rng: jax.Array) -> Terms:
        terms = dict(bradley_terry(None)(model, batch.pairs, rng))
        terms["reward"] = dataclasses.replace(terms["reward"], coefficient=1 - strength)
        logps = heads.target_logps(model, model.hidden(batch.text), batch.text)
        return terms | {"text": Term(strength, -logps, batch.text.target_mask)}

    return loss_fn


def adam(learning_rate: float, strength: float | None) -> optax.GradientTransformation:
    """Adam with clipping, at a constant rate."""
    return optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(learning_rate),
    )


def pulled_adam(learning_rate: float, strength: float) -> optax.GradientTransformation:
    """The same with `strength` of a decay like AdamW's, to the initial weights instead of to 0."""
    return optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.scale_by_adam(),
        pull_to_start(strength),
        optax.scale_by_learning_rate(learning_rate),
    )


def pull_to_start(strength: float) -> optax.GradientTransformation:
    """Adds strength x (what the weights are - what they were) to the updates (L2-SP, arXiv
    1802.01483, decoupled from the gradient's moments as in arXiv 1711.05101)."""

    def init(params: optax.Params) -> optax.Params:
        return jax.tree.map(jnp.copy, params)

    def update(updates: optax.Updates, start: optax.Params, params: optax.Params):
        pulled = jax.tree.map(
            lambda u, now, then: u + strength * (now - then), updates, params, start
        )
        return pulled, start

    return optax.GradientTransformation(init, update)


def everything(path: str) -> bool:
    """All parameters train."""
    return True


def head_alone(path: str) -> bool:
    """The reward head trains."""
    return path.startswith("reward_head")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is compiled for a method: equal recipes share a compilation at equal strengths.

    Attributes:
      loss: its loss function at a strength.
      optimizer: at a learning rate and a strength.
      trains: which parameters.
      ask: whose tokens its language model is asked to predict.
      text: whether batches bring pretraining text.
    """

    loss: Callable[[float | None], LossFn] = bradley_terry
    optimizer: Callable[[float, float | None], optax.GradientTransformation] = adam
    trains: Callable[[str], bool] = everything
    ask: Ask = "none"
    text: bool = False


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train a reward model.

    Attributes:
      recipe: of its steps.
      fits_head: the head starts from a fit to the training pairs on the base's states.
      knows_reference: pairs bring the base's log-probs.
      stops_early: the parameters that count are those that were best on `val`.
    """

    recipe: Recipe = Recipe()
    fits_head: bool = False
    knows_reference: bool = False
    stops_early: bool = False


METHODS = {
    "bt": Method(),
    "bt_early": Method(stops_early=True),
    "lp_ft": Method(fits_head=True),
    "l2": Method(Recipe(optimizer=pulled_adam)),
    "replay": Method(Recipe(replay, text=True)),
    "grm_sft": Method(Recipe(functools.partial(grm, regularizer="sft"), ask="best")),
    "grm_dpo": Method(
        Recipe(functools.partial(grm, regularizer="dpo"), ask="all"), knows_reference=True
    ),
    "grm_dpo_reference_free": Method(
        Recipe(functools.partial(grm, regularizer="dpo_reference_free"), ask="all")
    ),
    "frozen": Method(Recipe(trains=head_alone)),
}


# How a job is run. What several jobs share is kept for the life of the process.

ROWS, TEXT_ROWS, LENGTH = 8, 2, 160
"""Rows of a batch of pairs, and of text beside it, and tokens of a row."""

REWARDS: tuple[tuple[str, Reading], ...] = (("rewards", heads.rewards),)
ABILITY: tuple[tuple[str, Reading], ...] = (
    ("logps", heads.response_logps),
    ("states", final_states),
)


def run(job: Job, base: Path) -> Record:
    """Trains from the base at `base`, evaluates, and returns the record, without its part."""
    logging.getLogger(hub.__name__).setLevel(logging.ERROR)  # that a head is fresh is no news
    method, condition, evaluation = METHODS[job.method], job.condition, job.evaluation
    rates = {"label_noise": condition.label_noise, "cue_agreement": condition.cue_agreement}
    world = toy.World(seed=job.seed, lexicon=job.lexicon, **rates)
    start = load(base, job.head, job.seed)
    training = packed(world, "train", condition.pairs, "all")
    trees, params = training.trees, start.params
    with jax.set_mesh(mesh()):
        if method.fits_head:
            states = read(start.structure, start.params, training, ABILITY)["states"]
            weight = fit_head(list(states), training.comparisons)[:, None]
            params = params | {"reward_head": {"weight": weight.astype(np.float32)}}
        if method.knows_reference:
            logps = read(start.structure, start.params, training, ABILITY)["logps"]
            trees = [
                dataclasses.replace(tree, reference_logps=tuple(of_tree))
                for tree, of_tree in zip(trees, logps.tolist(), strict=True)
            ]

        def rewards(params: Params, split: str, n: int) -> dict[str, Any]:
            return of_rewards(start.structure, params, packed(world, split, n))

        best, curve = -1.0, []
        points = EARLY_POINTS if method.stops_early else max(evaluation.points, 1)
        for point in train(job, base, params, trees, points):
            if evaluation.points:
                found = {split: rewards(point.params, split, n) for split, n in evaluation.curves}
                curve.append({"step": point.step} | flat(found))
            value = point.step
            if method.stops_early:
                value = rewards(point.params, "val", EARLY_ITEMS)["macro"]
            if value > best:
                # Copied, because the next step takes their memory.
                best, stopped, kept = value, point.step, jax.tree.map(jnp.copy, point.params)

        figures = {split: rewards(kept, split, n) for split, n in evaluation.splits}
        drift = {}
        for split, n in evaluation.sampled:
            sample = packed(world, split, n, "all")
            found = read(start.structure, kept, sample, ABILITY)
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


@dataclasses.dataclass(frozen=True)
class Point:
    """A model in the course of its training, and what it has cost so far."""

    step: int
    steps: int
    params: Params
    seconds: float
    tokens: int


def train(
    job: Job, base: Path, params: Params, trees: Sequence[TokenTree], points: int
) -> Iterator[Point]:
    """Trains from `params`, and stops to be looked at after each of `points` equal parts.

    A point's parameters are gone with the next step; its seconds hold neither the looking nor the
    compilation.
    """
    recipe = METHODS[job.method].recipe
    tools = trainer(recipe, job.trial.strength, base, job.head)
    loader = Loader(trees, pair_shape(recipe.ask), mesh=mesh(), seed=job.seed)
    batches: Iterator[Any] = loader.batches(0)
    if recipe.text:
        texts = Loader(text_trees(job.lexicon), TEXT_SHAPE, mesh=mesh(), seed=job.seed)
        batches = map(WithText, batches, texts.batches(0))
    steps = loader.steps(job.condition.epochs)
    config = OptimizerConfig(learning_rate=job.trial.learning_rate, warmup=WARMUP)
    rates = np.asarray(make_schedule(config, steps)(np.arange(steps)), np.float32)
    stops = {round(part * steps / points) for part in range(1, points + 1)}

    state = create_state(params, tools.optimizer, tools.abstract, seed=job.seed)
    seconds, tokens, since = 0.0, [], time.perf_counter()
    for step in range(1, steps + 1):
        state, metrics = tools.step(at_rate(state, rates[step - 1]), next(batches))
        tokens.append(metrics["tokens"])
        if step in stops:
            jax.block_until_ready(state)
            seconds += time.perf_counter() - since
            model = join(state.trainable, state.frozen)
            yield Point(step, steps, model, seconds, sum(map(int, jax.device_get(tokens))))
            since = time.perf_counter()


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """A compiled step, and the state that it takes."""

    step: TrainStep
    optimizer: optax.GradientTransformation
    abstract: TrainState


@functools.cache
def trainer(recipe: Recipe, strength: float | None, base: Path, head: HeadConfig) -> Trainer:
    """One compilation for all learning rates, conditions, lengths of run and seeds."""
    start = load(base, head, 0)
    # The rate is a part of the state, and the schedule is left to whoever runs the steps.
    optimizer = optax.inject_hyperparams(recipe.optimizer, static_args="strength")(
        learning_rate=0.0, strength=strength
    )
    layout = {"mesh": mesh(), "rules": grm_gemma.RULES, "trainable": recipe.trains}
    abstract = abstract_state(start.params, start.axes, optimizer, **layout)
    step = make_train_step(
        recipe.loss(strength), start.structure, optimizer, shardings_of(abstract)
    )
    batch: Any = packing.pack([], [], pair_shape(recipe.ask))
    if recipe.text:
        batch = WithText(batch, packing.pack([], [], TEXT_SHAPE))
    window = jax.tree.map(lambda leaf: leaf[None], batch)
    placed = parallel.shard_rows(window, mesh(), leading=1)
    return Trainer(step.lower(abstract, placed).compile(), optimizer, abstract)


def at_rate(state: TrainState, rate: np.float32) -> TrainState:
    """The state whose next step has this learning rate."""
    held = state.optimizer.hyperparams | {"learning_rate": rate}
    return dataclasses.replace(state, optimizer=state.optimizer._replace(hyperparams=held))


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A model before training, its parameters in the host's memory."""

    structure: nnx.GraphDef
    axes: Params
    params: Params


@functools.lru_cache(maxsize=8)
def load(base: Path, head: HeadConfig, seed: int) -> Start:
    """The base with a head drawn from `seed`."""
    model = hub.load(base, head, seed=seed)
    structure, params = transformer.split(model)
    return Start(structure, transformer.axes(model), jax.tree.map(np.array, params))


@functools.cache
def mesh() -> Mesh:
    """One device: a job has a process to itself, and is too small for two."""
    return parallel.make_mesh(devices=jax.devices()[:1])


@functools.cache
def tokenizer() -> chat.ChatTokenizer:
    """The world's, which all its bases have."""
    return chat.load_tokenizer(toy.TOKENIZER)


def pair_shape(ask: Ask) -> PackShape:
    """One shape for the training data of all jobs.

    It is set by the row's length, not fitted to data: a text of this world has far more than the 8
    tokens that a slot takes here, so that a row is full before its slots are, and so it is with
    the targets, of which a best response has no more than half of its comparison's tokens. Then
    what a batch holds does not depend on `ask`, and methods see the same pairs in the same batches.
    The price is logits at masked targets, a few percent of a step.
    """
    slots = LENGTH // 8
    targets = {"none": 0, "best": LENGTH // 2, "all": LENGTH}[ask]
    capacities = {"slots": slots, "pairs": slots // 2, "groups": slots // 2, "targets": targets}
    return PackShape(ROWS, LENGTH, **capacities, group_size=2, ask=ask)


def scoring_shape(ask: Ask) -> PackShape:
    """The same without preferences, for what is only read."""
    return dataclasses.replace(pair_shape(ask), pairs=0, groups=0, group_size=0)


TEXT_SHAPE = dataclasses.replace(scoring_shape("all"), rows=TEXT_ROWS)


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Comparisons of two responses, their trees, and batches of them to read."""

    comparisons: list[Comparison]
    trees: list[TokenTree]
    batches: list[PackedBatch]


@functools.lru_cache(maxsize=64)
def packed(world: toy.World, split: str, n: int, ask: Ask = "none") -> Packed:
    """The first n comparisons of a split, in batches of one shape for all of them."""
    comparisons = world.comparisons(split, n)
    trees = chat.tokenize(comparisons, tokenizer())
    shape, offsets = scoring_shape(ask), packing.response_offsets(trees)
    sizes = packing.measure(trees, ask=ask, preferences=False)
    plan = planning.plan_rows(sizes, shape.capacity, np.arange(n))
    rows = range(0, len(plan), shape.rows)
    batches = [packing.pack(trees, plan[i : i + shape.rows], shape, offsets) for i in rows]
    return Packed(comparisons, trees, batches)


@functools.lru_cache(maxsize=2)
def text_trees(lexicon: str) -> list[TokenTree]:
    """Text that the base has read (it is that of seed 0), in parts that fit a row."""
    text = toy.World(seed=0, lexicon=lexicon).pretraining_text(TEXTS)
    trees = chat.tokenize(text, tokenizer())
    return [part for tree in trees for part in packing.split(tree, LENGTH)]


def read(
    structure: nnx.GraphDef,
    params: Params,
    data: Packed,
    readings: tuple[tuple[str, Reading], ...],
) -> dict[str, np.ndarray]:
    """Float32 [n, 2, ...] for each reading: what it says of every response, in order."""
    params = jax.device_put(params)
    values = [_read_batch(structure, params, batch, readings) for batch in data.batches]
    found: dict[str, np.ndarray] = {}
    for batch, of_batch in zip(data.batches, jax.device_get(values), strict=True):
        places = batch.response_index[batch.response_mask]
        for name, value in of_batch.items():
            shape = (2 * len(data.trees), *value.shape[2:])
            found.setdefault(name, np.zeros(shape, np.float32))[places] = value[batch.response_mask]
    return {name: value.reshape(-1, 2, *value.shape[1:]) for name, value in found.items()}


@functools.partial(jax.jit, static_argnames=("structure", "readings"))
def _read_batch(
    structure: nnx.GraphDef,
    params: Params,
    batch: PackedBatch,
    readings: tuple[tuple[str, Reading], ...],
) -> dict[str, jax.Array]:
    model = transformer.merge(structure, params)
    hidden = model.hidden(batch)
    return {name: reading(model, hidden, batch) for name, reading in readings}


@functools.lru_cache(maxsize=8)
def base_states(base: Path, world: toy.World, split: str, n: int) -> np.ndarray:
    """Float32 [n, 2, d]: the untrained states that rewards are to be read from."""
    start = load(base, HeadConfig(), 0)
    return read(start.structure, start.params, packed(world, split, n, "all"), ABILITY)["states"]


def of_rewards(structure: nnx.GraphDef, params: Params, data: Packed) -> dict[str, Any]:
    """Accuracy, family-macro and plain, and the mean Bradley-Terry loss in nats.

    What the language model says is None until it is asked.
    """
    rewards = read(structure, params, data, REWARDS)["rewards"].astype(np.float64)
    strict = accuracy(list(rewards), data.comparisons)
    return {
        "macro": macro_accuracy(list(rewards), data.comparisons),
        "accuracy": strict.accuracy,
        "n": strict.n,
        "loss": float(np.logaddexp(0.0, rewards[:, 1] - rewards[:, 0]).mean()),
        "language": None,
    }


def flat(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """A point of the learning curves: "<split>/<figure>"."""
    return {
        f"{split}/{name}": found[name]
        for split, found in figures.items()
        for name in ("macro", "loss")
    }


def cosine_distance(before: np.ndarray, after: np.ndarray) -> float:
    """1 - cosine of two arrays' last axis, the mean over all others."""
    norms = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    return float(np.mean(1 - (before * after).sum(-1) / norms))


def main(cfg: Config) -> None:
    """Runs the asked stage, and writes what it found."""
    if cfg.screen:
        choices = screen(cfg)
        path = cfg.run_dir / "choices.json"
        with files.replacing(path) as draft:
            draft.write_text(json.dumps(choices, indent=2) + "\n", encoding="utf-8")
        print(f"{choices_table(choices)}\n\n{path}")
        return
    if not cfg.choices.is_file():
        raise DataError(f"{cfg.choices} does not exist: --screen makes the choices")
    choices = json.loads(cfg.choices.read_bytes())
    records = confirm(cfg, choices)
    page = cfg.run_dir / "results.md"
    study_report.write(records, choices, page, cfg.run_dir / "figures", cfg.conditions)
    print(page)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
