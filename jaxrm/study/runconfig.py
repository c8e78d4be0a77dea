"""What a command of a run is asked: its options, and what they start from.

Defaults are the toy's. A preset gives others: the official recipe's, or those measured on small
bases; where none is named, the base's size chooses.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import jax

from jaxrm import parallel
from jaxrm.errors import JaxrmError, OptionError, require, require_positive
from jaxrm.huggingface import hub, names, push
from jaxrm.models import transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.study import options
from jaxrm.train import loggers
from jaxrm.train.optimizer import OptimizerConfig

C = TypeVar("C")

Preset = Literal[
    "toy",
    "small-lora",
    "small-full",
    "gemma-2b-it-lora",
    "gemma-2b-it-full",
    "mistral-7b-instruct-lora",
    "llama-3-8b-instruct-full",
]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What models are trained from, on what, how, and where the run is kept. The defaults are the
    toy's; --preset gives others."""

    GROUPS: ClassVar = options.GROUPS

    preset: Preset = "toy"
    """What the other options start from: the toy's values, those for bases under 1.5B parameters,
    or the official recipe's. Where none is named, the base's size chooses. A preset's own values:
    --preset NAME --help."""
    run_dir: Path = Path("runs/run")
    """Where everything goes; the same command with the same directory resumes."""
    base: Path | None = None
    """What training begins from: a Gemma, Llama, Mistral or Qwen in Hugging Face layout, as a
    directory or by its name on the Hub (owner/name or owner/name@revision); the toy base without
    it."""
    chat_template: Path | None = None
    """A file with the chat template, for a base that brings none."""
    data: tuple[str, ...] = ()
    """What to train on: files, directories, names on the Hub or in TFDS (see jaxrm.data.sources);
    the toy world's pairs without."""
    eval: tuple[str, ...] = ()
    """What to evaluate on, likewise; each is a split under its own name. Without it a tenth of the
    prompts of --data is held out, as the split `val`."""

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
    """Of the head and LoRA, of the order, of dropout, and of what is held out."""
    steps: int | None = None
    """Optimizer steps of each reward model; --epochs over the data without it."""
    epochs: int = 1
    """How often the data are gone through."""
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
    """At its peak; a cosine leads down from there."""
    warmup: float = 0.03
    """The share of steps in which the rate rises to its peak."""
    weight_decay: float = 0.0
    """AdamW's."""
    clip: float = 5.0
    """The norm that a gradient is cut to."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in, and is kept in where it is frozen; heads, losses and all that
    trains are float32."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes again in place of keeping it: nothing, all but products of
    matrices, or everything."""
    mesh: parallel.MeshShape = parallel.MeshShape()
    """How devices are used."""
    log: tuple[loggers.Name, ...] = ()
    """Where metrics go beside metrics.jsonl."""
    push: str = ""
    """A name on the Hub, owner/name, under which the finished export is uploaded, into a private
    repository; of several models, each under this name and its own. Nothing is without it."""
    log_every: int = 10
    """Steps between lines of metrics."""
    checkpoint_every: int = 100
    """Steps between checkpoints; the last step is always saved."""
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
        require_positive(self, *counts)
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
        """Raises OptionError for options that contradict each other, or cannot be had here."""
        if self.eval and not self.data:
            problem = "--eval names what to measure on, and --data is to say what to train on"
            raise OptionError(f"{problem}: name both, or --data alone, or neither")
        if self.base is not None and self.preset == "toy":
            others = ", ".join(name for name in PRESETS if name != "toy")
            problem = "--preset toy is for the toy base: with --base, choose one of"
            raise OptionError(f"{problem} {others}")
        if self.base is None and self.preset != "toy":
            problem = f"--preset {self.preset} is for a base of your own: name it with --base"
            raise OptionError(problem)
        loggers.chosen(self.log, self)
        if self.push:
            push.check(self.push)


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
# For bases under `SMALL`, on a laptop or one small accelerator: steps of some 4,000 tokens, of
# which a file of two thousand short pairs makes enough, and a head that every program reads. The
# LoRA's rate is the better of two that were tried on SmolLM2-135M-Instruct; both presets ran
# there and on Gemma 3 270M (docs/training.md).
_SMALL: dict[str, Any] = {
    "train": "lora",
    "max_length": 1024,
    "rows": 4,
    "row_length": 1024,
    "learning_rate": 3e-4,
    "eval_sample": 64,
    "log_every": 5,
}
# The toy's learning rate was chosen on its `dev` lexicon by `val` alone. The recipe's scripts hold
# no values of their own for the last two families.
PRESETS: dict[Preset, dict[str, Any]] = {
    "toy": {},
    "small-lora": _SMALL,
    "small-full": _SMALL | {"train": "all", "learning_rate": 3e-5},
    "gemma-2b-it-lora": _LORA,
    "gemma-2b-it-full": _FULL,
    "mistral-7b-instruct-lora": _LORA,
    "llama-3-8b-instruct-full": _FULL,
}
"""Of each preset, the options that are not the toy's."""

SMALL = 1.5e9
"""Parameters below which a base is small."""


def suited(base: Path | None) -> Preset:
    """The preset for a base, by its size; prints which, and why.

    A base that cannot be read gets one too: whoever opens it says what is wrong.
    """
    if base is None:
        return "toy"
    try:
        config = hub.read_config(names.local(base).directory)
    except JaxrmError:
        return "gemma-2b-it-lora"
    size = parameters(config)
    preset: Preset = "small-lora" if size < SMALL else "gemma-2b-it-lora"
    print(f"{base} has {size / 1e9:.2f}B parameters: --preset {preset}, as none is named")
    return preset


def parameters(config: ModelConfig) -> int:
    """How many a decoder has, without a reward head."""
    declared = jax.tree.leaves(transformer.declare(config, None))
    return sum(math.prod(parameter.shape) for parameter in declared)


def starts(presets: Mapping[Preset, C]) -> dict[str | None, C]:
    """What `cli.run` takes the options' defaults from, by the preset that the command line names;
    under None, where it names none, the one that suits its --base."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    parser.add_argument("--base", type=Path)
    named, _ = parser.parse_known_args()
    return {**presets, None: presets[suited(named.base)]} if named.preset is None else presets
