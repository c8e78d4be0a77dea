"""Model directories by their names, here and on the Hub: what is downloaded, what is refused."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import huggingface_hub
import pytest

from jaxrm.errors import ModelFileError
from jaxrm.huggingface import names
from jaxrm.huggingface.names import Local
from tests.huggingface import hub_standin

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"",
    "tokenizer.model": b"",
    "merges.txt": b"",
}
OTHERS = {
    "README.md": b"",
    "modeling_own.py": b"raise SystemExit",
    "pytorch_model.bin": b"",
    "consolidated.safetensors": b"the weights again",
    "consolidated-00001-of-00002.safetensors": b"and again",
    "onnx/config.json": b"{}",
    "original/params.json": b"{}",
    "checkpoint-10/model.safetensors": b"older weights",
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with hub_standin.serving(monkeypatch, tmp_path / "home") as served:
        yield served


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The cache's place, as HF_HUB_OFFLINE=1."""
    monkeypatch.chdir(tmp_path)
    hub_standin.of_cache(monkeypatch, tmp_path / "home", offline=True)
    return tmp_path / "home" / "hub"


def refused(name, *revision):
    with pytest.raises(ModelFileError) as caught:
        names.local(name, *revision)
    return str(caught.value)


def test_a_directory_is_itself_and_wins(hub, tmp_path):
    hub.repo("owner/name", FILES)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    for name in ("owner/name", Path("owner/name"), tmp_path):
        assert names.local(name) == Local(Path(name), "")
    assert hub.asked == []


def test_what_a_model_needs_is_downloaded_and_nothing_else(hub, caplog):
    commit = next(iter(hub.repo("owner/name", FILES | OTHERS).commits))
    with caplog.at_level(logging.INFO, "jaxrm"):
        found = names.local(Path("owner/name"))
    assert (found.revision, found.directory.name) == (commit, commit)
    assert hub_standin.files_of(found.directory) == FILES
    assert hub.downloaded() <= FILES.keys()
    assert f"owner/name: commit {commit} of the Hub" in caplog.text


def test_a_mixture_s_members_come_too(hub):
    config = json.dumps({"model_type": "jaxrm_mixture", "members": []}).encode()
    members = {f"{m}/{name}": m.encode() for m in "ab" for name in ("config.json", "w.safetensors")}
    files = {"config.json": config, "tokenizer.json": b"{}"} | members
    hub.repo("owner/mixture", files | {"README.md": b"", "a/own.py": b""})
    assert hub_standin.files_of(names.local("owner/mixture").directory) == files


def test_a_tokenizer_comes_without_weights_and_the_weights_later(hub):
    hub.repo("owner/name", FILES)
    found = names.local("owner/name", files=names.TOKENIZER)
    assert not list(found.directory.glob("*.safetensors"))
    assert (found.directory / "tokenizer.model").exists()
    assert names.local("owner/name") == found
    assert hub_standin.files_of(found.directory) == FILES


def test_a_revision_is_a_branch_a_tag_or_a_commit_and_the_name_s_own_comes_first(hub):
    repo = hub.repo("owner/name", FILES)
    first = repo.refs["main"]
    tagged = repo.commit(FILES | {"config.json": b'{"of": "the tag"}'}, "v1")
    branch = repo.commit(FILES | {"config.json": b'{"of": "a branch"}'}, "refs/pr/1")
    assert names.local("owner/name").revision == first
    assert names.local("owner/name@v1").revision == tagged
    assert names.local("owner/name@refs/pr/1").revision == branch
    assert names.local(f"owner/name@{first}").revision == first
    # A run that is resumed goes on with what it began with, whatever `main` is by now.
    repo.commit(FILES | {"config.json": b'{"of": "another day"}'})
    assert names.local("owner/name", first).revision == first
    assert names.local("owner/name@v1", first).revision == tagged
    assert names.local("owner/name").revision == repo.refs["main"]
    assert (names.local("owner/name").directory / "config.json").read_bytes().endswith(b'day"}')


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("owner/name", ("owner/name", "")),
        ("owner/name@v1.0", ("owner/name", "v1.0")),
        ("o/n@refs/pr/3", ("o/n", "refs/pr/3")),
        *[(bad, None) for bad in ("name", "/a/b", "a/b/c", "a b/c", "a/b@", "a/b@x y", "a/b@../x")],
        *[(bad, None) for bad in ("../a", "a/b.git", "", ".", "a/--b", "hf://a/b", "a/b@v1:x")],
    ],
)
def test_names_of_the_hub_s_form(name, parts):
    assert names.on_hub(name) == parts


@pytest.mark.parametrize("name", ["gemma", "/no/such/place", "a/b/c", "owner/name@"])
def test_what_is_neither_says_both_forms(hub, name):
    message = refused(name)
    assert message.startswith(f"{name} is no directory here")
    assert message.endswith("a model on the Hub as owner/name or owner/name@revision")
    assert hub.asked == []


def test_a_file_is_neither(hub, tmp_path):
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "model.gguf").write_text("")
    assert refused("owner/model.gguf").startswith("owner/model.gguf is a file: name a model dir")
    assert hub.asked == []


def test_a_mistyped_directory_is_told_from_what_the_hub_lacks(hub):
    assert refused("grm/export").startswith(
        "grm/export is no directory here, and the Hub shows you no grm/export: check the spelling; "
        "if it is private, log in (hf auth login)"
    )


def test_what_the_hub_does_not_give(hub, tmp_path):
    hub.repo("owner/private", FILES, private=True)
    hub.repo("owner/gated", FILES, gated=True)
    hub.repo("owner/name", FILES)
    for token in ("", "hf_of_someone_else"):
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "home" / "token").write_text(token)
        assert "the Hub shows you no owner/private" in refused("owner/private")
        message = refused("owner/gated")
        assert "the Hub's owner/gated is gated: accept its terms on http://127.0.0.1" in message
        assert "/owner/gated, and log in (hf auth login)" in message
    assert "the Hub's owner/name has no revision 'v9': see the" in refused("owner/name@v9")
    assert "has no revision 'abc': see the" in refused("owner/name", "abc")
    unknown = "0123456789" * 4
    assert f"has no revision '{unknown}'" in refused(f"owner/name@{unknown}")
    (tmp_path / "home" / "token").write_text(hub_standin.TOKEN)
    assert names.local("owner/private").revision


def test_weights_that_are_no_safetensors_are_named(hub):
    hub.repo("owner/old", {"config.json": b"{}", "pytorch_model.bin": b""})
    message = refused("owner/old")
    assert "its weights are pickles (pytorch_model.bin), which run code" in message
    hub.repo("owner/deep", {"config.json": b"{}", "step/model.safetensors": b""})
    message = refused("owner/deep")
    assert "no safetensors at its top, only config.json, step/model.safetensors" in message


def test_offline_the_cache_is_all_there_is(offline):
    commit = hub_standin.cache(offline, "owner/name", FILES)
    hub_standin.cache(offline, "owner/tokens", {"tokenizer.json": b"{}"})
    for name in ("owner/name", "owner/name@main", f"owner/name@{commit}"):
        found = names.local(name)
        assert found == Local(offline / "models--owner--name" / "snapshots" / commit, commit)
    assert hub_standin.files_of(found.directory) == FILES
    for name in ("owner/other", "owner/name@v1"):
        assert refused(name) == (
            f"{name} is no directory here, and the Hub is not asked, as HF_HUB_OFFLINE is set, and "
            f"the cache ({offline}) holds no whole snapshot of {name}: unset HF_HUB_OFFLINE, or "
            "name a directory"
        )
    assert "the cache holds no safetensors of it: unset HF_HUB_OFFLINE" in refused("owner/tokens")


def test_without_a_network_the_cache_is_tried(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with hub_standin.serving(monkeypatch, tmp_path / "home") as hub:
        hub.repo("owner/name", FILES)
        found = names.local("owner/name")
    assert names.local("owner/name") == found
    message = refused("owner/other")
    assert message.startswith(
        "owner/other is no directory here, and the Hub cannot be reached, and"
    )
    assert "holds no whole snapshot of owner/other: check the network, or name a dir" in message


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "do not fit on the disk of .*HF_HOME"),
        (
            PermissionError(errno.EACCES, "denied"),
            "cannot be downloaded: PermissionError: .*denied",
        ),
        (
            RuntimeError("of Xet"),
            "the Hub's owner/name@v1 cannot be downloaded: RuntimeError: of X",
        ),
    ],
)
def test_what_this_machine_does_not_take(monkeypatch, hub, error, problem):
    def failing(**options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
    with pytest.raises(ModelFileError, match=problem):
        names.local("owner/name@v1")
