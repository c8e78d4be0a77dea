"""Signals are seen by a thread while the main thread is busy, and never twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxrm.cli import signals

NUMBERS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _heeded():
    """Ctrl-C as Python has it, also where a shell that began the tests in the background ignores
    it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_is_seen_while_python_cannot_run_its_handler():
    seen, came, order = [], threading.Event(), []

    def at_once(number):
        seen.append((number, threading.current_thread()))
        order.append("at once")
        came.set()

    in_turn = lambda number, frame: order.append("in turn")  # noqa: E731
    with signals.watched(NUMBERS, at_once, in_turn):
        os.kill(os.getpid(), signal.SIGTERM)
        assert came.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
    assert [number for number, _ in seen] == [signal.SIGTERM, signal.SIGINT]
    assert all(thread is not threading.main_thread() for _, thread in seen)
    assert order.count("at once") == order.count("in turn") == 2


def test_other_signals_go_where_they_went_and_everything_is_put_back():
    mine = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: mine.append(number))
    handlers = [signal.getsignal(number) for number in NUMBERS]
    seen = []
    try:
        with signals.watched(NUMBERS, seen.append):
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert mine == [signal.SIGUSR1]
    assert seen == []
    assert [signal.getsignal(number) for number in NUMBERS] == handlers
    wakeup = signal.set_wakeup_fd(-1)
    assert wakeup == -1


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    seen = []
    try:
        with signals.watched(NUMBERS, seen.append):
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == []


def test_leaving_flushes_and_runs_nothing_more():
    code = (
        "import atexit; from jaxrm.cli import signals; atexit.register(print, 'ran'); "
        "print('printed', end=''); signals.leave(2, 'the reason')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "printed", "\nthe reason\n")
