"""A run directory is found again by its own configuration and by no other."""

import dataclasses
from datetime import date

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from jaxrm.errors import RunDirError
from jaxrm.train import rundir
from jaxrm.train.rundir import check_inputs, open_run
from tests.clock import set_today


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
    run_dir: str = "run"
    steps: int = 10
    data: tuple[str, ...] = ("a.jsonl",)
    optimizer: Optimizer = Optimizer()
    log: tuple[str, ...] = ()
    push: str = ""


def test_the_same_configuration_finds_its_run(tmp_path):
    run = open_run(tmp_path / "run", Config())
    (run / "metrics.jsonl").write_text("{}\n")
    assert open_run(tmp_path / "run", Config()) == run
    moved = run.rename(tmp_path / "moved")
    assert open_run(moved, Config(run_dir="moved")) == moved


def test_who_hears_of_a_run_is_not_what_it_is(tmp_path):
    run = open_run(tmp_path / "run", Config())
    (run / "metrics.jsonl").write_text("{}\n")
    assert open_run(run, Config(log=("wandb",), push="me/model")) == run


def test_a_run_that_never_began_may_be_configured_anew(tmp_path):
    open_run(tmp_path / "run", Config())
    open_run(tmp_path / "run", Config(steps=20))
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunDirError, match="steps: 20 there, 10 here"):
        open_run(tmp_path / "run", Config())


def test_another_configuration_is_refused_with_every_difference(tmp_path):
    run = open_run(tmp_path / "run", Config())
    (run / "metrics.jsonl").write_text("{}\n")
    other = Config(steps=20, optimizer=Optimizer(3e-4))
    with pytest.raises(RunDirError) as caught:
        open_run(tmp_path / "run", other)
    message = str(caught.value)
    assert "steps: 10 there, 20 here" in message
    assert "optimizer.learning_rate: 0.001 there, 0.0003 here" in message
    assert "data" not in message


def test_a_directory_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirError, match="no config.json"):
        open_run(tmp_path, Config())


def test_a_broken_config_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunDirError, match=r"config\.json is not JSON"):
        open_run(tmp_path, Config())


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for taken in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunDirError, match="cannot be made .*choose another --run-dir"):
            open_run(taken, Config())


@pytest.mark.parametrize("process", [0, 1])
def test_the_first_of_several_processes_writes_once_all_have_looked(tmp_path, monkeypatch, process):
    run, seen = tmp_path / "run", []

    def meet(name):
        seen.append((run / "config.json").exists())

    monkeypatch.setattr(jax, "process_index", lambda: process)
    monkeypatch.setattr(multihost_utils, "sync_global_devices", meet)
    open_run(run, Config())
    assert seen == [False, process == 0]


def test_a_run_keeps_to_what_it_began_to_read(tmp_path):
    check_inputs(tmp_path, {"the data": "a", "the base": "b"})
    check_inputs(tmp_path, {"the data": "a", "the base": "b"})
    with pytest.raises(RunDirError, match="another content of the base: put that back"):
        check_inputs(tmp_path, {"the data": "a", "the base": "c"})


def test_a_run_keeps_to_the_day_that_it_began_to_write(tmp_path, monkeypatch):
    run, monday, tuesday = tmp_path / "run", date(2026, 11, 30), date(2026, 12, 1)
    open_run(run, Config())
    set_today(monkeypatch, monday, rundir)
    assert rundir.day(run) == monday
    check_inputs(run, {"the data": "a", rundir.DAY: rundir.day(run).isoformat()})
    set_today(monkeypatch, tuesday, rundir)
    assert rundir.day(run) == monday
    # Where it left nothing else it never began; and where no template wrote a day, none is kept.
    open_run(run, Config())
    assert rundir.day(run) == tuesday
    check_inputs(run, {"the data": "a"})
    set_today(monkeypatch, monday, rundir)
    assert rundir.day(run) == monday


def test_what_a_run_recorded_is_found_by_its_name(tmp_path):
    assert rundir.recorded(tmp_path, "the base's revision") == ""
    check_inputs(tmp_path, {"the data": "a", "the base's revision": "0123abc é"})
    assert rundir.recorded(tmp_path, "the base's revision") == "0123abc é"
    assert rundir.recorded(tmp_path, "the adapter's revision") == ""


def test_other_processes_have_the_first_one_s_record(tmp_path, monkeypatch):
    """The first process's file holds a longer text than this one's, or none, or a shorter one."""
    for theirs in ("a longer one, é", "", "x"):
        content = np.frombuffer(theirs.encode(), np.uint8)
        sent = iter([np.int32(len(content)), content if theirs else np.zeros(0, np.uint8)])

        def first(mine, sent=sent):
            received = next(sent)
            assert np.shape(mine) == np.shape(received)
            return received

        monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", first)
        monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: None)
        check_inputs(tmp_path, {"the base": "mine"})
        assert rundir.recorded(tmp_path, "the base") == theirs


def test_a_run_that_never_began_may_read_something_else(tmp_path):
    run = open_run(tmp_path / "run", Config())
    check_inputs(run, {"the data": "a"})
    check_inputs(open_run(run, Config()), {"the data": "b"})
    (run / "baseline").mkdir()
    with pytest.raises(RunDirError, match="the data"):
        check_inputs(open_run(run, Config()), {"the data": "c"})
