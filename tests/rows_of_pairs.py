"""Comparisons as a file that a run reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jaxrm.data import formats
from jaxrm.data.comparison import Comparison


def written(path: Path, comparisons: Sequence[Comparison]) -> Path:
    """The path, at which there is a line of JSON for each comparison."""
    path.write_text("".join(json.dumps(formats.to_row(one)) + "\n" for one in comparisons))
    return path
