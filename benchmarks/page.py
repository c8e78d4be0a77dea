"""The tables of a page from the records that benchmarks left.

    python -m benchmarks.page docs/performance.md docs/performance

In the page each table stands between `<!-- records: PATTERN -->` and `<!-- end -->`, and is made of
the JSON files of the directory whose names match the pattern, in order.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import tyro

from benchmarks.turns import Record, shown, spread
from jaxrm import cli
from jaxrm.errors import DataError
from jaxrm.files import replacing
from jaxrm.report.tables import markdown

TABLE = re.compile(r"(<!-- records: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = ("work", "data", "ours, s (range)", "peer", "peer's time / ours (range)")


@dataclasses.dataclass(frozen=True)
class Config:
    """A page and its records."""

    page: tyro.conf.Positional[Path]
    """Markdown, in which tables are put in their places."""
    records: tyro.conf.Positional[Path]
    """A directory of JSON files (see benchmarks.turns)."""


def main(cfg: Config) -> None:
    """Puts every table in its place."""
    text = filled(cfg.page.read_text("utf-8"), cfg.records)
    with replacing(cfg.page) as draft:
        draft.write_text(text, "utf-8")
    print(cfg.page)


def filled(page: str, directory: Path) -> str:
    """The page with its tables made again.

    Raises DataError where no record matches a table's pattern.
    """

    def one(found: re.Match[str]) -> str:
        paths = sorted(directory.glob(f"{found[2]}.json"))
        if not paths:
            raise DataError(f"{directory}: no record matches {found[2]}")
        records = [json.loads(path.read_text("utf-8")) for path in paths]
        return f"{found[1]}\n{machines(records)}\n\n{table(records)}\n\n{found[3]}"

    return TABLE.sub(one, page)


def machines(records: Sequence[Record]) -> str:
    """What the records were made on and with, once where it is the same for all."""
    lines = dict.fromkeys(_machine(record) for record in records)
    return "; ".join(lines) + "."


def _machine(record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    parts = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine['devices']} {machine['device']} ({machine['cores']} cores), {parts}"


def table(records: Sequence[Record]) -> str:
    """A line for each peer of each record."""
    rows = []
    for record in records:
        (_, ours), *_ = record["ways"].items()
        first = [described(record), record["data"], shown(spread(ours["seconds"]))]
        for name, ratio in (record["ratio"] or {"none": None}).items():
            rows.append([*first, name, "" if ratio is None else shown(ratio)])
            first = ["", "", ""]
    return markdown(HEAD, rows, left=2)


def described(record: Mapping) -> str:
    """What a record's work was."""
    work = record["work"]
    if "step" not in record:
        return f"{record['base']}: {work['responses']:,} responses, {work['tokens']:,} tokens"
    sizes = f"{work['pairs']} pairs, {work['mean prompt']:.0f} + {work['mean response']:.0f} tokens"
    return f"{record['base']}, {record['step']}: {sizes}"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
