"""Files and directories appear whole or not at all."""

from pathlib import Path

import pytest

from jaxrm.errors import DataError, OptionError
from jaxrm.files import check_apart, check_writable, replacing


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "deep" / "scores.jsonl"
    with replacing(path) as draft:
        draft.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), replacing(path) as draft:
        draft.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.jsonl"]


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "export"
    for name in ("first", "second"):
        with replacing(path) as draft:
            draft.mkdir()
            (draft / name).write_text(name)
    assert [entry.name for entry in path.iterdir()] == ["second"]
    with pytest.raises(RuntimeError, match="half way"), replacing(path) as draft:
        draft.mkdir()
        raise RuntimeError("half way")
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]
    assert [entry.name for entry in path.iterdir()] == ["second"]


def test_a_file_never_takes_the_place_of_a_directory(tmp_path):
    taken = tmp_path / "results"
    taken.mkdir()
    (taken / "old").write_text("old")
    with pytest.raises(DataError, match="results is a directory"):
        check_writable(taken)
    with pytest.raises(IsADirectoryError), replacing(taken) as draft:
        draft.write_text("new")
    assert (taken / "old").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results"]


def test_where_nothing_can_be_written_is_known_before(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="out.jsonl: cannot be written"):
        check_writable(tmp_path / "file" / "out.jsonl")
    check_writable(tmp_path / "deep" / "out.jsonl")
    assert list((tmp_path / "deep").iterdir()) == []


def test_an_output_is_apart_from_what_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text("{}")
    (tmp_path / "link").symlink_to(data / "a.jsonl")
    check_apart(data / "b.jsonl", [data / "a.jsonl", None, "", "owner/name", "tfds:data"])
    check_apart(tmp_path, [data, data / "a.jsonl"])  # what lies below is another file
    for out, given in (("link", "data/a.jsonl"), ("data/../data/a.jsonl", tmp_path / "link")):
        with pytest.raises(OptionError, match=f"{out} is .*, which is read: write to another"):
            check_apart(Path(out), ["", given])
    with pytest.raises(OptionError, match="data/new/b lies in data, which is read"):
        check_apart(Path("data/new/b"), ["data"])
    check_apart(Path("data/new/b"), [], ["data"])
    with pytest.raises(OptionError, match="link/.. is data, which is read"):
        check_apart(Path("link/.."), [], ["data"])
