"""Scoring that is killed and goes on: the same bytes, nothing twice, and nothing of another run."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from jaxrm import score as scoring
from jaxrm.data import tokenizer as tokenizers
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, RunDirError
from jaxrm.huggingface import hub, mixture
from jaxrm.huggingface.mixture import Member
from jaxrm.partial import Partial
from tests.clock import set_today
from tests.messages_oracle import FOLDER

ROOT = Path(__file__).parents[1]

SMALL_CHUNKS = """
import sys
import jax
from jaxrm import cli, score
jax.config.update("jax_num_cpu_devices", int(sys.argv.pop(1)))
score.CHUNK = 8
cli.run(score.main, score.Config, None)
"""
"""The command, on so many devices, with a chunk of eight responses."""


def pairs(count):
    return [
        {"id": f"{i} é", "prompt": f"what is {i}? " * (1 + i % 5), "responses": ["it is", " one"]}
        for i in range(count)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 4)
    source = write(tmp_path / "in.jsonl", pairs(11))
    return scoring.Config(str(source), tmp_path / "out.jsonl", FOLDER, row_length=64, rows=1)


class Killed(BaseException):
    """As if the process were gone."""


def kill_after(monkeypatch, commits):
    """The end comes at the record of so many commits: the lines are written, and do not count."""
    commit, left = Partial._commit, commits

    def counted(self, size, state):
        nonlocal left
        if size:
            left -= 1
            if left < 0:
                raise Killed
        commit(self, size, state)

    monkeypatch.setattr(Partial, "_commit", counted)


def begin(config, commits):
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, commits)
        with pytest.raises(Killed):
            scoring.main(config)


def test_wherever_it_was_killed_the_file_is_the_same(config, tmp_path, monkeypatch, capsys):
    scoring.main(config)
    expected = config.output.read_bytes()
    assert [json.loads(line)["id"] for line in expected.splitlines()] == [
        row["id"] for row in pairs(11)
    ]
    for commits in range(6):  # of two comparisons each
        config.output.unlink()
        begin(config, commits)
        assert not config.output.exists()
        with (tmp_path / "out.jsonl.partial").open("a") as file:
            file.write('{"id": "to')
        scored = []
        in_chunks = scoring.in_chunks

        def watched(*args, scored=scored, in_chunks=in_chunks, **options):
            for chunk in in_chunks(*args, **options):
                scored.extend(comparison.id for comparison in chunk.comparisons)
                yield chunk

        with monkeypatch.context() as patch:
            patch.setattr(scoring, "in_chunks", watched)
            scoring.main(config)
        assert scored == [row["id"] for row in pairs(11)][2 * commits :]
        assert config.output.read_bytes() == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
        said = capsys.readouterr().out
        assert "11 comparisons, 22 responses, none left out" in said
        assert (f"; {2 * commits} of them scored before" in said) == (commits > 0)


def test_a_file_is_of_the_day_that_it_was_begun_on(config, tmp_path, monkeypatch):
    template = FOLDER.joinpath("chat_template.jinja").read_text("utf-8")
    (tmp_path / "dated.jinja").write_text(template + "{{ strftime_now('%d %B') }}", "utf-8")
    rows = [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in pairs(11)]
    write(Path(config.input), rows)
    config = dataclasses.replace(config, chat_template=tmp_path / "dated.jinja")
    monday, tuesday = date(2026, 11, 30), date(2026, 12, 1)
    written = {}
    for day in (tuesday, monday):
        set_today(monkeypatch, day, tokenizers)
        scoring.main(config)
        written[day] = config.output.read_bytes()
    assert written[monday] != written[tuesday]
    begin(config, 3)
    record = json.loads(Path(f"{config.output}.partial.json").read_text())
    assert record["run"]["day"] == "2026-11-30"
    set_today(monkeypatch, tuesday, tokenizers)
    scoring.main(config)
    assert config.output.read_bytes() == written[monday]


def test_what_stops_at_a_bad_row_goes_on_when_that_is_mended(config):
    rows = pairs(11)
    scoring.main(config)
    expected = config.output.read_bytes()
    config.output.unlink()
    write(Path(config.input), [*rows[:8], {"prompt": "a", "responses": [3]}, *rows[9:]])
    with pytest.raises(DataError, match="in.jsonl, row 9: field 'responses"):
        scoring.main(config)
    write(Path(config.input), rows)
    record = json.loads(Path(f"{config.output}.partial.json").read_text())
    assert record["state"]["comparisons"] >= 2
    scoring.main(config)
    assert config.output.read_bytes() == expected


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: rows[:3], "holds 3 comparisons now, but its first 6"),
        (lambda rows: [rows[0], rows[1] | {"id": "new"}, *rows[2:]], "has changed"),
        (lambda rows: [rows[0], rows[1] | {"responses": ["a", "b"]}, *rows[2:]], "has changed"),
        (lambda rows: rows[1:], "has changed"),
    ],
)
def test_an_input_that_changed_is_refused(config, change, problem):
    begin(config, 3)
    write(Path(config.input), change(pairs(11)))
    with pytest.raises(DataError, match=f"{problem}.* remove .*out.jsonl.partial.json to begin"):
        scoring.main(config)
    write(Path(config.input), pairs(11))
    scoring.main(config)
    assert len(config.output.read_bytes().splitlines()) == 11


def test_another_model_input_or_option_is_refused_by_name(config, tmp_path):
    begin(config, 1)
    for option in ({"dtype": "bfloat16"}, {"input": f"{config.input}?every=2"}):
        with pytest.raises(RunDirError, match=f"{next(iter(option))}: .* there, .* here"):
            scoring.main(dataclasses.replace(config, **option))
    template = tmp_path / "template.jinja"
    shutil.copy(FOLDER / "chat_template.jinja", template)
    with pytest.raises(RunDirError, match=r"chat template: \(absent\) there, [0-9a-f]{16} here"):
        scoring.main(dataclasses.replace(config, chat_template=template))
    other = tmp_path / "model"
    shutil.copytree(FOLDER, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(RunDirError, match="model model.safetensors: .* there, .* here"):
        scoring.main(dataclasses.replace(config, model=other))


def test_another_member_is_refused_by_name(config, tmp_path):
    place, model = tmp_path / "mixture", hub.load(FOLDER, None)
    members = Member("first", "rewards", 0.5), Member("second", "rewards", 0.5)
    mixture.save(place, [(model, member) for member in members], load_tokenizer(FOLDER))
    config = dataclasses.replace(config, model=place)
    begin(config, 1)
    path = place / "second" / "config.json"
    said = path.read_text()
    path.write_text(said + " ")
    with pytest.raises(RunDirError, match="model second config.json: .* there, .* here"):
        scoring.main(config)
    path.write_text(said)
    mixed = (place / "config.json").read_text()
    (place / "config.json").write_text(mixed.replace("0.5", "0.25", 1))
    with pytest.raises(RunDirError, match="model config.json: .* there, .* here"):
        scoring.main(config)
    (place / "config.json").write_text(mixed)
    scoring.main(config)
    assert len(config.output.read_bytes().splitlines()) == 11


def test_a_model_may_move_and_rows_may_change_on_the_way(config, tmp_path):
    begin(config, 1)
    moved = tmp_path / "moved"
    shutil.copytree(FOLDER, moved)
    scoring.main(dataclasses.replace(config, model=moved, row_length=32))
    assert len(config.output.read_bytes().splitlines()) == 11


def start(arguments, devices=1, **environment):
    command = [sys.executable, "-c", SMALL_CHUNKS, str(devices), *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_kill_9_at_any_time_changes_no_byte(tmp_path):
    source = write(tmp_path / "in.jsonl", pairs(2000))
    options = ["--model", FOLDER, "--row-length", 64, "--rows", 1, source]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert start([*options, whole]).wait() == 0
    kills, rng, part = 0, random.Random(0), tmp_path / "out.jsonl.partial"
    while not out.exists():
        before = part.stat().st_size if part.exists() else 0
        process = start([*options, out])
        while process.poll() is None and (not part.exists() or part.stat().st_size <= before):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is None and kills < 6:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 3
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("out.jsonl.*"))


@pytest.mark.slow
def test_several_processes_go_on_together(tmp_path):
    source = write(tmp_path / "in.jsonl", pairs(1000))
    options = ["--model", FOLDER, "--row-length", 64, "--rows", 2, source]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    part = tmp_path / "out.jsonl.partial"

    def both(output):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        announced = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
        return [
            start([*options, output], **announced, JAX_PROCESS_ID=str(index)) for index in range(2)
        ]

    for process in both(whole):
        assert process.wait(timeout=120) == 0
    processes = both(out)
    while not part.exists() or part.stat().st_size < 5000:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.001)
    for process in processes:
        process.kill()
        process.wait()
    assert not out.exists()
    for process in both(out):
        assert process.wait(timeout=120) == 0, process.stderr.read()
    assert out.read_bytes() == whole.read_bytes()
