"""The options of a study."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from jaxrm import toy
from jaxrm.errors import OptionError
from jaxrm.study.config import StudyConfig
from tests.huggingface import hub_standin


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """A study with an option of its own."""

    val_items: int = 3

    def __post_init__(self):
        super().__post_init__()
        self.at_least(2, "val_items")


def test_a_study_is_of_its_seeds_and_a_base(tmp_path):
    cfg = Config(tmp_path / "run", seed=3, seeds=2)
    assert (list(cfg.measured), cfg.start) == ([3, 4], toy.shipped_base())
    assert dataclasses.replace(cfg, base=tmp_path).start == tmp_path
    assert cfg.open() == tmp_path / "run"
    assert (tmp_path / "run" / "config.json").exists()


def test_a_base_of_the_hub_stays_what_it_was_when_the_study_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hub_standin.serving(monkeypatch, tmp_path / "home") as hub:
        files = {"config.json": b"{}", "model.safetensors": b""}
        repo = hub.repo("owner/base", files)
        cfg = Config(tmp_path / "run", base=Path("owner/base"))
        (cfg.open() / "jobs").mkdir()
        first = cfg.start
        assert first.name == repo.refs["main"]
        repo.commit(files | {"config.json": b'{"of": "another day"}'})
        again = Config(tmp_path / "run", base=Path("owner/base"))
        assert (again.open(), again.start) == (tmp_path / "run", first)
        other = Config(tmp_path / "other", base=Path("owner/base"))
        assert other.start.name == repo.refs["main"] != first.name


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"seed": -1}, {"workers": 0}, {"val_items": 1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong)).replace('_', '-')} must be"):
        Config(**wrong)
