"""Many independent jobs in processes of their own, each result in a file: a sweep resumes.

A job is a frozen dataclass that says all that its record depends on, so that the hash of its
content names the record's file, and a job is the same job wherever it comes from.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import jax
from tqdm import tqdm

from jaxrm import files
from jaxrm.errors import JaxrmError, require

J = TypeVar("J")
Record = dict[str, Any]
"""What a job found, as JSON holds it."""

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
"""Of tqdm, whose own estimate takes the pace of the first worker for that of all."""

TERMINATED = 128 + signal.SIGTERM
"""The exit status of a sweep that SIGTERM ended."""


def sweep(
    jobs: Sequence[J],
    run: Callable[[J], Record],
    out: Path,
    *,
    workers: int | None = None,
    progress: str = "sweep",
) -> list[Record]:
    """Runs the jobs that have no record in `out` yet, and returns the records of all.

    Jobs are handed out in order, one at a time, to processes that each keep what `run` caches and
    that share the machine's cores evenly among them. A record is written when its job is done, as
    `out/<key>.json` with {"job", "record"}; whatever ends the sweep early, those stay.

    Args:
      jobs: hashable frozen dataclasses of what JSON can hold (and paths); equal ones run once.
      run: a function of a module. It must depend on the job alone.
      out: the records' directory, which may hold those of other sweeps too.
      workers: processes; 1 runs the jobs in this one. Without it there is one for each core of a
        CPU, and one on an accelerator.
      progress: the bar's title.

    Raises:
      OptionError: no workers.
      JaxrmError: a job met one, of which this is the type and the message, with the job's name.
      RuntimeError: a job failed otherwise, or its process died; the message names the job and has
        the traceback.
      SystemExit: 143, after SIGTERM.
    """
    if workers is None:
        workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    require(workers >= 1, "workers", "at least 1", workers)
    paths = {job: out / f"{key(job)}.json" for job in jobs}
    waiting = [job for job, path in paths.items() if not path.exists()]
    done = len(paths) - len(waiting)
    runner = _in_turn if workers == 1 else _in_processes
    bar = tqdm(total=len(paths), initial=done, desc=progress, unit="job", bar_format=BAR)
    began = time.monotonic()
    with (
        _sigterm_raises(),
        bar,
        contextlib.closing(runner(waiting, run, workers)) as finished,
    ):
        bar.set_postfix_str(left(0, len(waiting), workers, 0.0))
        for count, (job, record) in enumerate(finished, 1):
            with files.replacing(paths[job]) as draft:
                content = {"job": dataclasses.asdict(job), "record": record}
                draft.write_text(json.dumps(content, default=str) + "\n", encoding="utf-8")
            words = left(count, len(waiting), workers, time.monotonic() - began)
            bar.set_postfix_str(words, refresh=False)
            bar.update()
    return [json.loads(paths[job].read_bytes())["record"] for job in jobs]


def left(finished: int, jobs: int, workers: int, seconds: float) -> str:
    """How long the rest of a sweep takes, in words, as far as one can know.

    That is from the first job of each worker on: the pace of fewer is that of one worker alone.

    Args:
      finished: of `jobs`, in so many seconds.
    """
    first = min(workers, jobs)
    if finished < first:
        return f"time left: known after {first} job{'s' if first > 1 else ''}"
    rest = (jobs - finished) * seconds / finished if finished else 0.0
    return f"about {tqdm.format_interval(round(rest))} left"


def key(job: Any) -> str:
    """The hash of a job's content, 20 hexadecimal digits."""
    content = json.dumps(dataclasses.asdict(job), sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:20]


@dataclasses.dataclass(frozen=True)
class _Refused:
    """What a process answers where a job met an error that a user can mend."""

    kind: type[JaxrmError]
    message: str


@dataclasses.dataclass(frozen=True)
class _Failed:
    """What a process answers where a job met any other error."""

    traceback: str


def _named(kind: type[JaxrmError], message: str, job: Any) -> JaxrmError:
    return kind(f"{message}\n(in the job: {job})")


def _in_turn(
    jobs: Sequence[J], run: Callable[[J], Record], workers: int
) -> Iterator[tuple[J, Record]]:
    for job in jobs:
        try:
            record = run(job)
        except JaxrmError as error:
            raise _named(type(error), str(error), job) from error
        except Exception as error:
            raise RuntimeError(f"{job} failed: {error}") from error
        yield job, record


def _in_processes(
    jobs: Sequence[J], run: Callable[[J], Record], workers: int
) -> Iterator[tuple[J, Record]]:
    # Spawned, because a fork of a process in which JAX has threads can lock up.
    context = multiprocessing.get_context("spawn")
    queue = collections.deque(jobs)
    running: dict[Connection, J] = {}
    processes = []

    def hand_out(connection: Connection) -> None:
        if queue:
            running[connection] = queue.popleft()
            with contextlib.suppress(BrokenPipeError):  # a dead process, which recv tells below
                connection.send(running[connection])

    try:
        for cores in _shares(min(workers, len(queue))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, run, cores), daemon=True)
            process.start()
            processes.append(process)
            theirs.close()
            hand_out(ours)
        while running:
            for connection in wait(list(running)):
                job = running.pop(connection)
                try:
                    reply = connection.recv()
                except (EOFError, ConnectionResetError) as error:
                    raise RuntimeError(f"the process that ran {job} died") from error
                if isinstance(reply, _Refused):
                    raise _named(reply.kind, reply.message, job)
                if isinstance(reply, _Failed):
                    raise RuntimeError(f"{job} failed in its process:\n{reply.traceback}")
                hand_out(connection)
                yield job, reply
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _serve(connection: Connection, run: Callable[[Any], Record], cores: set[int]) -> None:
    """A process's life: it runs what it is sent until whoever sends is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the others
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Once())
    if cores:
        os.sched_setaffinity(0, cores)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            try:
                reply = run(job)
            except JaxrmError as error:
                reply = _Refused(type(error), str(error))
            except Exception:
                reply = _Failed(traceback.format_exc())
            connection.send(reply)


class _Once(logging.Filter):
    """Lets what many jobs of a process have to say through once."""

    def __init__(self):
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        text = record.getMessage()
        new = text not in self.said
        self.said.add(text)
        return new


def _shares(workers: int) -> list[set[int]]:
    """The cores of each worker; empty sets where the system does not pin, or cores are too few.

    XLA makes as many threads as it sees cores, and two processes that both take all of them do less
    than two that keep to their own.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) < workers:
        return [set() for _ in range(workers)]
    return [set(cores[first::workers]) for first in range(workers)]


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM leaves this block as an exception, so that processes are ended behind it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(TERMINATED)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
