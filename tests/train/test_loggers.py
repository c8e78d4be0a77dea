"""What TensorBoard and wandb get is metrics.jsonl, also of a run that is resumed."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import jax
import pytest

from jaxrm.errors import OptionError
from jaxrm.train import loggers, loop
from tests.train.test_loop import lines, quick


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.5
    base: Path = Path("somewhere")


def scalars(run_dir):
    """{tag: {step: value}} as TensorBoard shows it: of a step that a later file takes back, nothing
    before that file counts."""
    from tensorboardX.proto.event_pb2 import Event

    shown = {}
    for path in sorted((run_dir / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        for record in records(path.read_bytes()):
            event = Event.FromString(record)
            if event.HasField("session_log"):
                shown = {
                    tag: {step: value for step, value in values.items() if step < event.step}
                    for tag, values in shown.items()
                }
            for value in event.summary.value:
                shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown


def records(content):
    """TFRecord's: a length of 8 bytes, 4 of checksum, the record, 4 of checksum."""
    while content:
        size = int.from_bytes(content[:8], "little")
        yield content[12 : 12 + size]
        content = content[16 + size :]


def expected(run_dir):
    found = {}
    for line in lines(run_dir):
        step = line.pop("step")
        for name, value in line.items():
            found.setdefault(name, {})[step] = pytest.approx(value, rel=1e-6)
    return found


def test_tensorboard_shows_every_step_once(tmp_path):
    pytest.importorskip("tensorboardX")
    options = {"loggers": loggers.chosen(["tensorboard"], Config()), "log_every": 1, "steps": 5}
    quick(tmp_path, checkpoint_every=3, **options)
    assert set(scalars(tmp_path)["loss"]) == {1, 2, 3, 4, 5}
    assert scalars(tmp_path) == expected(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "5")  # as if killed before step 5 was saved
    quick(tmp_path, checkpoint_every=3, **options)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert scalars(tmp_path) == expected(tmp_path)


class Recorded:
    """A log in memory."""

    def __init__(self, run_dir, step):
        self.opened, self.lines, self.closed = (run_dir, step), [], False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.closed = True

    def write(self, line):
        self.lines.append(dict(line))


def recorded(run_dir, **options):
    made = []
    logger = lambda *place: made.append(Recorded(*place)) or made[-1]  # noqa: E731
    quick(run_dir, loggers=[logger], **options)
    return made


def test_a_logger_gets_the_lines_of_the_file_from_where_the_run_goes_on(tmp_path):
    [log] = recorded(tmp_path)
    assert log.opened == (tmp_path, 0)
    assert log.lines == lines(tmp_path)
    assert log.closed
    assert recorded(tmp_path) == [], "a finished run logs nothing"
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    [log] = recorded(tmp_path)
    assert log.opened == (tmp_path, 2)
    assert log.lines == lines(tmp_path)[1:]


def test_only_the_first_process_logs(tmp_path, monkeypatch):
    class Second:
        """JAX as the loop of the second process sees it."""

        process_index = staticmethod(lambda: 1)

        def __getattr__(self, name):
            return getattr(jax, name)

    monkeypatch.setattr(loop, "jax", Second())
    assert recorded(tmp_path) == []
    assert not (tmp_path / "metrics.jsonl").exists()


def test_wandb_gets_the_lines_in_a_run_of_one_id(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    seen, init = [], wandb.init

    def watched(**options):
        run = init(**options)
        log, lines = run.log, []
        seen.append((options, lines))
        run.log = lambda values, step: lines.append({"step": step, **values}) or log(values, step)
        return run

    monkeypatch.setattr(wandb, "init", watched)
    run_dir = tmp_path / "run" / "grm"
    for _ in range(2):
        quick(run_dir, loggers=loggers.chosen(["wandb"], Config()))
        (run_dir / "checkpoints" / "4").exists() and shutil.rmtree(run_dir / "checkpoints" / "4")
    [(options, first), (again, second)] = seen
    assert options == again
    assert options["project"] == "jaxrm"
    assert options["name"] == "run/grm"
    assert options["config"] == {"rate": 0.5, "base": "somewhere"}
    assert [line["step"] for line in first] == [2, 4]
    assert second == lines(run_dir)[1:]
    left = sorted((run_dir / "wandb").glob("offline-run-*"))
    assert left
    assert all(path.name.endswith(options["id"]) for path in left)


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch, name, package):
    find = loggers.importlib.util.find_spec
    absent = lambda wanted: None if wanted == package else find(wanted)  # noqa: E731
    monkeypatch.setattr(loggers.importlib.util, "find_spec", absent)
    with pytest.raises(OptionError, match=rf"--log {name} .*pip install 'jaxrm\[{name}\]'"):
        loggers.chosen([name], Config())
    assert loggers.chosen([], Config()) == ()


def test_without_a_login_wandb_is_a_mistake_of_the_user(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refuse(**options):
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(OptionError, match="No API key configured: log in with `wandb login`"):
        quick(tmp_path, loggers=loggers.chosen(["wandb"], Config()))
    assert lines(tmp_path) == []
