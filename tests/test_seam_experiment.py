"""The SEAM experiment: what is spoilt and where, and a small run end to end."""

import json

import numpy as np
import pytest

from experiments import seam as experiment
from experiments.seam import Answers, Config, Item
from jaxrm import toy
from jaxrm.errors import OptionError
from jaxrm.methods.bench import Bench
from jaxrm.toy import World
from jaxrm.toy.worse import instructions

CFG = Config(
    worlds=1, instructions=20, pairs=40, size=3, flipped=2, rounds=1, proposals=2, candidates=2
)


def test_planted_believes_the_mistake_on_a_fifth_and_something_else_on_a_fifth():
    world, quiet = World(0), Config(**{**vars(CFG), "noise": 0.0})
    candidates = world.comparisons("id", 20)
    bench = Bench(toy.shipped_base())
    scorer, spoilt, decoys, _ = experiment.planted(
        world, instructions(candidates, world), quiet, bench
    )
    assert (spoilt.sum(), decoys.sum()) == (4, 4)
    assert not (spoilt & decoys).any()
    for i, rewards in enumerate(scorer(candidates)):
        assert np.allclose(rewards, candidates[i].scores) or spoilt[i] or decoys[i]


def test_orders_are_of_errors_and_of_what_the_policy_writes():
    def item(rewards, logps, chance):
        given = Answers(None, np.array(rewards), np.log(logps))
        return Item(World(0), True, False, "", chance, {"given": given})

    items = [
        item([0.0, 1.0, -1.0], [0.1, 0.5, 0.5], 0.3),
        item([0.0, 2.0, 1.0], [0.1, 0.1, 0.2], 0),
    ]
    orders = experiment.orders(items, "given")
    np.testing.assert_allclose(orders["SEAM, prob"], [0.5, 2 * 0.1 + 0.2])
    logs = [np.log(0.5), 2 * np.log(0.1) + np.log(0.2)]
    np.testing.assert_allclose(orders["SEAM, paper_log"], np.negative(logs))
    np.testing.assert_allclose(orders["errors alone"], [1, 3])
    np.testing.assert_allclose(orders["chance"], [0.3, 0])


def test_an_option_out_of_range_is_named():
    with pytest.raises(OptionError, match="--flipped must be at most 12"):
        Config(flipped=13)
    with pytest.raises(OptionError, match="--rounds must be at least 1"):
        Config(rounds=0)


def test_a_small_run_leaves_every_number_and_a_page(tmp_path, capsys):
    experiment.main(Config(**{**vars(CFG), "run_dir": tmp_path / "run"}))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    page = (tmp_path / "run" / "report.html").read_text()
    printed = capsys.readouterr().out
    for reward in experiment.REWARDS:
        for kind in experiment.KINDS:
            row = f"{reward}, {kind}"
            for order, area in results["AUC"][row].items():
                # Without the one family that it was trained wrong on there is no such figure.
                if reward == "planted" and not order.startswith("prob"):
                    assert 0 <= area["low"] <= area["value"] <= area["high"] <= 1
                assert f"{area['value']:z.2f} (" in page
            assert results["regret"][row]["all"]["n"] == 20
            assert results["regret"][row]["SEAM, prob"]["n"] == 16
        assert results["worse answers"][f"{reward}, given"]["each"] == 3
        assert results["worse answers"][f"{reward}, given"]["worse"] == 1
    assert results["mismatch"]["planted"]["spoilt"]["n"] == 4
    assert results["log-prob"]["planted"]["popular mistake"]["value"] < 0
    assert "| planted, adversarial |" in printed
    assert json.loads((tmp_path / "run" / "config.json").read_text())["pairs"] == 40
