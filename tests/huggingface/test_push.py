"""Exports on the Hub: what is uploaded, what it takes the place of, and what is refused."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from jaxrm.errors import ModelFileError, OptionError
from jaxrm.huggingface import hub as directories
from jaxrm.huggingface import mixture, names, push
from jaxrm.huggingface.mixture import Member
from jaxrm.models.heads import HeadConfig
from tests.huggingface import hub_standin
from tests.models.support import CONFIG, small_model

CARD = "---\nlibrary_name: jaxrm\n---\n# A model\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where the token lies."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def hub(monkeypatch, home, tmp_path):
    monkeypatch.chdir(tmp_path)
    with hub_standin.serving(monkeypatch, home) as served:
        (home / "token").write_text(hub_standin.TOKEN)
        yield served


@pytest.fixture
def export(tmp_path):
    """A small reward model in several files, with a card."""
    directory = tmp_path / "export"
    options = {"shard_bytes": 20_000, "card": CARD}
    directories.save(small_model(CONFIG, HeadConfig()), directory, **options)
    assert (directory / "model.safetensors.index.json").exists()
    return directory


def held(hub, name):
    """What a repository holds now."""
    repo = hub.repos[name]
    return {p: c for p, c in repo.commits[repo.refs["main"]].items() if p != ".gitattributes"}


def test_an_export_is_uploaded_with_its_card_and_private(hub, export, capsys):
    assert push.push(export, "owner/grm") == f"{constants.ENDPOINT}/owner/grm"
    assert hub.repos["owner/grm"].private
    assert held(hub, "owner/grm") == hub_standin.files_of(export)
    assert held(hub, "owner/grm")["README.md"] == CARD.encode()
    assert f"{constants.ENDPOINT}/owner/grm: made, and private" in capsys.readouterr().out
    # The way back: all but the card is what a model is read from.
    back = names.local("owner/grm").directory
    assert directories.fingerprint(back) == directories.fingerprint(export)


def test_a_model_takes_the_place_of_an_older_one_and_of_nothing_else(hub, export, tmp_path, capsys):
    repo = hub.repo("owner/grm", {"LICENSE": b"mine", ".gitattributes": b""})
    push.push(export, "owner/grm")
    directories.save(small_model(CONFIG, HeadConfig()), tmp_path / "whole")
    push.push(tmp_path / "whole", "owner/grm")
    files = hub_standin.files_of(tmp_path / "whole")
    assert held(hub, "owner/grm") == files | {"LICENSE": b"mine", "README.md": CARD.encode()}
    assert not repo.private
    assert "private" not in capsys.readouterr().out


def test_a_mixture_is_uploaded_with_its_members(hub, tmp_path):
    model = small_model(CONFIG, HeadConfig())
    mixture.save(tmp_path / "both", [(model, Member("a")), (model, Member("b"))])
    push.push(tmp_path / "both", "owner/both")
    assert {"a/model.safetensors", "b/model.safetensors"} <= held(hub, "owner/both").keys()
    back = names.local("owner/both").directory
    assert mixture.read(back) == (Member("a"), Member("b"))
    assert directories.fingerprint(back) == directories.fingerprint(tmp_path / "both")


def test_only_a_model_directory_is_uploaded(hub, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    for directory in (tmp_path / "run", tmp_path / "gone"):
        with pytest.raises(ModelFileError, match=f"{directory.name} is no model directory"):
            push.push(directory, "owner/run")
    assert hub.asked == []


def test_who_may_not_write_is_told_what_to_do(hub, export, home):
    with pytest.raises(ModelFileError, match="you may not write there: log in .* to other's") as it:
        push.push(export, "other/grm")
    assert f"hf upload other/grm {export}" in str(it.value)
    hub.repo("other/theirs", {"README.md": b""})
    with pytest.raises(ModelFileError, match="you may not write there"):
        push.push(export, "other/theirs")
    (home / "token").write_text("hf_expired")
    with pytest.raises(ModelFileError, match="the Hub does not know your token: log in again"):
        push.push(export, "owner/grm")
    assert held(hub, "other/theirs") == {"README.md": b""}
    assert "owner/grm" not in hub.repos


@pytest.mark.parametrize("name", ["grm", "owner/name@main", "/owner/name", "a/b/c", "owner/na me"])
def test_a_malformed_name_is_refused_at_the_start(hub, name):
    with pytest.raises(OptionError, match="--push must be owner/name, the name of a model on the"):
        push.check(name)


def test_without_a_token_or_a_network_nothing_is_begun(hub, home, monkeypatch, export):
    push.check("owner/name")
    (home / "token").unlink()
    for act in (push.check, lambda name: push.push(export, name)):
        with pytest.raises(OptionError, match="nobody is logged in to the Hub: log in .hf auth"):
            act("owner/name")
    monkeypatch.setenv("HF_TOKEN", hub_standin.TOKEN)
    push.check("owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OptionError, match="HF_HUB_OFFLINE is set, so unset it"):
        push.check("owner/name")
    assert hub.asked == []
