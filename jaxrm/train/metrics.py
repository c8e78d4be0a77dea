"""metrics.jsonl: one JSON object per logged step, in step order, each step once."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, Self

Line = Mapping[str, int | float]
"""The metrics of one step: `step`, the number of steps done, and floats."""


class Log(Protocol):
    """What lines are written to."""

    def write(self, line: Line) -> None:
        """One step's metrics, once; steps ascend."""
        ...


Logger = Callable[[Path, int], AbstractContextManager[Log]]
"""Opens a log of the run in a directory, which goes on after so many steps. Lines of later steps
that the log has already are of steps that will run again, with the same metrics."""


class MetricsLog:
    """Appends lines to `run_dir/metrics.jsonl`, which starts with what an earlier run wrote up to
    `step`.

    Lines after `step` are of steps that will run again, and a last line cut short is of a run that
    was killed while writing: both are dropped. A context manager.
    """

    def __init__(self, run_dir: Path, step: int):
        path = run_dir / "metrics.jsonl"
        kept = [line for line in _lines(path) if _step(line) <= step]
        draft = path.with_suffix(".tmp")
        draft.write_text("".join(kept))
        os.replace(draft, path)
        self._file = path.open("a")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, line: Line) -> None:
        """Append one step's metrics and flush them; NaN and infinity become null."""
        line = {name: value if math.isfinite(value) else None for name, value in line.items()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _lines(path: Path) -> list[str]:
    text = path.read_text() if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _step(line: str) -> int:
    return json.loads(line)["step"]
