"""A file in the making: what was committed survives, what was not is written over."""

from __future__ import annotations

import json

import pytest

from jaxrm.errors import DataError, RunDirError
from jaxrm.partial import Partial, begun, digests

RUN = {"model": "m", "input": "i"}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


def names(output):
    return sorted(path.name for path in output.parent.iterdir())


def test_portions_become_a_file_that_appears_at_the_end(output):
    partial = Partial(output, RUN)
    assert partial.state is None
    assert names(output) == []
    partial.append("a\nb\n", {"rows": 2})
    partial.append("ü\n", {"rows": 3})
    assert names(output) == ["out.jsonl.partial", "out.jsonl.partial.json"]
    partial.finish()
    assert names(output) == ["out.jsonl"]
    assert output.read_text("utf-8") == "a\nb\nü\n"


def test_what_a_part_is_of_can_be_asked_beforehand(output):
    assert begun(output) == {}
    partial = Partial(output, RUN)
    partial.append("a\n", {"rows": 1})
    assert begun(output) == RUN
    partial.record.write_text("{")
    assert begun(output) == {}
    partial.append("b\n", {"rows": 2})
    partial.path.unlink()
    assert begun(output) == {}  # a record alone is of nothing


def test_what_was_not_committed_is_written_over(output):
    partial = Partial(output, RUN)
    partial.append("a\n", {"rows": 1})
    with partial.path.open("a") as file:
        file.write("b\nc\nd")  # longer than what comes instead
    again = Partial(output, RUN)
    assert again.state == {"rows": 1}
    again.append("B\n", {"rows": 2})
    again.finish()
    assert output.read_text() == "a\nB\n"


def test_a_first_portion_that_was_cut_off_is_ours(output, monkeypatch):
    partial = Partial(output, RUN)
    commit = partial._commit

    def killed(size, state):
        if size:
            raise KeyboardInterrupt
        commit(size, state)

    monkeypatch.setattr(partial, "_commit", killed)
    with pytest.raises(KeyboardInterrupt):
        partial.append("a\nb\n", {"rows": 2})
    assert partial.path.read_text() == "a\nb\n"
    again = Partial(output, RUN)
    assert again.state is None
    again.append("c\n", {"rows": 1})
    again.finish()
    assert output.read_text() == "c\n"


def test_a_record_that_outlived_its_part_is_no_part(output):
    partial = Partial(output, RUN)
    partial.append("a\n", {"rows": 1})
    partial.path.rename(output)  # as where the end came between the two steps of `finish`
    again = Partial(output, {"model": "another"})
    assert again.state is None
    again.append("b\n", {"rows": 1})
    again.finish()
    assert output.read_text() == "b\n"
    assert names(output) == ["out.jsonl"]


def test_a_part_of_another_run_is_refused_with_every_difference(output):
    Partial(output, RUN | {"adapter": "x"}).append("a\n", {"rows": 1})
    with pytest.raises(RunDirError) as raised:
        Partial(output, RUN | {"model": "n", "template": "t"})
    said = str(raised.value)
    assert "  adapter: x there, (absent) here\n" in said
    assert "  model: m there, n here\n" in said
    assert "  template: (absent) there, t here\n" in said
    assert "input" not in said
    assert f"remove {output}.partial and {output}.partial.json to begin again" in said


@pytest.mark.parametrize("record", [None, "{", "[]", '{"run": {}}'])
def test_a_part_without_its_record_is_nobody_s(output, record):
    partial = Partial(output, RUN)
    partial.path.write_text("something of somebody's\n")
    if record is not None:
        partial.record.write_text(record)
    with pytest.raises(RunDirError, match="remove .* to begin again"):
        Partial(output, RUN)
    assert partial.path.read_text() == "something of somebody's\n"


def test_a_part_that_lost_lines_is_refused(output):
    partial = Partial(output, RUN)
    partial.append("a\nb\n", {"rows": 2})
    partial.path.write_text("a\n")
    with pytest.raises(RunDirError, match="shorter than the 4 bytes"):
        Partial(output, RUN)


def test_a_disk_that_cannot_be_written_is_said(output):
    partial = Partial(output, RUN)
    partial.append("a\n", {"rows": 1})
    partial.path.unlink()
    partial.path.mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        partial.append("b\n", {"rows": 2})
    assert json.loads(partial.record.read_text())["state"] == {"rows": 1}


def test_digests_are_of_contents_and_only_of_what_is_asked(tmp_path):
    for name, content in (("a.json", "1"), ("b.json", "1"), ("c.txt", "1"), ("d.json", "2")):
        (tmp_path / name).write_text(content)
    (tmp_path / "e.json").mkdir()
    found = digests(tmp_path, (".json",))
    assert list(found) == ["a.json", "b.json", "d.json"]
    assert found["a.json"] == found["b.json"] != found["d.json"]
    # SHA-256 of "1", as sha256sum gives it.
    assert found["a.json"] == "6b86b273ff34fce1"
    assert digests(tmp_path / "none", (".json",)) == {}
