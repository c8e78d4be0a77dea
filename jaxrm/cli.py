"""Command lines: a frozen dataclass in, a user's mistakes reported without a traceback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from jaxrm.errors import JaxrmError

C = TypeVar("C")


def run(main: Callable[[C], object], config: type[C], description: str | None) -> None:
    """Parses the command line into `config` and calls `main` with it.

    Exits with status 1 and one message on a JaxrmError; any other exception keeps its traceback.
    """
    # Orbax installs a handler of its own when it is imported.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("jaxrm").setLevel(logging.INFO)
    try:
        main(tyro.cli(config, description=description))
    except JaxrmError as error:
        sys.exit(f"error: {error}")
