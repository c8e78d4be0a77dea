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
import json
from pathlib import Path
from typing import Literal

from jaxrm import cli, parallel, toy
from jaxrm.data import chat, sources
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import OptionError, require
from jaxrm.huggingface import families, hub
from jaxrm.methods import grm
from jaxrm.methods.grm import Regularizer
from jaxrm.methods.library import METHODS
from jaxrm.methods.method import Method
from jaxrm.study import runconfig
from jaxrm.study.run import Run
from jaxrm.study.runconfig import Preset, RunConfig, starts
from jaxrm.study.rundata import named_data, toy_world
from jaxrm.train.pretrain import pretrain
from jaxrm.train.rundir import open_run

Name = Literal["baseline", "margin", "label_smoothed", "grm"]


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Reward models from one base, compared. The defaults are the toy's; --preset gives others."""

    run_dir: Path = Path("runs/grm_gemma")
    """Where everything goes; the same command with the same directory resumes."""
    pretrain: bool = False
    """Make the toy base from nothing instead of taking the shipped one."""
    lexicon: Literal["report", "dev"] = "report"
    """The toy world's words and facts: choices are made on "dev", whose base must be made first."""
    documents: int = 40_000
    """Questions whose answers --pretrain reads, once."""

    models: tuple[Name, ...] = ("baseline", "grm")
    """What to train: Bradley-Terry alone, the same with the data's margins or with smoothed labels,
    and GRM."""
    regularizer: Regularizer = "sft"
    """What GRM's language-model head is trained for."""
    alpha: float = 0.1
    """The regulariser's share of GRM's loss."""
    beta: float = 0.1
    """The regulariser's inverse temperature."""
    smoothing: float = 0.1
    """The share of labels that `label_smoothed` believes to be wrong."""

    def __post_init__(self):
        super().__post_init__()
        require(self.documents >= 1, "--documents", "at least 1", self.documents)
        require(0 <= self.alpha <= 1, "--alpha", "a share in [0, 1]", self.alpha)
        require(self.beta > 0, "--beta", "above 0", self.beta)
        require(0 <= self.smoothing < 0.5, "--smoothing", "a share in [0, 0.5)", self.smoothing)
        once = 0 < len(self.models) == len(set(self.models))
        require(once, "--models", "names, each once, at least one", self.models)

    def check(self) -> None:
        """As `RunConfig.check`."""
        super().check()
        if self.base is not None and self.pretrain:
            raise OptionError("--pretrain makes a base and --base names one: choose one of them")
        if self.base is None and self.lexicon != "report" and not self.pretrain:
            problem = "the shipped base has read the report lexicon: add --pretrain or --base"
            raise OptionError(problem)


# The recipe's alpha; to the toy any between .01 and .3 is the same (`study_grm_choices.json`).
PRESETS: dict[Preset, Config] = {
    name: Config(preset=name, alpha=0.1 if name == "toy" else 0.01, **options)
    for name, options in runconfig.PRESETS.items()
}

ABOUT: dict[Name, str] = {
    "baseline": "Trained as a Bradley-Terry model of preferences alone.",
    "margin": "Trained as a Bradley-Terry model whose rewards are to differ by the data's margins.",
    "label_smoothed": "Trained as a Bradley-Terry model with smoothed labels.",
    "grm": "Trained as a generalizable reward model (GRM, [arXiv 2406.10216]"
    "(https://arxiv.org/abs/2406.10216)): a Bradley-Terry model of preferences whose hidden states "
    "also serve a language-model head, which a text-generation loss keeps able to write.",
}
"""What a model's card says of its training."""


def methods(cfg: Config) -> dict[Name, tuple[Method, float | None]]:
    """Each model's method and strength."""
    without_text = METHODS["bt"], None
    every: dict[Name, tuple[Method, float | None]] = {
        "baseline": without_text,
        "margin": (METHODS["margin"], 1.0),
        "label_smoothed": (METHODS["label_smoothed"], cfg.smoothing),
        "grm": (grm.method(cfg.regularizer, cfg.beta), cfg.alpha) if cfg.alpha else without_text,
    }
    return {name: every[name] for name in cfg.models}


def main(cfg: Config) -> None:
    """Trains the models, evaluates them on every split, and writes the report."""
    parallel.start()
    cfg.check()
    data = named_data(cfg) if cfg.data else toy_world(cfg, cfg.lexicon)
    reads = [sources.Source.parse(text).location for text in (*cfg.data, *cfg.eval)]
    directory = open_run(cfg.run_dir, cfg, [*reads, cfg.base, cfg.chat_template])
    base = make_base(cfg, directory / "base") if cfg.pretrain else None
    asked = methods(cfg)
    trainings = Run(cfg, data, [method for method, _ in asked.values()], base)
    trainings.measure_base()
    for name, (method, strength) in asked.items():
        trainings.train(name, method, strength, about=ABOUT[name])
    trainings.finish()


def make_base(cfg: Config, directory: Path) -> Path:
    """Makes the toy base: a language model of the world's text, good answers and flawed ones.

    The shipped base is what this leaves in `directory/export`.
    """
    tokenizer = load_tokenizer(toy.TOKENIZER)
    text = toy.World(seed=0, lexicon=cfg.lexicon).pretraining_text(cfg.documents)
    model = pretrain(
        families.read(json.loads((toy.TOKENIZER / "config.json").read_text())),
        chat.tokenize(text, tokenizer),
        directory,
        rows=6,
        length=224,
        mesh=parallel.make_mesh(cfg.mesh),
        rules=parallel.ShardingRules(),
        checkpoint_every=cfg.checkpoint_every,
    )
    hub.save(model, directory / "export", tokenizer, dtype="bfloat16")
    return directory / "export"


if __name__ == "__main__":
    cli.run(main, Config, __doc__, starts(PRESETS))
