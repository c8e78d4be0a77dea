"""The console command: every command of the library under one name.

    jaxrm COMMAND ...       # or python -m jaxrm COMMAND ...

Each is the same as the `python -m` that its own help names. Only the one that runs is imported.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

from jaxrm.errors import meant


def score() -> None:
    """Rewards for a file of comparisons of any size."""
    from jaxrm import score as command

    _run(command)


def evaluate() -> None:
    """A model, or anything that scores, on benchmarks and sets of your own."""
    from jaxrm.evaluate import __main__ as command

    _run(command)


def compare() -> None:
    """Two evaluations: is the difference more than luck?"""
    from jaxrm.evaluate import compare as command

    _run(command)


def diagnose() -> None:
    """What a reward model listens to, besides what it should."""
    from jaxrm.evaluate import diagnose as command

    _run(command)


def train() -> None:
    """A reward model by any method of the literature.

        jaxrm train --method list
        jaxrm train --method bsr                      # the toy world, on a laptop
        jaxrm train --method inform --base DIR --data SOURCE --eval SOURCE --run-dir RUN

    Trains it, scores every split of --eval, reports, and leaves RUN/NAME/export, a model directory.
    The same command with the same run directory goes on where it was stopped. Where no --preset is
    named, the base's size chooses one; without --eval a tenth of the prompts of --data is held out.
    """
    from jaxrm.methods.library import METHODS
    from jaxrm.study import command

    command.run(METHODS, inspect.getdoc(train))


def convert() -> None:
    """A model directory in another layout, with every conversion checked."""
    from jaxrm import convert as command

    _run(command)


def audit() -> None:
    """What is in a preference data set, and does it touch an evaluation set?"""
    from jaxrm.data.audit import __main__ as command

    _run(command)


def report() -> None:
    """A run's page again, from its results."""
    from jaxrm.report import __main__ as command

    _run(command)


COMMANDS = {
    command.__name__: command
    for command in (train, score, evaluate, compare, diagnose, audit, convert, report)
}
"""In the order in which they are listed."""


def main() -> None:
    """Runs the command that the first argument names.

    Exits with status 2 where there is none of that name, as for any argument that is not known.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(listed())
        return
    if name not in COMMANDS:
        print(f"error: no command {name!r}: {meant(name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    # What parses the rest takes this for the program's name in its usage.
    sys.argv = [f"jaxrm {name}", *sys.argv[2:]]
    try:
        COMMANDS[name]()
    except KeyboardInterrupt:  # within its imports: what it does is `jaxrm.cli`'s to interrupt
        print("\ninterrupted before it began", file=sys.stderr)
        sys.exit(130)


def listed() -> str:
    """Every command with a line of its own."""
    lines = (f"  {name:10}{inspect.getdoc(of).splitlines()[0]}" for name, of in COMMANDS.items())
    return "\n".join(
        [
            "usage: jaxrm COMMAND ...",
            "",
            *lines,
            "",
            "jaxrm COMMAND --help lists a command's options.",
        ]
    )


def _run(command: ModuleType) -> None:
    """A module's own command."""
    from jaxrm import cli

    cli.run(command.main, command.Config, command.__doc__)


if __name__ == "__main__":
    main()
