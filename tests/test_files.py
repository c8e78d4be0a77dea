"""Files and directories appear whole or not at all."""

import pytest

from jaxrm.files import replacing


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
