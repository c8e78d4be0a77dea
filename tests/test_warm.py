"""The WARM experiment on a random base of one small layer: what it measures, says and keeps."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from jaxrm.study.lab import Lab
from jaxrm.train.short import Point

from experiments import warm
from experiments.warm import BASELINE, METHODS, Config
from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError, OptionError
from jaxrm.models import uncertainty
from jaxrm.read.packed import Packed
from tests.methods.small_base import small_base

SMALL = {
    "seeds": 2,
    "rates": (1e-2, 3e-3),
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
    cfg, found = results
    (of_epoch,) = found["epochs"].values()
    assert (of_epoch["n"], of_epoch["seeds"]) == (2, [0, 1])
    assert set(of_epoch["methods"]) == set(METHODS)
    for record in found["records"]:
        assert set(record["methods"]) == set(METHODS)
        assert len(record["members"]) == len(cfg.rates)
        members = [of["id"] for of in record["members"]]
        assert record["methods"][BASELINE]["id"] == pytest.approx(np.mean(members))
        assert record["methods"]["BT, best on val"] in record["members"]
        # Members began at one head and have moved apart; their one pair has one barrier.
        assert 0 < record["head_cosine"] < 1
        assert len(record["barriers"]) == 1
        # Half the sum of two members' standardised rewards and the less of the two differ.
        assert record["methods"]["WCO"] != record["methods"]["ensemble mean"]


def test_the_same_command_runs_nothing_twice(monkeypatch, results, capsys):
    cfg, found = results
    monkeypatch.setattr(warm, "run", functools.partial(pytest.fail, "run again"))
    warm.main(cfg)
    assert json.loads((cfg.run_dir / "results.json").read_text()) == found
    printed = capsys.readouterr().out
    assert all(method in printed for method in METHODS)
    assert "WARM over the best control" in printed


def test_a_summary_by_hand():
    names = ("val", "id", "ood_prompt", "flipped", "clean", "best_of")

    def record(seed, warm_figure):
        methods = {method: dict.fromkeys(names, 0.5) for method in METHODS}
        methods["EMA of one run"]["ood_prompt"] = 0.6
        methods["WARM"]["ood_prompt"] = warm_figure
        return {"seed": seed, "methods": methods, "barriers": [0.0, seed / 10], "head_cosine": 1.0}

    found = warm.summary([record(seed, 0.7) for seed in range(6)])
    assert (found["best_control"], found["verdict"]) == ("EMA of one run", "supported")
    gain = found["methods"]["EMA of one run"]["warm_minus_it"]["ood_prompt"]
    assert gain.mean == pytest.approx(0.1)
    assert found["methods"]["WARM"]["gain"]["ood_prompt"].mean == pytest.approx(0.2)
    # Barriers 0, .1, ..., .5: mean .25, deviation sqrt(.035), over sqrt 6.
    assert found["largest_barrier"]["mean"] == pytest.approx(0.25)
    assert found["largest_barrier"]["standard_error"] == pytest.approx(np.sqrt(0.035 / 6))
    assert warm.summary([record(seed, 0.6) for seed in range(6)])["verdict"] == "refuted"
    alone = warm.summary([record(0, 0.7)])
    assert alone["verdict"] is None
    assert "WARM" in warm.text(1, alone, Config())


def test_figures_by_hand():
    def packed(scores):
        comparisons = [
            Comparison("p", tuple("abc"[: len(of)]), ranks=tuple(range(len(of))), scores=of)
            for of in scores
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
    found = warm.figures({name: np.array(of) for name, of in scores.items()}, sets)
    assert (found["val"], found["id"], found["ood_prompt"]) == (1, 0, 0)
    assert (found["flipped"], found["clean"]) == (0.5, pytest.approx(2 / 3))
    assert found["best_of"] == pytest.approx((0.5 + 0.6) / 2)


def test_averages_of_a_run_by_hand():
    points = [Point(t, 4, {"w": np.float32(t)}, 0.0, 0) for t in range(1, 5)]
    end, averages = warm.with_averages(iter(points), 4)
    assert end["w"] == 4
    # 1/16, 1/8 and 1/4 of four steps are at most one: the last alone. Half of them: decay 1/2, so
    # (8 * 4 + 4 * 3 + 2 * 2 + 1) / 15.
    np.testing.assert_allclose([mean["w"] for mean in averages], [4, 4, 4, 49 / 15], rtol=1e-6)


def test_the_bayesian_head_doubts_among_the_prompt_s_responses():
    head = uncertainty.BayesianHead(np.array([1.0, 0.0]), np.diag([0.0, 4.0]))
    states = np.array([[[3.0, 0.0], [1.0, 2.0]]])
    found = warm.bayesian(head, {"id": states, "best_of": states})
    np.testing.assert_allclose(found["id"], [[3, 1]])
    # Less their mean (2, 1): rewards 1 and -1, and both deviate by 2 * 1.
    np.testing.assert_allclose(found["best_of"], [[-1, -3]])


def test_what_cannot_be_run_is_refused(base):
    for wrong in ({"rates": (1e-4,)}, {"epochs": ()}, {"label_noise": 0.0}, {"seeds": 0}):
        with pytest.raises(OptionError, match="--"):
            Config(**wrong)
    small = {k: SMALL[k] for k in ("rates", "items", "val_items", "candidates", "prompts")}
    job = warm.Job(seed=0, epochs=1, base="", pairs=1, label_noise=0.25, **small)
    with pytest.raises(DataError, match="more --pairs"):
        warm.draw(job, Lab(base))
