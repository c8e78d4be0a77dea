"""Jobs that are numbers: what is run, kept, refused and ended."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrm.errors import DataError, OptionError
from jaxrm.train import sweep as module
from jaxrm.train.sweep import TERMINATED, key, left, sweep


@dataclasses.dataclass(frozen=True)
class Job:
    number: int
    folder: Path = Path("x")


def square(job):
    return {"square": job.number**2}


def fail_at_three(job):
    if job.number == 3:
        raise ZeroDivisionError("no three")
    return square(job)


def refuse_at_three(job):
    if job.number == 3:
        raise DataError("rows.jsonl:7: no order\nsay which is better")
    return square(job)


def warn(job):
    logging.getLogger("jaxrm.of_jobs").warning("a known thing")
    return square(job)


def die_at_three(job):
    if job.number == 3:
        os._exit(1)
    return square(job)


def cores(job):
    time.sleep(0.5)  # long enough for the other process to take the other job
    return {"cores": sorted(os.sched_getaffinity(0)), "process": os.getpid()}


def wait_for_the_end(job):
    (job.folder / "process").write_text(str(os.getpid()))
    time.sleep(60)
    return {}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_runs_once_and_its_record_comes_in_its_place(tmp_path, workers):
    jobs = [Job(2), Job(1), Job(2), Job(4)]
    assert sweep(jobs, square, tmp_path, workers=workers) == [
        {"square": 4},
        {"square": 1},
        {"square": 4},
        {"square": 16},
    ]
    assert len(list(tmp_path.iterdir())) == 3
    content = json.loads((tmp_path / f"{key(Job(4))}.json").read_text())
    assert content == {"job": {"number": 4, "folder": "x"}, "record": {"square": 16}}


def test_what_has_a_record_is_not_run_again(tmp_path):
    sweep([Job(3)], square, tmp_path, workers=1)
    assert sweep([Job(3), Job(2)], fail_at_three, tmp_path, workers=1)[0] == {"square": 9}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_names_its_job_and_what_was_finished_stays(tmp_path, workers):
    with pytest.raises(RuntimeError, match=r"Job\(number=3.*failed[\s\S]*no three"):
        sweep([Job(1), Job(3), Job(5), Job(6)], fail_at_three, tmp_path, workers=workers)
    assert (tmp_path / f"{key(Job(1))}.json").exists() or workers == 2
    assert not (tmp_path / f"{key(Job(3))}.json").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_a_user_can_mend_keeps_its_type_and_its_words(tmp_path, workers):
    with pytest.raises(DataError) as raised:
        sweep([Job(3), Job(3, Path("y"))], refuse_at_three, tmp_path, workers=workers)
    first, second, job = str(raised.value).splitlines()
    assert (first, second) == ("rows.jsonl:7: no order", "say which is better")
    assert job.startswith("(in the job: Job(number=3, folder=")


def test_what_all_jobs_warn_of_is_said_once_by_each_process(tmp_path, capfd):
    sweep([Job(n) for n in range(6)], warn, tmp_path, workers=2)
    assert 1 <= capfd.readouterr().err.count("WARNING: a known thing") <= 2


def test_the_time_left_is_told_when_each_worker_has_done_a_job():
    assert left(1, 9, 2, 60.0) == "time left: known after 2 jobs"
    assert left(0, 1, 2, 0.0) == "time left: known after 1 job"
    assert left(2, 9, 2, 60.0) == "about 03:30 left"  # 7 jobs at 30 seconds each
    assert left(0, 0, 2, 0.0) == "about 00:00 left"


def test_a_process_that_dies_names_its_job(tmp_path):
    with pytest.raises(RuntimeError, match=r"process that ran Job\(number=3.* died"):
        sweep([Job(3), Job(3, Path("y"))], die_at_three, tmp_path, workers=2)


def test_a_job_is_its_content():
    assert key(Job(1)) == key(Job(1, Path("x")))
    assert len({key(Job(1)), key(Job(2)), key(Job(1, Path("y")))}) == 3


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(module.os, "sched_setaffinity", print, raising=False)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {1, 2, 4, 7, 9}, raising=False)
    assert module._shares(2) == [{1, 4, 9}, {2, 7}]
    assert module._shares(6) == [set()] * 6


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there are no two cores to share",
)
def test_processes_keep_to_their_own_cores(tmp_path):
    mine = os.sched_getaffinity(0)
    records = sweep([Job(1), Job(2)], cores, tmp_path, workers=2)
    assert len({record["process"] for record in records}) == 2
    first, second = (set(record["cores"]) for record in records)
    assert first | second == mine == os.sched_getaffinity(0)
    assert not first & second


def test_sigterm_ends_the_processes_too(tmp_path):
    command = (
        "from pathlib import Path; from jaxrm.train.sweep import sweep; "
        "from tests.train.test_sweep import Job, wait_for_the_end; "
        f"folder = Path({str(tmp_path)!r}); "
        "jobs = [Job(n, folder) for n in (1, 2)]; "
        "sweep(jobs, wait_for_the_end, folder / 'out', workers=2)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", command], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while not ((tmp_path / "process").exists() and (tmp_path / "process").read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    child = int((tmp_path / "process").read_text())
    parent.send_signal(signal.SIGTERM)
    parent.communicate(timeout=30)
    assert parent.returncode == TERMINATED
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_no_workers_is_refused(tmp_path):
    with pytest.raises(OptionError, match="workers must be at least 1"):
        sweep([Job(1)], square, tmp_path, workers=0)
