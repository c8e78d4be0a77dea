"""Makes a run's page again, and prints its headline table.

    python -m jaxrm.report RUN

reads RUN/results.json, RUN/config.json and RUN/<model>/metrics.jsonl (see jaxrm.report.run).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from jaxrm import cli
from jaxrm.report import run


@dataclasses.dataclass(frozen=True)
class Config:
    """Make a run's report again."""

    run: tyro.conf.Positional[Path]
    """A run directory with its results.json."""


def main(config: Config) -> None:
    """Writes RUN/report.html, and prints the headline table."""
    path = run.render(config.run)
    print(f"{run.table(run.read(config.run))}\n\n{path}")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
