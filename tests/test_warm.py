"""The WARM experiment on a random base of one small layer: what it measures, says and keeps."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest

from experiments import warm
from experiments.warm import BASELINE, FACTORS, Config, Noisy
from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError, OptionError
from jaxrm.models import uncertainty
from jaxrm.read.packed import Packed
from jaxrm.study.draws import Condition
from jaxrm.train.loop import Point
from tests.methods.small_base import small_base

METHODS = {
    *("BT, mean of members", "BT, best on val", "BT, M times the steps", "EMA of one run", "WARM"),
    *("ensemble mean", "WCO", "UWO", "LCB", "Bayesian head"),
}

SMALL = {
    "seeds": 2,
    "rate": 3e-3,
    "epochs": (1,),
    "pairs": 24,
    "items": 12,
    "val_items": 12,
    "candidates": 3,
    "prompts": 6,
    "workers": 1,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def results(base, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    cfg = Config(run_dir=directory, base=base, **SMALL)
    warm.main(cfg)
    return cfg, json.loads((directory / "results.json").read_text())


def test_every_method_is_measured_on_every_seed(results):
    _, kept = results
    (of_epoch,) = kept["epochs"].values()
    assert of_epoch["seeds"] == [0, 1]
    assert set(of_epoch["methods"]) == METHODS
    assert len(kept["records"]) == 2
    for record in kept["records"]:
        assert set(record["methods"]) == METHODS
        assert len(record["members"]) == len(FACTORS)
        members = [member["id"] for member in record["members"]]
        assert record["methods"][BASELINE]["id"] == pytest.approx(np.mean(members))
        assert record["methods"]["BT, best on val"] in record["members"]
        # Members began at one head and have moved apart; every two of them have a barrier.
        assert 0 < record["head_cosine"] < 1
        assert len(record["barriers"]) == 6
        # The mean of members' standardised rewards and the least of them differ.
        assert record["methods"]["WCO"] != record["methods"]["ensemble mean"]


def test_the_same_command_runs_nothing_twice(monkeypatch, results, capsys):
    cfg, kept = results
    monkeypatch.setattr(warm, "run", functools.partial(pytest.fail, "run again"))
    warm.main(cfg)
    assert json.loads((cfg.run_dir / "results.json").read_text()) == kept
    printed = capsys.readouterr().out
    assert all(re.search(f"^{method} +[0-9]", printed, re.M) for method in METHODS)
    assert "WARM over the best control" in printed


def test_a_summary_by_hand():
    names = ("val", "id", "ood_prompt", "flipped", "clean", "best_of")

    def record(seed, warm_figure):
        methods = {method: dict.fromkeys(names, 0.5) for method in sorted(METHODS)}
        methods["EMA of one run"]["ood_prompt"] = 0.6
        methods["WARM"]["ood_prompt"] = warm_figure
        return {"seed": seed, "methods": methods, "barriers": [0.0, seed / 10], "head_cosine": 1.0}

    results = warm.summary([record(seed, 0.7) for seed in range(6)])
    assert (results["best_control"], results["verdict"]) == ("EMA of one run", "supported")
    gains = {name: gain["ood_prompt"]["mean"] for name, gain in results["gains"].items()}
    assert gains["WARM - EMA of one run"] == pytest.approx(0.1)
    assert gains[f"WARM - {BASELINE}"] == pytest.approx(0.2)
    # Barriers 0, .1, ..., .5: mean .25, deviation sqrt(.035), over sqrt 6.
    assert results["largest_barrier"]["mean"] == pytest.approx(0.25)
    assert results["largest_barrier"]["standard_error"] == pytest.approx(np.sqrt(0.035 / 6))
    assert warm.summary([record(seed, 0.6) for seed in range(6)])["verdict"] == "refuted"


def test_figures_by_hand():
    def packed(scores):
        comparisons = [
            Comparison("p", tuple("abc"[: len(gold)]), ranks=tuple(range(len(gold))), scores=gold)
            for gold in scores
        ]
        return Packed(comparisons, [], [])

    right, turned = (0.9, 0.1), (0.1, 0.9)
    sets = {name: packed([right]) for name in ("val", "id", "ood_prompt")}
    sets |= {"train": packed([right, turned, turned, right, right])}
    sets |= {"best_of": packed([(0.9, 0.5, 0.1), (0.8, 0.4, 0.0)])}
    up, down = [1.0, 0.0], [0.0, 1.0]
    scores = {"val": [up], "id": [down], "ood_prompt": [[1.0, 1.0]]}
    # Of two turned labels it sides with one, of three true ones with two.
    scores |= {"train": [up, up, down, up, down]}
    # Of the first prompt the second response; of the second the first two tie.
    scores |= {"best_of": [[0.0, 2.0, 1.0], [3.0, 3.0, 1.0]]}
    figures = warm.figures({name: np.array(rewards) for name, rewards in scores.items()}, sets)
    assert (figures["val"], figures["id"], figures["ood_prompt"]) == (1, 0, 0)
    assert (figures["flipped"], figures["clean"]) == (0.5, pytest.approx(2 / 3))
    assert figures["best_of"] == pytest.approx((0.5 + 0.6) / 2)


def test_averages_of_a_run_by_hand():
    points = [Point(t, 4, {"w": np.float32(t)}, 0.0, 0) for t in range(1, 5)]
    averages = warm.moving_averages(iter(points), 4)
    # 1/16, 1/8 and 1/4 of four steps are at most one: the last alone. Half of them: decay 1/2, so
    # (8 * 4 + 4 * 3 + 2 * 2 + 1) / 15.
    np.testing.assert_allclose([mean["w"] for mean in averages], [4, 4, 4, 49 / 15], rtol=1e-6)


def test_the_bayesian_head_doubts_among_the_prompt_s_responses():
    head = uncertainty.BayesianHead(np.array([1.0, 0.0]), np.diag([0.0, 4.0]))
    states = np.array([[[3.0, 0.0], [1.0, 2.0]]])
    rewards = warm.bayesian(head, {"id": states, "best_of": states})
    np.testing.assert_allclose(rewards["id"], [[3, 1]])
    # Less their mean (2, 1): rewards 1 and -1, and both deviate by 2 * 1.
    np.testing.assert_allclose(rewards["best_of"], [[-1, -3]])


def test_a_set_has_its_candidates_and_its_labels():
    data = Noisy(0.25, 0.7, candidates=3, prompts=2)
    assert [len(c.responses) for c in data.draw("best_of", 12, seed=0)] == [3, 3]
    assert 0 < warm.turned_round(data.draw("train", 40, seed=0)).sum() < 20
    with pytest.raises(DataError, match="more --pairs"):
        data.draw("train", 1, seed=0)
    assert str(Condition(data, 40, 4)).startswith("40 comparisons, 25 % label noise")


def test_what_cannot_be_run_is_refused():
    for wrong in ({"rate": 0.0}, {"epochs": ()}, {"label_noise": 0.0}, {"seeds": 0}):
        with pytest.raises(OptionError, match="--"):
            Config(**wrong)
