from __future__ import annotations

import json

import pytest

from jaxrm.train.metrics import MetricsLog


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_in_the_file_at_once_and_not_finite_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(tmp_path, 0) as metrics:
        metrics.write({"step": 1, "loss": 0.1, "share": float("nan")})
        assert lines(path) == [{"step": 1, "loss": 0.1, "share": None}]


@pytest.mark.parametrize("tail", ["", '{"step": 5', '{"step": 5}', '{"step": 6}\n{"st'])
def test_resuming_keeps_only_whole_lines_up_to_the_step(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n' + tail)
    with MetricsLog(tmp_path, 4) as metrics:
        metrics.write({"step": 5, "loss": 1.0})
    assert lines(path) == [{"step": 2}, {"step": 4}, {"step": 5, "loss": 1.0}]
    with MetricsLog(tmp_path, 0):
        assert lines(path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]
