"""A file of lines that is hours in the making: it survives being killed, and appears whole.

Lines are committed in portions to `OUT.partial`. Beside it `OUT.partial.json` says what run they
are of, how many bytes of them count, and how far their maker was by then. Whatever lies beyond
those bytes was being written when the end came, and is written over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrm import files
from jaxrm.errors import DataError, RunDirError


class Partial:
    """The part of a file that is there already, and what its maker recorded with it.

    Nothing is written before the first `append`. In a run of several processes each may look, and
    one must write.

    Attributes:
      path: the lines so far.
      record: what the run is and how far it is, in JSON.
      state: what the last `append` recorded; None where there was none.
    """

    def __init__(self, output: Path, run: Mapping[str, str]):
        """Finds what an earlier run left beside `output`, if one did.

        Args:
          output: the file to be.
          run: all that its lines depend on, in words.

        Raises:
          RunDirError: the part that is there is of another run (the message lists every
            difference), or it is damaged, or none of ours.
        """
        self.output, self.run = output, dict(run)
        self.path, self.record = _beside(output)
        self.state: dict[str, Any] | None = None
        self._size = 0
        if self.path.exists():
            self._size, self.state = self._find()

    def append(self, lines: str, state: Mapping[str, Any]) -> None:
        """Adds whole lines and what to record with them: both survive, or neither.

        Raises DataError where they cannot be written, as on a disk that is full.
        """
        try:
            if self.state is None:
                # The record first: a part without one would be nobody's.
                self._commit(0, None)
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            self._commit(size, state)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error}") from error

    def finish(self) -> None:
        """Puts what was appended at `output`, in the place of a file that may be there."""
        self.path.replace(self.output)
        self.record.unlink()

    def _commit(self, size: int, state: Mapping[str, Any] | None) -> None:
        files.write_json(self.record, {"run": self.run, "size": size, "state": state})
        self._size, self.state = size, None if state is None else dict(state)

    def _find(self) -> tuple[int, dict[str, Any] | None]:
        again = f"remove {self.path} and {self.record} to begin again"
        try:
            recorded = json.loads(self.record.read_bytes())
            there, size, state = recorded["run"], recorded["size"], recorded["state"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{self.record}, which says what {self.path} is a part of, cannot be read"
            raise RunDirError(f"{problem} ({error}): {again}") from error
        if different := files.differences(there, self.run):
            raise RunDirError(
                f"{self.path} is a part of another run:\n"
                + "\n".join(different)
                + f"\nrepeat that command to go on with it, or {again}"
            )
        if self.path.stat().st_size < size:
            raise RunDirError(f"{self.path} is shorter than the {size} bytes written: {again}")
        return size, state


def begun(output: Path) -> Mapping[str, str]:
    """What an earlier run that left a part of `output` recorded of itself; empty without one.

    A record that cannot be read is empty too: `Partial` says what is wrong with it.
    """
    path, record = _beside(output)
    try:
        return dict(json.loads(record.read_bytes())["run"]) if path.exists() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def digests(directory: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """The beginning of the SHA-256 (16 hexadecimal digits) of every file right in `directory` whose
    name ends like that, by name."""
    paths = (path for path in sorted(directory.glob("*")) if path.name.endswith(suffixes))
    return {path.name: digest(path) for path in paths if path.is_file()}


def _beside(output: Path) -> tuple[Path, Path]:
    """Where the part of an output lies, and where its record."""
    part = output.with_name(output.name + ".partial")
    return part, part.with_name(part.name + ".json")


def digest(path: Path) -> str:
    """The beginning of the SHA-256 of a file's content: 16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
