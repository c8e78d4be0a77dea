"""Ways to do one thing, taking turns in one run: what every benchmark times, keeps and shows.

A record is one JSON object:

    ways.NAME.seconds              of each turn; the first way is ours
    ratio.NAME.median, .min, .max  its seconds by ours, turn by turn: above 1 ours is faster
    parity                         how far what the ways compute differs, which is seen to first
    versions, machine              what it ran on

and whatever else a benchmark says of its work.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxrm import files
from jaxrm.errors import JaxrmError
from jaxrm.report.tables import markdown

Way = Callable[[], Any]
"""One turn, which ends when all that it computes is there."""

Record = dict[str, Any]
Parity = Mapping[str, Any]

VERSIONS = ("jax", "flax", "torch", "transformers", "trl", "peft", "numpy")


class ParityError(JaxrmError):
    """What is to be compared does not compute the same."""


def take_turns(
    ways: Mapping[str, Way],
    repeats: int,
    agreement: Callable[[dict[str, Any]], Parity] = lambda firsts: {},
) -> tuple[Parity, dict[str, list[float]]]:
    """Every way once, untimed, in which it compiles and allocates; then all of them in order,
    `repeats` times.

    Args:
      agreement: how far what the first turns returned differs, by the ways' names; it raises
        ParityError where that is too far, and nothing is timed.

    Returns:
      What `agreement` did, and the seconds of every way's timed turns.
    """
    parity = agreement({name: way() for name, way in ways.items()})
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            since = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - since)
    return parity, seconds


def record(seconds: Mapping[str, Sequence[float]], parity: Parity, **about: Any) -> Record:
    """What a benchmark keeps of its turns; the first way is ours."""
    (_, ours), *others = seconds.items()
    ratios = {
        name: [theirs / mine for theirs, mine in zip(values, ours, strict=True)]
        for name, values in others
    }
    return {
        **about,
        "ways": {name: {"seconds": list(values)} for name, values in seconds.items()},
        "ratio": {name: spread(values) for name, values in ratios.items()},
        "parity": dict(parity),
        "versions": versions(),
        "machine": machine(),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of several turns, and the least and the most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def versions() -> dict[str, str]:
    """Of Python and of what is installed of `VERSIONS`."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The devices that JAX computes on."""
    devices = jax.devices()
    return {"device": devices[0].device_kind, "devices": len(devices), "cores": os.cpu_count()}


def keep(found: Record, out: Path) -> None:
    """Writes a record, and prints it as a table."""
    files.write_json(out, found)
    print(f"{table(found)}\n\n{out}")


def table(found: Record) -> str:
    """A line in Markdown for each way: medians and ranges."""
    rows = []
    for name, way in found["ways"].items():
        times = shown(spread(way["seconds"]))
        ratio = found["ratio"].get(name)
        rows.append((name, times, shown(ratio) if ratio else "1"))
    return markdown(("way", "s (range)", "time / ours (range)"), rows, left=1)


def shown(values: Mapping[str, float]) -> str:
    """A median with its range."""
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"
