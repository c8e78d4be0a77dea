"""A run directory belongs to one configuration; the same command finds its run again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxrm import files
from jaxrm.errors import RunDirError


def open_run(directory: Path, config: Any) -> Path:
    """Creates `directory` with `config` in config.json, or finds it there from an earlier start.

    A run that left nothing but its config.json never began: its directory may be used again.

    Args:
      directory: the run directory.
      config: a frozen dataclass; how the run is resolved.

    Raises:
      RunDirError: the directory holds a run of another configuration (the message lists every
        difference), or files that no run wrote.
    """
    wanted = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    wanted.pop("run_dir", None)  # where a run lies, or how its path was written, is not what it is
    path = directory / "config.json"
    others = directory.exists() and any(entry != path for entry in directory.iterdir())
    if others and not path.exists():
        raise RunDirError(
            f"{directory} holds files but no config.json: choose an empty or new --run-dir"
        )
    if others:
        _compare(path, wanted)
    else:
        with files.replacing(path) as draft:
            draft.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    return directory


def _compare(path: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunDirError(f"{path} is not JSON ({error}): choose another --run-dir") from error
    there, here, absent = _flat(found), _flat(wanted), "(absent)"
    different = [
        f"  {name}: {there.get(name, absent)} there, {here.get(name, absent)} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, absent) != here.get(name, absent)
    ]
    if different:
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
