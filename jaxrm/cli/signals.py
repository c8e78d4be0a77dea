"""Signals that are seen at once, whatever the main thread is doing.

Python runs a signal's handler between two instructions of the main thread, and within one of them
XLA compiles for minutes. What C does when the signal comes is to write its number to a file
descriptor: a thread of its own reads them here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn


@contextlib.contextmanager
def watched(
    numbers: tuple[int, ...],
    at_once: Callable[[int], None],
    in_turn: Callable[[int, FrameType | None], None] = lambda number, frame: None,
) -> Iterator[None]:
    """Within this block the signals do nothing but what is said here; then all is as before.

    Signals are left alone outside the main thread, which alone can handle them; in an interactive
    session, where whoever works in it is not to lose it; and where they are ignored (`nohup`).

    Args:
      numbers: of the signals.
      at_once: called for every signal that comes, one after the other, in a thread of its own.
      in_turn: the signals' handler, which Python calls in the main thread when that is free.
    """
    numbers = tuple(n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN)
    interactive = hasattr(sys, "ps1")
    if interactive or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    thread = threading.Thread(target=_read, args=(reader, numbers, at_once), daemon=True)
    thread.start()
    before = {number: signal.signal(number, in_turn) for number in numbers}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()
        thread.join()  # what came before this has been seen
        reader.close()


def _read(reader: socket.socket, numbers: tuple[int, ...], at_once: Callable[[int], None]) -> None:
    """Calls for each signal until there will be no more. C writes the numbers of others, too."""
    while told := reader.recv(64):
        for number in told:
            if number in numbers:
                at_once(number)


def say(text: str) -> None:
    """Writes a line to the error stream, below a progress bar where there is one."""
    print(f"\n{text}", file=sys.stderr, flush=True)


def leave(number: int, text: str) -> NoReturn:
    """Says why, and ends the process with a signal's exit status, 128 + its number.

    Nothing is waited for. The main thread may be inside XLA, which cannot be interrupted: an
    ordinary exit would wait for it, or take the interpreter away beneath it, which crashes.
    """
    say(text)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(128 + number)
