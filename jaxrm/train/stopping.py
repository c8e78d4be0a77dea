"""A training run that SIGTERM or Ctrl-C (SIGINT) asks to stop: what that does, and when."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrm.cli import signals

GO_ON = "the same command with the same --run-dir goes on from there"

_AGAIN = 1.0
"""Seconds after which Ctrl-C means that it was pressed again: some launchers pass on what the
terminal has sent already."""


class Stop:
    """Whether a run is to stop, as long as it is `caught`.

    Until `steps_begin` there is nothing to save that is not saved, and a signal ends the process
    there and then, in the middle of a compilation too. From there on the run asks `agreed` after
    each step. Ctrl-C that is pressed again ends the process at any time; what is under way then
    counts as never done, because checkpoints become valid as a whole.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._number, self._since, self._stepping = 0, 0.0, False

    @property
    def number(self) -> int:
        """The signal's that asked first; 0 without one."""
        return self._number

    def steps_begin(self) -> None:
        """From here on there are steps to save."""
        with self._lock:
            self._stepping = True

    def agreed(self, *, meeting: bool) -> int:
        """The number of the signal to stop for after this step, the same in every process, or 0.

        A signal reaches processes at different steps, and one that stopped alone would leave the
        others waiting for it: several processes decide together, at steps where they wait anyway.
        """
        if jax.process_count() == 1:
            return self._number
        if not meeting:
            return 0
        return int(multihost_utils.process_allgather(np.array(self._number)).max())

    def _ask(self, number: int) -> None:
        with self._lock:
            if self._number:
                if number == signal.SIGINT and time.monotonic() - self._since > _AGAIN:
                    signals.leave(number, f"left at once. What is saved stays: {GO_ON}")
                return
            self._number, self._since = number, time.monotonic()
            if jax.process_count() > 1:
                signals.say("stopping: at the next logged step, where all processes do, and saved")
            elif self._stepping:
                signals.say(
                    "stopping: the step under way is finished and saved first (Ctrl-C again leaves "
                    "at once)"
                )
            else:
                signals.leave(
                    number,
                    "stopping: before the first step, so there is nothing new to save. What is "
                    f"saved stays: {GO_ON}",
                )


@contextlib.contextmanager
def caught() -> Iterator[Stop]:
    """A `Stop` that SIGTERM and Ctrl-C ask, where `signals.watched` can watch them."""
    stop = Stop()
    with signals.watched((signal.SIGTERM, signal.SIGINT), stop._ask):
        yield stop
