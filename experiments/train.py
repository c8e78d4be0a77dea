"""Any method of the library, on any base and data, on any mesh, from one command.

    python -m experiments.train --method list
    python -m experiments.train --method bsr                      # the toy world, on a laptop
    python -m experiments.train --method inform --base DIR --data SOURCE --eval SOURCE \\
        --run-dir RUN

Trains the method's reward model (for an ensemble, all of them), scores every split of --eval,
reports, and leaves RUN/NAME/export: a model directory that `jaxrm.score`, `jaxrm.evaluate` and
`jaxrm.convert` take, and Hugging Face where the reward is one linear head. The same command with
the same run directory goes on where it was killed. With --base the options start from LoRA's recipe
(`--preset gemma-2b-it-lora`) where no preset is named.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from jaxrm import cli, parallel, toy
from jaxrm.data import packing, sources
from jaxrm.errors import OptionError, require
from jaxrm.methods.library import METHODS
from jaxrm.methods.method import Method
from jaxrm.report import tables
from jaxrm.study import run
from jaxrm.study.run import Preset, Run, RunConfig
from jaxrm.train.rundir import open_run


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """A reward model by any method of the library."""

    method: str = "bt"
    """Its name; `list` prints them all, with the data that each needs."""
    strength: float | None = None
    """The method's one number; the middle of those worth trying without it."""
    text: tuple[str, ...] = ()
    """Sources of text, for a method that trains on some beside the comparisons."""
    run_dir: Path = Path("runs/train")
    """Where everything goes; the same command with the same directory resumes."""

    def __post_init__(self):
        super().__post_init__()
        known = f"list, or among {', '.join(METHODS)}"
        require(self.method in ("list", *METHODS), "--method", known, self.method)

    def check(self, method: Method) -> None:
        """Raises OptionError for options that contradict each other."""
        super().check()
        if self.strength is not None and not method.strengths:
            raise OptionError(f"--strength: {self.method} has none")
        if bool(self.text) != method.text:
            raise OptionError(f"--text: {self.method} {'needs' if method.text else 'takes'} "
                              f"{'some' if method.text else 'none'}")  # fmt: skip


PRESETS: dict[Preset | None, Config] = {
    name: Config(preset=name, **options) for name, options in run.PRESETS.items()
}


def listed() -> str:
    """Every method with a line of its own."""
    rows = []
    for name, method in METHODS.items():
        tried = ", ".join(f"{strength:g}" for strength in method.strengths)
        strength = f"{method.strength}: {tried}" if tried else ""
        rows.append([name, method.about, strength, method.needs])
    return tables.terminal(["method", "what it is", "strength", "data"], rows, left=4)


def main(cfg: Config) -> None:
    """Trains the method, evaluates it on every split, and writes the report."""
    if cfg.method == "list":
        print(listed())
        return
    method = METHODS[cfg.method]
    parallel.start()
    cfg.check(method)
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    data = run.named_data(cfg) if cfg.data else run.toy_world(cfg)
    named = (*cfg.data, *cfg.eval, *cfg.text)
    reads = [sources.Source.parse(text).location for text in named]
    open_run(cfg.run_dir, cfg, [*reads, cfg.base, cfg.chat_template])
    training = Run(cfg, data, cfg.base or toy.shipped_base(), [method])
    strength = method.default if cfg.strength is None else cfg.strength
    training.train(cfg.method, method, strength, texts=texts(cfg, training))
    training.finish()


def texts(cfg: Config, training: Run) -> list[packing.TokenTree]:
    """The text of --text, in parts that fit a row."""
    every = [comparison for source in cfg.text for comparison in sources.stream(source)]
    trees = training.bench.trees(every)
    return [part for tree in trees for part in packing.split(tree, cfg.row_length)]


if __name__ == "__main__":
    own_base = any(argument.split("=")[0] == "--base" for argument in sys.argv)
    unnamed = PRESETS["gemma-2b-it-lora" if own_base else "toy"]
    cli.run(main, Config, __doc__, PRESETS | {None: unnamed})
