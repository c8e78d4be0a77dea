"""Scores on disk: what a scorer gave each response of a benchmark, and what that earned.

A folder appears whole or not at all, and holds

    items.jsonl (or .parquet)  {"id", "subset", "ranks", "scores"} per comparison; null is NaN
    credits.jsonl              {"rule", "group", "cluster", "value"} per credit
    about.json                 what was scored by what
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow
import pyarrow.parquet

from jaxrm import files
from jaxrm.data import formats, rows
from jaxrm.data.comparison import Comparison
from jaxrm.errors import RunDirError
from jaxrm.evaluate.benchmark import Benchmark, Credit

Format = Literal["jsonl", "parquet"]

ITEMS, CREDITS, ABOUT = "items", "credits.jsonl", "about.json"


def key(comparisons: Sequence[Comparison]) -> str:
    """SHA-256 of the comparisons: ids, texts and labels, wherever they were read from."""
    content = hashlib.sha256()
    for c in comparisons:
        content.update(json.dumps(formats.to_row(c), sort_keys=True).encode())
    return content.hexdigest()


def write(
    folder: Path,
    benchmark: Benchmark,
    comparisons: Sequence[Comparison],
    scores: Sequence[np.ndarray],
    about: Mapping[str, Any],
    form: Format = "jsonl",
) -> None:
    """Leaves a benchmark's scores float [K] in `folder`, in the place of what was there."""
    items = [
        {"id": c.id, "subset": c.subset, "ranks": list(c.ranks), "scores": files.plain(values)}
        for c, values in zip(comparisons, scores, strict=True)
    ]
    credits = (
        {"rule": rule.name, **asdict(credit)}
        for rule in benchmark.rules
        for credit in rule.credit(comparisons, scores)
    )
    with files.replacing(folder) as draft:
        draft.mkdir()
        if form == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), draft / "items.parquet")
        else:
            _write_lines(draft / "items.jsonl", items)
        _write_lines(draft / CREDITS, credits)
        files.write_json(draft / ABOUT, about)


def read(folder: Path, about: Mapping[str, Any]) -> list[np.ndarray] | None:
    """The scores float64 [K] that `folder` holds of just this; None where there is no folder.

    Raises RunDirError where it holds those of something else, naming the differences.
    """
    if not folder.exists():
        return None
    try:
        recorded = json.loads((folder / ABOUT).read_text("utf-8"))
    except (OSError, ValueError) as error:
        problem = f"holds no scores that can be read ({error})"
        raise RunDirError(f"{folder} {problem}: remove it, or choose another --out") from error
    wanted = files.plain(about)
    if recorded != wanted:
        different = ", ".join(
            f"{name} is {recorded.get(name)!r} there and {wanted.get(name)!r} here"
            for name in sorted(recorded.keys() | wanted.keys())
            if recorded.get(name) != wanted.get(name)
        )
        raise RunDirError(f"{folder} holds other scores: {different}: choose another --out")
    (path,) = folder.glob(f"{ITEMS}.*")
    return [
        np.array([np.nan if v is None else v for v in row["scores"]], np.float64)
        for _, row in rows.rows(str(path))
    ]


def read_credits(folder: Path) -> dict[str, list[Credit]]:
    """What the scores in `folder` earned, by rule.

    Raises DataError where there is no such file, or it is damaged.
    """
    by_rule: dict[str, list[Credit]] = {}
    for _, row in rows.rows(str(folder / CREDITS)):
        by_rule.setdefault(row.pop("rule"), []).append(Credit(**row))
    return by_rule


def _write_lines(path: Path, lines) -> None:
    with path.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
