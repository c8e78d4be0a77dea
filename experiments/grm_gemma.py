"""GRM on Gemma (arXiv 2406.10216): a reward head regularised by keeping the model able to write.

    python -m experiments.grm_gemma                               # the toy world, on a laptop
    python -m experiments.grm_gemma --preset gemma-2b-it-lora --base DIR --data SOURCE --eval SOURCE

Trains reward models from the same base, on the same pairs in the same order, with the same head: a
Bradley-Terry `baseline`, and `grm`, whose loss keeps a share alpha for text generation with the
language-model head (and, if asked for, the paper's other baselines). Then it scores all on every
split, in and out of distribution, and reports their accuracy beside what is left of their language
ability. Without --base, the base is a small Gemma that ships with the toy world; --pretrain makes
it from nothing first.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from jaxrm import cli, parallel, toy
from jaxrm.data import chat, planning, sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.loader import Loader
from jaxrm.data.packing import Ask, PackedBatch
from jaxrm.data.sources import Source
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.data.training import training_set
from jaxrm.errors import DataError, OptionError, require
from jaxrm.evaluate.probe import probe
from jaxrm.huggingface import adapter, card, families, hub, vocabulary
from jaxrm.losses import generation, preference
from jaxrm.models import heads, transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.read import packed, splits
from jaxrm.read.reference import reference_logps
from jaxrm.report import run as report
from jaxrm.train import rundir
from jaxrm.train.best import Best
from jaxrm.train.loop import fit
from jaxrm.train.optimizer import OptimizerConfig
from jaxrm.train.rundir import check_inputs, open_run
from jaxrm.train.terms import Term, Terms, reward_monitors

Name = Literal["baseline", "margin", "label_smoothed", "grm"]
Preset = Literal[
    "toy",
    "gemma-2b-it-lora",
    "gemma-2b-it-full",
    "mistral-7b-instruct-lora",
    "llama-3-8b-instruct-full",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """Reward models from one base, compared. The defaults are the toy's; --preset gives others."""

    preset: Preset = "toy"
    """What the other options start from: the toy's values, or the official recipe's."""
    run_dir: Path = Path("runs/grm_gemma")
    """Where everything goes; the same command with the same directory resumes."""
    base: Path | None = None
    """A Gemma, Llama, Mistral or Qwen directory in Hugging Face layout; the toy base without it."""
    chat_template: Path | None = None
    """A file with the chat template, for a base that brings none."""
    data: tuple[str, ...] = ()
    """What to train on: files, directories, names on the Hub or in TFDS (see jaxrm.data.sources);
    the toy world's pairs without."""
    eval: tuple[str, ...] = ()
    """What to evaluate on, likewise; each is a split under its own name."""
    pretrain: bool = False
    """Make the toy base from nothing instead of taking the shipped one."""
    lexicon: Literal["report", "dev"] = "report"
    """The toy world's words and facts: choices are made on "dev", whose base must be made first."""
    documents: int = 40_000
    """Questions whose answers --pretrain reads, once."""

    models: tuple[Name, ...] = ("baseline", "grm")
    """What to train: Bradley-Terry alone, the same with the data's margins or with smoothed labels,
    and GRM."""
    regularizer: Literal["sft", "nll", "dpo", "dpo_reference_free"] = "sft"
    """What GRM's language-model head is trained for."""
    alpha: float = 0.1
    """The regulariser's share of GRM's loss."""
    beta: float = 0.1
    """The regulariser's inverse temperature."""
    smoothing: float = 0.1
    """The share of labels that `label_smoothed` believes to be wrong."""
    reference_cache: Path | None = None
    """Where log-probs of DPO's reference are kept between runs; in the run directory without it."""
    head: HeadConfig = HeadConfig()
    """The reward head of all models."""
    export_language_model: bool = False
    """Also export each model with its language-model head, as a ...ForCausalLM."""
    train: Literal["all", "lora", "head"] = "all"
    """Which parameters train: all of them, low-rank updates and the head, or the head alone."""
    lora: LoraConfig = LoraConfig()
    """The low-rank updates of --train lora."""

    seed: int = 0
    steps: int | None = None
    """Optimizer steps of each reward model; --epochs over the data without it."""
    epochs: int = 1
    pairs: int = 2000
    """Training pairs of the toy world."""
    held_out: int = 2000
    """Comparisons per split of the toy world."""
    max_length: int = 128
    """Longest prompt + response that is trained on, in tokens; longer ones are dropped and
    counted."""
    truncate_prompt: bool = False
    """Cut the oldest tokens of a prompt that is too long instead; a response is never cut."""
    group_prompts: bool = False
    """All comparisons of one prompt in the same optimizer step."""
    rows: int = 8
    """Rows per micro-batch, over all devices."""
    row_length: int = 160
    """Tokens per row."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    learning_rate: float = 3e-4
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 5.0

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in, and is kept in where it is frozen; heads, losses and all that
    trains are float32."""
    remat: Literal["none", "dots", "full"] = "none"
    mesh: parallel.MeshShape = parallel.MeshShape()
    log_every: int = 10
    checkpoint_every: int = 100
    keep: int = 3
    """How many of the newest checkpoints stay."""
    select: Literal["last", "best"] = "last"
    """Which step's model counts: the last, or the one most accurate on the split `val`."""
    eval_every: int = 0
    """Steps between points of the held-out curves; 0: ten points over the run."""
    eval_sample: int = 200
    """Comparisons per split for the held-out curves; the final evaluation takes all, and so does
    --select best of `val`."""

    def __post_init__(self):
        counts = ("epochs", "pairs", "held_out", "documents", "rows", "row_length", "max_length")
        counts += ("accumulate", "log_every", "checkpoint_every", "keep", "eval_sample")
        for name in counts:
            option, value = f"--{name.replace('_', '-')}", getattr(self, name)
            require(value >= 1, option, "at least 1", value)
        require(self.steps is None or self.steps >= 1, "--steps", "at least 1", self.steps)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.eval_every >= 0, "--eval-every", "at least 0", self.eval_every)
        require(0 <= self.alpha <= 1, "--alpha", "a share in [0, 1]", self.alpha)
        require(self.beta > 0, "--beta", "above 0", self.beta)
        require(0 <= self.smoothing < 0.5, "--smoothing", "a share in [0, 0.5)", self.smoothing)
        once = 0 < len(self.models) == len(set(self.models))
        require(once, "--models", "names, each once, at least one", self.models)
        require(self.head.outputs == 1, "--head.outputs", "1, a reward", self.head.outputs)
        self.optimizer()  # refuses what is out of range before anything is read

    @property
    def trunk_dtype(self) -> str:
        """What the trunk's parameters are kept in: whatever trains is float32."""
        return "float32" if self.train == "all" else self.dtype

    def trains(self, path: str) -> bool:
        """Whether the parameter at this path trains."""
        return self.train == "all" or path.startswith(("reward_head", "lora"))

    def optimizer(self) -> OptimizerConfig:
        """AdamW with a cosine, as every reward model is trained."""
        return OptimizerConfig(
            learning_rate=self.learning_rate,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            clip=self.clip,
        )


# The reference recipe (its scripts for gemma-2b-it): LoRA on the attention of a bfloat16 trunk, and
# full fine-tuning. Batches there count pairs, 24 and 256; here a step holds as many as fit into
# rows x row_length x accumulate tokens, which is those at some 700 tokens a pair.
_LORA = dataclasses.replace(
    Config(),
    preset="gemma-2b-it-lora",
    alpha=0.01,
    head=HeadConfig("mlp", dropout=0.1),
    train="lora",
    epochs=2,
    max_length=1024,
    rows=8,
    row_length=2048,
    learning_rate=1e-5,
    dtype="bfloat16",
    remat="full",
)
_FULL = dataclasses.replace(
    _LORA,
    preset="gemma-2b-it-full",
    train="all",
    epochs=1,
    max_length=3000,
    row_length=6144,
    accumulate=4,
    learning_rate=5e-6,
)
# The toy's learning rate was chosen on its `dev` lexicon by `val` alone, to which any alpha between
# .01 and .3 is the same (`study_grm_choices.json`). The recipe's scripts hold no values of their
# own for the last two families.
PRESETS: dict[Preset, Config] = {
    "toy": Config(),
    "gemma-2b-it-lora": _LORA,
    "gemma-2b-it-full": _FULL,
    "mistral-7b-instruct-lora": dataclasses.replace(_LORA, preset="mistral-7b-instruct-lora"),
    "llama-3-8b-instruct-full": dataclasses.replace(_FULL, preset="llama-3-8b-instruct-full"),
}

METHODS: dict[Name, str] = {
    "baseline": "Trained as a Bradley-Terry model of preferences alone.",
    "margin": "Trained as a Bradley-Terry model whose rewards are to differ by the data's margins.",
    "label_smoothed": "Trained as a Bradley-Terry model with smoothed labels.",
    "grm": "Trained as a generalizable reward model (GRM, [arXiv 2406.10216]"
    "(https://arxiv.org/abs/2406.10216)): a Bradley-Terry model of preferences whose hidden states "
    "also serve a language-model head, which a text-generation loss keeps able to write.",
}
"""What a model's card says of its training."""

RULES = parallel.ShardingRules()
"""Which logical axis of a parameter lies over which axis of the mesh."""


def loss_fn(
    model: RewardModel, batch: PackedBatch, rng: jax.Array, *, name: Name, cfg: Config
) -> Terms:
    """(1 - alpha) Bradley-Terry + alpha text generation for `grm`, a preference loss else.

    Equal to the official recipe's losses (tests/test_grm_losses.py), but for choices of our own:
    the white space that a template writes after a turn is read for the reward and is no language-
    model target; in a response of several turns only the assistant's are targets; and a text has
    one BOS, where the recipe's Gemma runs have two. The head's dropout acts in training alone; the
    recipe's scorer leaves it on.
    """
    alpha = cfg.alpha if name == "grm" else 0.0
    for_lora, for_head = jax.random.split(rng)
    hidden = model.hidden(batch, for_lora)
    rewards = heads.rewards(model, hidden, batch, for_head)
    per_pair = batch.pair_weight * batch.pair_mask
    reward = Term(1 - alpha, reward_loss(rewards, batch, name, cfg), per_pair)
    terms = {"reward": reward, **reward_monitors(rewards, batch)}
    if alpha == 0:
        return terms
    logps = heads.response_logps(model, hidden, batch)
    if cfg.regularizer in ("dpo", "dpo_reference_free"):
        contrast = contrastive_loss(logps, batch, cfg)
        return terms | {"text": Term(alpha, contrast, per_pair)}
    # The best response counts once per comparison, not once per pair that it wins.
    best = batch.best(logps)
    text = generation.sft(best, cfg.beta) if cfg.regularizer == "sft" else generation.nll(best)
    return terms | {"text": Term(alpha, text, batch.best_mask)}


def reward_loss(rewards: jax.Array, batch: PackedBatch, name: Name, cfg: Config) -> jax.Array:
    """Float32 [rows, pairs]: the preference loss of each model."""
    chosen, rejected = batch.pairs(rewards)
    if name == "label_smoothed":
        return preference.label_smoothed(chosen, rejected, cfg.smoothing)
    return preference.bradley_terry(chosen, rejected, batch.margin if name == "margin" else 0.0)


def contrastive_loss(logps: jax.Array, batch: PackedBatch, cfg: Config) -> jax.Array:
    """Float32 [rows, pairs]: DPO, with the reference's log-probs that the batch brings or none."""
    if cfg.regularizer == "dpo_reference_free":
        return generation.dpo_reference_free(*batch.pairs(logps), cfg.beta)
    reference = batch.pairs(batch.reference_logps)
    return generation.dpo(*batch.pairs(logps), *reference, cfg.beta)


def main(cfg: Config) -> None:
    """Trains the models, evaluates them on every split, and writes the report."""
    parallel.start()
    check(cfg)
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    mesh = parallel.make_mesh(cfg.mesh)
    data = named_data(cfg) if cfg.data else toy_world(cfg)
    reads = [sources.Source.parse(text).location for text in (*cfg.data, *cfg.eval)]
    run = open_run(cfg.run_dir, cfg, [*reads, cfg.base, cfg.chat_template])
    if cfg.select == "best" and "val" not in data.held_out:
        raise OptionError(
            "--select best needs a split named val, because a test split must choose nothing: "
            "write --eval 'LOCATION?name=val'"
        )
    base = cfg.base or (pretrain(cfg, run / "base", mesh) if cfg.pretrain else toy.shipped_base())

    tokenizer = load_tokenizer(base, cfg.chat_template, day=rundir.day(run))
    training = training_set(
        data.training,
        tokenizer,
        max_length=cfg.max_length,
        row_length=cfg.row_length,
        truncate_prompt=cfg.truncate_prompt,
    )
    print(f"training data: {training.tally}")
    vocabulary.check(hub.read_config(base), tokenizer, str(base))
    base_key = hub.fingerprint(base)
    inputs = {"the training data": training.key(), "the base": base_key}
    check_inputs(run, inputs | ({rundir.DAY: tokenizer.dated} if tokenizer.dated else {}))
    scoring = {"mesh": mesh, "rows": cfg.rows, "row_length": cfg.row_length}
    pack = functools.partial(packed.pack, config=hub.read_config(base), ask="all", **scoring)
    held_out, probing = (
        {name: pack(rows, chat.tokenize(rows, tokenizer)) for name, rows in part.items()}
        for part in (data.held_out, data.probing)
    )
    evaluate = functools.partial(splits.evaluate, mesh=mesh)
    sample = {
        name: pack(split.comparisons[: cfg.eval_sample], split.trees[: cfg.eval_sample])
        for name, split in held_out.items()
    }
    if cfg.select == "best":
        sample["val"] = held_out["val"]  # the choice is worth the whole of it
    # One shape, so one plan: all models see the same pairs in the same order, in the same batches.
    shape = planning.fit_shape(training.trees, rows=cfg.rows, length=cfg.row_length, ask=asked(cfg))
    if "margin" in cfg.models:
        shape.require("margin", "the model `margin`")
    best = Best("eval/val/accuracy", "max") if cfg.select == "best" else None
    results = {"seeds": [cfg.seed], "data": {"train": training.tally}, "models": {}}

    def load() -> RewardModel:
        return hub.load(
            base,
            cfg.head,
            cfg.lora if cfg.train == "lora" else None,
            compute=Compute(cfg.dtype, cfg.remat),
            mesh=mesh,
            rules=RULES,
            seed=cfg.seed,
            dtype=cfg.trunk_dtype,
        )

    model, trees = load(), training.trees
    results["base"] = evaluate(model, held_out, progress="base")
    for split, train in probing.items():
        results["base"][split]["probe"] = probe(model, train, held_out[split], mesh=mesh)
    if "grm" in cfg.models and cfg.regularizer == "dpo":
        trees = trees.with_references(
            reference_logps(
                model.without_lora(),
                trees,
                cache=cfg.reference_cache or run / "reference",
                model_key=base_key,
                progress="reference",
                **scoring,
            )
        )
        shape = dataclasses.replace(shape, numbers=(*shape.numbers, "reference_logps"))
    loader = Loader(
        trees,
        shape,
        mesh=mesh,
        seed=cfg.seed,
        accumulate=cfg.accumulate,
        weights=training.weights,
        prompts=training.prompts if cfg.group_prompts else None,
    )
    steps = cfg.steps or loader.steps(cfg.epochs)
    if not steps:
        raise DataError("the weights leave no comparison in an epoch: raise one, or --epochs")
    for name in cfg.models:
        del model  # the next one would otherwise be loaded beside it
        model = fit(
            load(),
            functools.partial(loss_fn, name=name, cfg=cfg),
            loader,
            cfg.optimizer(),
            steps=steps,
            run_dir=run / name,
            mesh=mesh,
            rules=RULES,
            trainable=cfg.trains,
            seed=cfg.seed,
            log_every=cfg.log_every,
            checkpoint_every=cfg.checkpoint_every,
            keep=cfg.keep,
            best=best,
            evaluate=lambda model: splits.curves(evaluate(model, sample, language=False)),
            eval_every=cfg.eval_every or max(1, steps // 10),
        )
        results["models"][name] = evaluate(model, held_out, progress=name)
        if best is not None:
            chosen = best.among(run / name / "metrics.jsonl")
            results.setdefault("selected", {})[name] = dataclasses.asdict(chosen)
        export(model, run / name, name, results, tokenizer, base, cfg)
    if jax.process_index() == 0:
        report.write(run, results)
        print(f"{report.table(results)}\n\n{run / 'report.html'}")


def export(
    model: RewardModel,
    folder: Path,
    name: Name,
    results: Mapping[str, Any],
    tokenizer: ChatTokenizer,
    base: Path,
    cfg: Config,
) -> None:
    """Leaves the model in the layouts of others, with a card that says what was measured."""
    split, figures = next(iter(results["models"][name].items()))
    scale = splits.reward_scale(figures, f"the held-out split {split}")
    text = card.write(
        name,
        results,
        method=METHODS[name],
        base=cfg.base.name if cfg.base else "jaxrm's toy base",
        config=model.config,
        head=cfg.head,
        scale=scale,
    )
    hub.save(model, folder / "export", tokenizer, scale=scale, card=text)
    if cfg.export_language_model:
        hub.save(model.language_model(), folder / "language_model", tokenizer)
    if cfg.train == "lora":
        adapter.save(model, folder / "adapter", base=str(base), tokenizer=tokenizer)


def check(cfg: Config) -> None:
    """Raises OptionError for options that contradict each other."""
    if bool(cfg.data) != bool(cfg.eval):
        raise OptionError("--data and --eval go together: name sources for both, or for neither")
    if cfg.base is not None and cfg.pretrain:
        raise OptionError("--pretrain makes a base and --base names one: choose one of them")
    if cfg.base is not None and cfg.preset == "toy":
        others = ", ".join(name for name in PRESETS if name != "toy")
        raise OptionError(f"--preset toy is for the toy base: with --base, choose one of {others}")
    if cfg.base is None and cfg.preset != "toy":
        raise OptionError(f"--preset {cfg.preset} is for a base of your own: name it with --base")
    if cfg.base is None and cfg.lexicon != "report" and not cfg.pretrain:
        raise OptionError("the shipped base has read the report lexicon: add --pretrain or --base")


def asked(cfg: Config) -> Ask:
    """Whose tokens the regulariser needs: it contrasts both responses, or writes the best one."""
    if "grm" not in cfg.models or cfg.alpha == 0:
        return "none"
    return "all" if cfg.regularizer in ("dpo", "dpo_reference_free") else "best"


@dataclasses.dataclass(frozen=True)
class Data:
    """Comparisons to train on (each source with its weight), to hold out by split, and to fit the
    base's linear probe to."""

    training: list[tuple[Iterable[Comparison], float]]
    held_out: dict[str, list[Comparison]]
    probing: dict[str, list[Comparison]]


def named_data(cfg: Config) -> Data:
    """What --data and --eval name."""
    training = [Source.parse(text) for text in cfg.data]
    held_out = {}
    for text in cfg.eval:
        source = Source.parse(text)
        if source.name in held_out:
            problem = f"two --eval sources are named {source.name}, as their split"
            raise OptionError(f"{text}: {problem}: add ?name=ANOTHER to one of them")
        held_out[source.name] = sources.read(source)
    streams = [(sources.stream(source), source.weight) for source in training]
    return Data(streams, held_out, probing={})


def toy_world(cfg: Config) -> Data:
    """The toy world's pairs and splits. Test labels are clean, so a probe can be fitted to more."""
    world = toy.World(seed=cfg.seed, lexicon=cfg.lexicon)
    held_out, probing = {"val": world.comparisons("val", cfg.held_out)}, {}
    for split in ("id", "ood_prompt"):
        clean = world.comparisons(split, 2 * cfg.held_out)
        held_out[split], probing[split] = clean[: cfg.held_out], clean[cfg.held_out :]
    return Data([(world.comparisons("train", cfg.pairs), 1.0)], held_out, probing)


def pretrain(cfg: Config, run: Path, mesh: Mesh) -> Path:
    """Makes the toy base: a language model of the world's text, good answers and flawed ones.

    The shipped base is what this leaves in `run/export`.
    """
    tokenizer = load_tokenizer(toy.TOKENIZER)
    text = toy.World(seed=0, lexicon=cfg.lexicon).pretraining_text(cfg.documents)
    trees = chat.tokenize(text, tokenizer)
    shape = planning.fit_shape(trees, rows=6, length=224, ask="all")
    loader = Loader(trees, shape, mesh=mesh, seed=0)
    config = families.read(json.loads((toy.TOKENIZER / "config.json").read_text()))

    def language_loss(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        logps = heads.target_logps(model, model.hidden(batch), batch)
        return {"text": Term(1.0, -logps, batch.target_mask)}

    model = fit(
        transformer.create(config, None, seed=0, mesh=mesh, rules=RULES),
        language_loss,
        loader,
        OptimizerConfig(learning_rate=2e-3, warmup=0.025, floor=0.02, b2=0.98, clip=1.0),
        steps=loader.steps(1),
        run_dir=run,
        mesh=mesh,
        rules=RULES,
        checkpoint_every=cfg.checkpoint_every,
    )
    hub.save(model, run / "export", tokenizer, dtype="bfloat16")
    return run / "export"


if __name__ == "__main__":
    cli.run(main, Config, __doc__, PRESETS)
