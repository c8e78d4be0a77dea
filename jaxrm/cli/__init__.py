"""Command lines: a frozen dataclass in, a user's mistakes and Ctrl-C out without a traceback."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TypeVar

import tyro

from jaxrm.cli import elsewhere, signals
from jaxrm.cli.help import HELP, command_name, help_text, options_of
from jaxrm.errors import JaxrmError

C = TypeVar("C")

_PATIENCE = 2.0
"""Seconds in which Ctrl-C has to reach Python code before the process is ended without."""


def run(
    main: Callable[[C], object],
    config: type[C],
    description: str | None,
    presets: Mapping[str, C] | None = None,
) -> None:
    """Parses the command line into `config` and calls `main` with it.

    Where there are `presets`, `config` has a field `preset` that names one of them: its values are
    the defaults of all other options. Where `config` has a class variable `GROUPS` (see
    `help.Groups`), --help lists the options by it.

    Exits with status 1 and one message on a JaxrmError, and with 130 on Ctrl-C; any other exception
    keeps its traceback.
    """
    # Orbax installs a handler of its own when it is imported.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("jaxrm").setLevel(logging.INFO)
    parsed = _parse(config, description, _preset(presets or {}))
    run_dir = getattr(parsed, "run_dir", None)
    # A command with a run directory finds there what it has done; others may begin again.
    kept = "" if run_dir is None else f": the same command goes on from what is saved in {run_dir}"
    said = f"interrupted{kept}"
    try:
        with _interruptible(said):
            main(parsed)
    except JaxrmError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        # What was open is closed by now, and JAX may have left XLA compiling behind: an ordinary
        # exit would wait for that.
        signals.leave(signal.SIGINT, said)


def _parse(config: type[C], description: str | None, default: C | None) -> C:
    """What the command line says. Exits where it asks for help, and where it is wrong."""
    options, given = options_of(config, default), sys.argv[1:]
    if not set(HELP).isdisjoint(given):
        print(help_text(options, description, getattr(config, "GROUPS", {})))
        sys.exit(0)
    try:
        return tyro.cli(config, prog=command_name(), description=description, default=default)
    except SystemExit:
        for hint in elsewhere.hints(given, [option.path for option in options]):
            print(hint, file=sys.stderr)
        raise
    except JaxrmError as error:
        sys.exit(f"error: {error}")


def _preset(presets: Mapping[str, C]) -> C | None:
    """The preset that the command line names, if it is one; tyro refuses another name."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    named, _ = parser.parse_known_args()
    return presets.get(named.preset)


@contextlib.contextmanager
def _interruptible(said: str) -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt in here, as always; but where the main thread stays in C++, as
    XLA does for as long as it compiles, the process ends with `said`, and what it has written stays
    as after a kill."""
    arrived = threading.Event()

    def in_turn(number: int, frame: FrameType | None) -> None:
        arrived.set()
        raise KeyboardInterrupt

    def at_once(number: int) -> None:
        if not arrived.wait(_PATIENCE):
            signals.leave(number, said)

    with signals.watched((signal.SIGINT,), at_once, in_turn):
        yield
