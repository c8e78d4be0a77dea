"""Files that appear whole or not at all, and what is written in them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrm.errors import DataError, OptionError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a sibling path to write a file or a directory at; it becomes `path` if nothing raises.

    A reader sees what was at `path` before or what is written now, never half of it. A file
    never takes the place of a directory.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unique among machines that share a disk, where process numbers are not.
    unique = f".{path.name}.{uuid.uuid4().hex}"
    draft, old = path.with_name(f"{unique}.draft"), path.with_name(f"{unique}.old")
    try:
        yield draft
        if path.is_dir():
            if not draft.is_dir():
                raise IsADirectoryError(f"{path} is a directory: a file is not written over it")
            # A directory cannot be renamed over one that has files in it.
            path.rename(old)
            draft.rename(path)
            _remove(old)
        else:
            draft.replace(path)
    finally:
        _remove(draft)


def write_json(path: Path, value: Any) -> None:
    """Writes `plain(value)`, indented, whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(plain(value), indent=2, allow_nan=False) + "\n", "utf-8")


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses are objects, arrays lists, and numbers that are not
    finite null."""
    if dataclasses.is_dataclass(value):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """A line for each name whose value differs between what was recorded and what is wanted."""
    absent = "(absent)"
    return [
        f"  {name}: {recorded.get(name, absent)} there, {wanted.get(name, absent)} here"
        for name in sorted(recorded.keys() | wanted.keys())
        if recorded.get(name, absent) != wanted.get(name, absent)
    ]


def check_writable(path: Path) -> None:
    """Raises DataError where no file can be written at `path`: before hours of work, not after."""
    if path.is_dir():
        raise DataError(f"{path} is a directory: name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from error


def check_apart(
    output: Path, whole: Iterable[str | Path | None], named: Iterable[str | Path | None] = ()
) -> None:
    """Raises OptionError where writing `output` would change what is read.

    Args:
      output: a file, or a directory of files, to be written.
      whole: files, and directories whatever lies in which is read, links followed. None, and what
        is no path of this machine, such as a name on the Hub, is never in the way.
      named: files, and directories of which only files of known names are read, as of models: an
        output may lie in one of these, and not take its place.
    """
    there = output.resolve()
    for path, inside in [(g, True) for g in whole] + [(g, False) for g in named]:
        place = Path(path or "").resolve()
        if not path or not place.exists():
            continue
        same = there == place or (output.exists() and output.samefile(place))  # by a hard link
        if same or (inside and there.is_relative_to(place)):
            where = "is" if same else "lies in"
            raise OptionError(f"{output} {where} {path}, which is read: write to another place")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
