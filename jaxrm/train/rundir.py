"""A run directory belongs to one configuration; the same command finds its run again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrm import files
from jaxrm.errors import RunDirError

CONFIG, INPUTS = "config.json", "inputs.json"

DAY = "the day that the chat template writes"
"""By this name `check_inputs` records it (2026-11-30), of templates that write one."""


REVISION = "the base's revision"
"""By this name the commit of a base from the Hub is recorded."""

_NOT_THE_RUN = ("run_dir", "log", "push")
"""Options that say where a run lies (or how its path was written), and who else hears of it: they
may change between its starts."""


def open_run(directory: Path, config: Any, reads: Iterable[str | Path | None] = ()) -> Path:
    """Creates `directory` with `config` in config.json, or finds it there from an earlier start.

    A run that left nothing but its configuration never began: its directory may be used again. In a
    run of several processes each must call this; the first one writes.

    Args:
      directory: the run directory.
      config: a frozen dataclass; how the run is resolved.
      reads: files and directories that the run reads, none of which may be changed by it.

    Raises:
      OptionError: the directory is one of those that are read, or lies in it.
      RunDirError: the directory holds a run of another configuration (the message lists every
        difference), or files that no run wrote; or it cannot be made.
    """
    files.check_apart(directory, reads)
    wanted = {name: value for name, value in resolved(config).items() if name not in _NOT_THE_RUN}
    path = directory / CONFIG
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{directory} cannot be made ({error}): choose another --run-dir"
        raise RunDirError(problem) from error
    others = any(entry.name not in (CONFIG, INPUTS) for entry in directory.iterdir())
    if others and not path.exists():
        raise RunDirError(
            f"{directory} holds files but no config.json: choose an empty or new --run-dir"
        )
    if others:
        _compare(path, wanted)
    # Every process has looked before one of them writes, whose draft the others would take for a
    # file that no run wrote.
    multihost_utils.sync_global_devices("run directory checked")
    if not others and jax.process_index() == 0:
        (directory / INPUTS).unlink(missing_ok=True)
        with files.replacing(path) as draft:
            draft.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    multihost_utils.sync_global_devices("run directory opened")
    return directory


def resolved(config: Any) -> dict[str, Any]:
    """A configuration, a dataclass, as JSON has it."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def day(directory: Path) -> date:
    """The day that a run writes into conversations: the one that it began with, or today.

    So a run that is resumed on another day goes on with the tokens that it began with. In a run of
    several processes each must call this, and gets the first one's answer.

    Args:
      directory: the run directory, opened.
    """
    # The first process's clock, too.
    began = _inputs(directory).get(DAY) or date.today().isoformat()
    return date.fromisoformat(_of_the_first(began))


def recorded(directory: Path, name: str) -> str:
    """What a run recorded under a name when it began (see `check_inputs`); "" without.

    In a run of several processes each must call this, and gets the first one's answer.

    Args:
      directory: the run directory, opened.
    """
    return _of_the_first(_inputs(directory).get(name, ""))


def check_inputs(directory: Path, inputs: Mapping[str, str]) -> None:
    """Records what a run reads, so that it cannot go on with something else under the same name.

    Args:
      directory: the run directory, opened.
      inputs: for each thing that is read, in words, a hash of its contents.

    Raises:
      RunDirError: the run was begun with other contents.
    """
    begun = _inputs(directory) or inputs
    changed = [name for name, content in inputs.items() if begun.get(name) != content]
    if changed:
        raise RunDirError(
            f"{directory} holds a run that began with another content of {' and '.join(changed)}: "
            "put that back to resume it, or choose another --run-dir"
        )
    multihost_utils.sync_global_devices("inputs checked")
    if jax.process_index() == 0:
        with files.replacing(directory / INPUTS) as draft:
            draft.write_text(json.dumps(inputs, indent=2) + "\n", encoding="utf-8")


def _of_the_first(text: str) -> str:
    """The first process's text, in every process."""
    content = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.resize(content, length) if len(content) else np.zeros(length, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes().decode()


def _inputs(directory: Path) -> dict[str, str]:
    """What `check_inputs` recorded, if it did."""
    path = directory / INPUTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _compare(path: Path, wanted: dict[str, Any]) -> None:
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunDirError(f"{path} is not JSON ({error}): choose another --run-dir") from error
    if different := files.differences(_flat(recorded), _flat(wanted)):
        raise RunDirError(
            f"{path.parent} holds a run of another configuration:\n"
            + "\n".join(different)
            + "\nrepeat that command to resume it, or choose another --run-dir"
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}.{name}" if prefix else name)
    return flat
