"""The HaF experiment: its data sets, what its figures are, and a small run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import haf as experiment
from experiments.haf import MIXTURE, SIDES, THEMES, Config, DataSet
from jaxrm import toy
from jaxrm.errors import OptionError
from jaxrm.study import trials
from jaxrm.study.records import Trial
from tests.methods.small_base import small_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


def test_data_sets_share_no_family_with_each_other_or_with_what_is_held_out():
    world = toy.World(0)
    assert sorted(f for families in THEMES.values() for f in families) == sorted(world.families)
    drawn = experiment.data_sets(0, "train", 6)
    for name, comparisons in drawn.items():
        assert len(comparisons) == 6
        assert {c.subset for c in comparisons} <= set(THEMES[name]) - world.ood_families
        assert DataSet(name).draw("train", 6, 0) == comparisons
    mixed = DataSet(MIXTURE).draw("train", 10, 0)
    assert mixed == [c for comparisons in drawn.values() for c in comparisons[:2]]


def test_all_are_tested_on_the_same():
    one, other = (DataSet(name) for name in ("facts", MIXTURE))
    for split in (*DataSet.splits, "val"):
        assert one.draw(split, 10, 0) == other.draw(split, 10, 0)
    assert {c.subset for c in one.draw("order", 10, 0)} <= set(THEMES["order"])
    assert one.draw("spurious", 10, 0) == toy.World(0).comparisons("spurious", 15)


def test_seeds_whose_worlds_lack_a_data_set_are_passed_over():
    seeds = experiment.usable_seeds(0)
    usable = [next(seeds) for _ in range(60)]
    passed = set(range(usable[-1])) - set(usable)
    assert passed
    for seed in passed:
        held_out = toy.World(seed).ood_families
        assert any(set(families) <= held_out for families in THEMES.values())


def test_summaries_by_hand():
    # Trained on i (0 is the mixture), tested on j: 10 i + j.
    table = 10 * np.arange(6)[:, None] + np.arange(8)
    titles = experiment.SINGLE | experiment.MIXED
    assert {title: summary(table) for title, summary in titles.items()} == {
        "single, own set": 32.0,
        "single, other sets": 32.0,
        "single, ood_prompt": 35.0,
        "mixture, all sets": 2.0,
        "mixture, ood_prompt": 5.0,
        "mixture, ood_response": 6.0,
        "mixture, spurious": 7.0,
    }
    corner = np.zeros((6, 8))
    corner[1, 1] = 1.0
    assert titles["single, other sets"](corner) == 1 / 20
    assert titles["single, own set"](corner) == 0


def test_a_small_run_ends_in_tables_and_goes_on_where_it_was(base, tmp_path, capsys, monkeypatch):
    assert {len(tried) for tried in experiment.TRIALS.values()} == {4}
    # One strength of each method, so that each has one compilation.
    strengths = {"bt": None, "haf": 0.2, "dpo": 0.1}
    few = {name: [Trial(rate, strengths[name]) for rate in (1e-3, 1e-4)] for name in strengths}
    monkeypatch.setattr(experiment, "TRIALS", few)
    monkeypatch.setattr(experiment, "TUNING_SEEDS", 1)
    counts = dict.fromkeys(("pairs", "val_items", "items"), len(THEMES))
    cfg = Config(run_dir=tmp_path / "run", seeds=2, base=base, workers=1, **counts)
    experiment.main(cfg)
    printed = capsys.readouterr().out
    results = json.loads((cfg.run_dir / "results.json").read_text())
    assert results["seeds"] == [0, 1, 2]
    assert {len(choice["trials"]) for choice in results["choices"].values()} == {2}
    assert list(results["gains"]) == ["haf - bt", "dpo - bt"]
    assert results["methods"]["dpo"]["mixture, ood_prompt"]["n"] == 2
    assert np.shape(results["matrices"]["haf"]) == (6, 8)
    (own,) = {
        np.mean([r["splits"]["facts"]["macro"] for r in results["records"]
                 if (r["method"], r["condition"]) == ("dpo", "5 comparisons, facts")])
    }  # fmt: skip
    assert results["matrices"]["dpo"][1][0] == pytest.approx(own)
    for text in ("haf - bt", "bt, trained on", *THEMES, *SIDES, "mixture"):
        assert text in printed

    def train(task, method):
        raise AssertionError("all of it has records")

    monkeypatch.setattr(trials.Task, "train", train)
    experiment.main(cfg)
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"pairs": 4}, {"epochs": 0}, {"items": 4}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong)).replace('_', '-')} must be"):
        Config(**wrong)
