"""Command lines: a frozen dataclass in, a user's mistakes reported without a traceback."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import tyro

from jaxrm.errors import JaxrmError

C = TypeVar("C")


def run(
    main: Callable[[C], object],
    config: type[C],
    description: str | None,
    presets: Mapping[str, C] | None = None,
) -> None:
    """Parses the command line into `config` and calls `main` with it.

    Where there are `presets`, `config` has a field `preset` that names one of them: its values are
    the defaults of all other options.

    Exits with status 1 and one message on a JaxrmError; any other exception keeps its traceback.
    """
    # Orbax installs a handler of its own when it is imported.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("jaxrm").setLevel(logging.INFO)
    try:
        main(tyro.cli(config, description=description, default=_preset(presets or {})))
    except JaxrmError as error:
        sys.exit(f"error: {error}")


def _preset(presets: Mapping[str, C]) -> C | None:
    """The preset that the command line names, if it is one; tyro refuses another name."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    named, _ = parser.parse_known_args()
    return presets.get(named.preset)
