"""One run: methods trained from one base on named data, kept in a directory, measured, exported.

What a command of a run asks for is a `RunConfig`, which it extends with what is its own. `open_`
checks and reads, `Run.train` makes a model of each method, `Run.finish` reports:

    run = open_(cfg, data, base, METHODS.values())
    for name, method in methods.items():
        run.train(name, method, strength=method.default)
    run.finish()

The same command with the same directory goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxrm import parallel, toy
from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import TokenTree
from jaxrm.data.sources import Source
from jaxrm.data.store import with_columns
from jaxrm.data.training import TrainingSet, training_set
from jaxrm.errors import DataError, OptionError, require
from jaxrm.evaluate.probe import probe
from jaxrm.huggingface import adapter, card, hub, mixture, vocabulary
from jaxrm.huggingface.mixture import Member
from jaxrm.methods.bench import Bench, fitted
from jaxrm.methods.method import REFERENCE_LOGPS, Fill, Method
from jaxrm.methods.task import Model, Prepared, Task, Trained
from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.read import splits
from jaxrm.read.reading import read
from jaxrm.read.reference import reference_logps
from jaxrm.read.splits import Split
from jaxrm.report import run as report
from jaxrm.train import rundir
from jaxrm.train.best import Best
from jaxrm.train.optimizer import OptimizerConfig
from jaxrm.train.rundir import check_inputs, open_run

Preset = Literal[
    "toy",
    "gemma-2b-it-lora",
    "gemma-2b-it-full",
    "mistral-7b-instruct-lora",
    "llama-3-8b-instruct-full",
]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What models are trained from, on what, how, and where the run is kept. The defaults are the
    toy's; --preset gives others."""

    preset: Preset = "toy"
    """What the other options start from: the toy's values, or the official recipe's."""
    run_dir: Path = Path("runs/run")
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
        counts = ("epochs", "pairs", "held_out", "rows", "row_length", "max_length")
        counts += ("accumulate", "log_every", "checkpoint_every", "keep", "eval_sample")
        for name in counts:
            option, value = f"--{name.replace('_', '-')}", getattr(self, name)
            require(value >= 1, option, "at least 1", value)
        require(self.steps is None or self.steps >= 1, "--steps", "at least 1", self.steps)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.eval_every >= 0, "--eval-every", "at least 0", self.eval_every)
        require(self.head.outputs == 1, "--head.outputs", "1, a reward", self.head.outputs)
        self.optimizer()  # refuses what is out of range before anything is read

    def optimizer(self) -> OptimizerConfig:
        """AdamW with a cosine, as every reward model is trained."""
        return OptimizerConfig(
            learning_rate=self.learning_rate,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            clip=self.clip,
        )

    def check(self) -> None:
        """Raises OptionError for options that contradict each other."""
        if bool(self.data) != bool(self.eval):
            problem = "--data and --eval go together: name sources for both, or for neither"
            raise OptionError(problem)
        if self.base is not None and self.preset == "toy":
            others = ", ".join(name for name in PRESETS if name != "toy")
            problem = "--preset toy is for the toy base: with --base, choose one of"
            raise OptionError(f"{problem} {others}")
        if self.base is None and self.preset != "toy":
            problem = f"--preset {self.preset} is for a base of your own: name it with --base"
            raise OptionError(problem)


# The reference recipe (its scripts for gemma-2b-it): LoRA on the attention of a bfloat16 trunk, and
# full fine-tuning. Batches there count pairs, 24 and 256; here a step holds as many as fit into
# rows x row_length x accumulate tokens, which is those at some 700 tokens a pair.
_LORA: dict[str, Any] = {
    "head": HeadConfig("mlp", dropout=0.1),
    "train": "lora",
    "epochs": 2,
    "max_length": 1024,
    "rows": 8,
    "row_length": 2048,
    "learning_rate": 1e-5,
    "dtype": "bfloat16",
    "remat": "full",
}
_FULL: dict[str, Any] = _LORA | {
    "train": "all",
    "epochs": 1,
    "max_length": 3000,
    "row_length": 6144,
    "accumulate": 4,
    "learning_rate": 5e-6,
}
# The toy's learning rate was chosen on its `dev` lexicon by `val` alone. The recipe's scripts hold
# no values of their own for the last two families.
PRESETS: dict[Preset, dict[str, Any]] = {
    "toy": {},
    "gemma-2b-it-lora": _LORA,
    "gemma-2b-it-full": _FULL,
    "mistral-7b-instruct-lora": _LORA,
    "llama-3-8b-instruct-full": _FULL,
}
"""Of each preset, the options that are not the toy's."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Comparisons to train on (each source with its weight), to hold out by split, and to fit the
    base's linear probe to."""

    training: list[tuple[Iterable[Comparison], float]]
    held_out: dict[str, list[Comparison]]
    probing: dict[str, list[Comparison]]


def named_data(cfg: RunConfig) -> Data:
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


def toy_world(cfg: RunConfig, lexicon: toy.Lexicon = "report") -> Data:
    """The toy world's pairs and splits. Test labels are clean, so a probe can be fitted to more."""
    world = toy.World(seed=cfg.seed, lexicon=lexicon)
    held_out, probing = {"val": world.comparisons("val", cfg.held_out)}, {}
    for split in ("id", "ood_prompt"):
        clean = world.comparisons(split, 2 * cfg.held_out)
        held_out[split], probing[split] = clean[: cfg.held_out], clean[cfg.held_out :]
    return Data([(world.comparisons("train", cfg.pairs), 1.0)], held_out, probing)
