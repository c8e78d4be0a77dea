"""Where the real data and tokenizers lie that some tests read, for machines that have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PAIRS = (
    "faireval",
    "hhh_alignment",
    "humanevalpack",
    "id_eval",
    "llmbar",
    "llmeval2",
    "mt_bench_human",
    "pandalm",
    "tulu1_human_eval",
    "xstest",
)
"""The evaluation sets of pairs in it, by the name of their file in `eval`."""


def shared(*parts: str) -> Path:
    """A path in the shared data folder; skips the test that asks where it is not there.

    The folder is $JAXRM_SHARED_DATA, or `../shared/data` beside the repository.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("JAXRM_SHARED_DATA", beside)).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs shared data at {path}: set JAXRM_SHARED_DATA")
    return path
