"""The options of a study."""

from __future__ import annotations

import dataclasses

import pytest

from jaxrm import toy
from jaxrm.errors import OptionError
from jaxrm.study.config import StudyConfig


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


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"seed": -1}, {"workers": 0}, {"val_items": 1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong)).replace('_', '-')} must be"):
        Config(**wrong)
