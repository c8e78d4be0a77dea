"""The command that trains and keeps a model as a comparison trained it, which keeps none."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.study.records import Trial

if TYPE_CHECKING:
    from jaxrm.study.comparing import Config

TRAINER = "experiments.train"
"""The module that trains the library's methods (`jaxrm.study.command`)."""

UNNAMED = "YOUR_MODULE"
"""For the module that trains a method which is not the library's."""


def command(cfg: Config, method: str, trial: Trial, module: str) -> str:
    """The shell line by which `module` trains a method as a comparison with `cfg` chose it.

    It says all in which a training may differ from what the command would start from, so that no
    preset counts.
    """
    words = ["python", "-m", module, "--method", method]
    words += ["--learning-rate", str(trial.learning_rate)]
    if trial.strength is not None:
        words += ["--strength", str(trial.strength)]
    if cfg.base is not None:
        words += ["--base", str(cfg.base)]
    if cfg.chat_template is not None:
        words += ["--chat-template", str(cfg.chat_template)]
    if cfg.data:
        words += ["--data", *cfg.data, "--eval", *cfg.eval]
    else:
        words += ["--pairs", str(cfg.pairs), "--held-out", str(cfg.items)]
    words += ["--train", cfg.trains]
    if cfg.trains == "lora":
        words += changed("lora", cfg.lora, LoraConfig())
    head = HeadConfig()
    words += ["--head.kind", head.kind, "--head.dropout", str(head.dropout)]
    words += ["--dtype", cfg.dtype, "--remat", "none", "--epochs", "1", "--rows", "8"]
    words += ["--row-length", str(cfg.length), "--max-length", str(cfg.length)]
    return shlex.join([*words, "--run-dir", str(Path(cfg.run_dir, "models", method))])


def changed(prefix: str, value: LoraConfig, usual: LoraConfig) -> list[str]:
    """The options by which one dataclass differs from another."""
    words = []
    for field in dataclasses.fields(value):
        one, name = getattr(value, field.name), field.name.replace("_", "-")
        if one == getattr(usual, field.name):
            continue
        if isinstance(one, bool):
            words.append(f"--{prefix}.{'' if one else 'no-'}{name}")
        else:
            words += [f"--{prefix}.{name}", *map(str, one if isinstance(one, tuple) else (one,))]
    return words
