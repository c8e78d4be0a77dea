"""Errors that a user can cause, each naming the file, row and field at fault and what to do.

Command lines print these without a traceback; everything else is a programming error and keeps one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JaxrmError(Exception):
    """Base of every error that a user's input can cause."""


class OptionError(JaxrmError):
    """An option out of its range, or options that do not go together."""


class DataError(JaxrmError):
    """A preference file is missing, empty, malformed, or a field of a row is wrong."""


class TokenizerError(JaxrmError):
    """No tokenizer, no chat template, or a conversation that the template refuses."""


class ModelFileError(JaxrmError):
    """A model directory that cannot be read exactly: names, shapes, formats or configuration."""


class MeshError(JaxrmError):
    """A device mesh that does not fit the devices or the batch."""


class RunDirError(JaxrmError):
    """A run directory that belongs to another configuration."""


class CheckpointError(JaxrmError):
    """Checkpoints exist but none of them is intact, or the one that is needed is damaged."""


class MetricError(JaxrmError):
    """The metric by which steps are to be compared is not among an evaluation's, or no number."""


class AccumulationError(JaxrmError):
    """A batch statistic was asked for under gradient accumulation, where it is not additive."""


def require(holds: bool, option: str, words: str, value: object) -> None:
    """Raises OptionError, "<option> must be <words>, not <value>", unless `holds`."""
    if not holds:
        raise OptionError(f"{option} must be {words}, not {value!r}")


def require_positive(options: object, *names: str) -> None:
    """Raises OptionError, naming the option, unless each of these fields of a command's options is
    at least 1."""
    for name in names:
        value = getattr(options, name)
        require(value >= 1, f"--{name.replace('_', '-')}", "at least 1", value)


def meant(name: str, among: Iterable[str]) -> str:
    """A hint for a name that is none of these: "did you mean bsr?", or which there are."""
    among = list(among)
    near = difflib.get_close_matches(name, among, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(among)}"


def phrase(error: Exception) -> str:
    """An error of another library on one line, its kind first, which may end in a long list."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 500 else text[:497] + '...'}"
