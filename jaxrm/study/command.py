"""A command that trains any of some methods: options in, a run directory out.

if __name__ == "__main__":
    command.run({"my_method": MY_METHOD}, __doc__)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

from jaxrm import cli, parallel
from jaxrm.data import packing, sources
from jaxrm.errors import OptionError, meant
from jaxrm.methods.method import Method
from jaxrm.study.run import Run
from jaxrm.study.runconfig import PRESETS, RunConfig, starts
from jaxrm.study.rundata import named_data, toy_world
from jaxrm.train.rundir import open_run


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """A reward model by one method."""

    method: str = ""
    """Its name; `list` prints them all, with the data that each needs. The first without it."""
    strength: float | None = None
    """The method's one number; the middle of those worth trying without it."""
    text: tuple[str, ...] = ()
    """Sources of text, for a method that trains on some beside the comparisons."""
    run_dir: Path = Path("runs/train")
    """Where everything goes; the same command with the same directory resumes."""


def run(methods: Mapping[str, Method], description: str | None) -> None:
    """Parses the command line and trains."""
    presets = {name: Config(preset=name, **options) for name, options in PRESETS.items()}
    cli.run(functools.partial(main, methods=methods), Config, description, starts(presets))


def main(cfg: Config, methods: Mapping[str, Method]) -> None:
    """Trains the method, evaluates it on every split, exports it, and writes the report."""
    if cfg.method == "list":
        print(listed(methods))
        return
    name = cfg.method or next(iter(methods))
    if name not in methods:
        hint = f"{meant(name, methods)} (--method list says more)"
        raise OptionError(f"--method: there is no {name!r}: {hint}")
    method = methods[name]
    parallel.start()
    cfg.check()
    if cfg.strength is not None and not method.strengths:
        raise OptionError(f"--strength: {name} has none")
    if bool(cfg.text) != method.text:
        raise OptionError(f"--text: {name} {'needs some' if method.text else 'takes none'}")
    data = named_data(cfg) if cfg.data else toy_world(cfg)
    named = (*cfg.data, *cfg.eval, *cfg.text)
    reads = [sources.Source.parse(text).location for text in named]
    open_run(cfg.run_dir, cfg, [*reads, cfg.base, cfg.chat_template])
    training = Run(cfg, data, [method])
    strength = method.default if cfg.strength is None else cfg.strength
    training.train(name, method, strength, texts=texts(cfg, training))
    training.finish()


def listed(methods: Mapping[str, Method]) -> str:
    """Every method with a line of its own."""
    lines = []
    for name, method in methods.items():
        tried = ", ".join(f"{strength:g}" for strength in method.strengths)
        strength = f" Strength: {method.strength} ({tried})." if tried else ""
        lines.append(f"{name:24}{method.about}. Data: {method.needs}.{strength}")
    return "\n".join(lines)


def texts(cfg: Config, training: Run) -> list[packing.TokenTree]:
    """The text of --text, in parts that fit a row."""
    every = [comparison for source in cfg.text for comparison in sources.stream(source)]
    return training.bench.texts(every)
