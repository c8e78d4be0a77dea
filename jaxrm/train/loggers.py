"""Metrics beside metrics.jsonl: TensorBoard's and Weights & Biases', whose packages are extras.

    fit(..., loggers=loggers.chosen(("tensorboard", "wandb"), cfg))

Each gets the lines of metrics.jsonl. Of a run that is resumed, steps after the checkpoint come a
second time, with the same metrics; neither shows them twice (see `tensorboard` and `wandb`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxrm import files
from jaxrm.errors import OptionError
from jaxrm.train.metrics import Line, Log, Logger
from jaxrm.train.rundir import resolved

Name = Literal["tensorboard", "wandb"]


def chosen(names: Sequence[Name], config: Any) -> tuple[Logger, ...]:
    """The loggers of these names, for `jaxrm.train.loop.fit`. Call it before anything is read.

    Args:
      config: a frozen dataclass, of the whole run: what wandb shows it with.

    Raises OptionError where a package is not installed.
    """
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        if name in names and importlib.util.find_spec(package) is None:
            problem = f"--log {name} needs the package {package}: pip install 'jaxrm[{name}]'"
            raise OptionError(problem)
    made = {"tensorboard": tensorboard, "wandb": functools.partial(wandb, config=config)}
    return tuple(made[name] for name in dict.fromkeys(names))


class _Written:
    """A log that is a function of a step and its values."""

    def __init__(self, write: Callable[[int, dict[str, float]], object]):
        self._write = write

    def write(self, line: Line) -> None:
        """As `Log` has it."""
        values = dict(line)
        self._write(values.pop("step"), values)


@contextlib.contextmanager
def tensorboard(run_dir: Path, step: int) -> Iterator[Log]:
    """Scalars in `run_dir/tensorboard`. Each start of a run has a file of its own, which says from
    which step on those before it do not count: TensorBoard leaves these out."""
    from tensorboardX import SummaryWriter

    options = {"purge_step": step + 1, "filename_suffix": f".after-step-{step}"}
    with SummaryWriter(str(run_dir / "tensorboard"), **options) as writer:

        def write(step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield _Written(write)


@contextlib.contextmanager
def wandb(run_dir: Path, step: int, config: Any) -> Iterator[Log]:
    """A run of the project `jaxrm`, or of WANDB_PROJECT; wandb reads its other settings itself.

    Its id lies in `run_dir/wandb/id`, so that a resumed run goes on in the same one. wandb refuses
    a step that is not after all that it has: of steps that run again it keeps what it had, which is
    the same. With WANDB_MODE=offline every start leaves a directory, all of the one id, for
    `wandb sync`.

    Raises OptionError where wandb cannot begin, as without a login.
    """
    import wandb as package

    path = run_dir / "wandb" / "id"
    if not path.exists():
        with files.replacing(path) as draft:
            draft.write_text(secrets.token_hex(4), encoding="utf-8")
    try:
        run = package.init(
            project=os.environ.get("WANDB_PROJECT", "jaxrm"),
            id=path.read_text(encoding="utf-8"),
            name=f"{run_dir.parent.name}/{run_dir.name}",
            dir=run_dir,
            config=resolved(config),
            resume="allow",
        )
    except package.Error as error:
        raise OptionError(
            f"--log wandb: {error}: log in with `wandb login`, or set WANDB_MODE=offline"
        ) from error
    with run:
        yield _Written(lambda step, values: run.log(values, step=step))
