"""The self-training experiment: a pool without labels, what is right of it, and a small run."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from experiments import self_training as experiment
from experiments.self_training import Config
from jaxrm import toy
from jaxrm.errors import OptionError
from tests.study.small_base import small_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pairs():
    return toy.World(seed=0).comparisons("train", 40)


def test_an_unlabelled_pair_shows_no_order(pairs):
    hidden = list(map(experiment.unlabelled, pairs))
    exchanged = [a.responses != b.responses for a, b in zip(pairs, hidden, strict=True)]
    assert 10 <= sum(exchanged) <= 30
    for before, after in zip(pairs, hidden, strict=True):
        assert after.ranks is None
        assert dict(zip(after.responses, after.scores, strict=True)) == dict(
            zip(before.responses, before.scores, strict=True)
        )
    assert hidden == list(map(experiment.unlabelled, pairs))


def test_right_is_what_gold_says(pairs):
    """The annotators' labels are the order of the responses; gold is against some of them."""
    noisy = [c for c in pairs if c.scores[0] < c.scores[1]]
    assert experiment.right(pairs) == 1 - len(noisy) / len(pairs)
    assert 0 < len(noisy) < 20
    assert experiment.right([dataclasses.replace(noisy[0], ranks=(1, 0))]) == 1.0
    assert experiment.right([]) is None


def test_ser_does_not_depend_on_the_level_of_rewards(pairs):
    rewards = np.random.default_rng(0).normal(size=(40, 2))
    one, other = (experiment.ser(pairs, rewards + level) for level in (0.0, 7.0))
    assert 0 < len(one.kept) < 40
    assert one.kept == other.kept


def test_a_small_run_leaves_every_number(base, tmp_path, capsys, monkeypatch):
    # A model of random weights is sure of nothing; its median makes it sure of half.
    monkeypatch.setitem(experiment.METHODS, "ssrm", half)
    monkeypatch.setitem(experiment.METHODS, "ser", nothing)
    run = tmp_path / "run"
    sizes = {"pairs": 20, "labelled": 0.3, "steps": 2, "items": 6, "seeds": 2, "workers": 1}
    experiment.main(Config(run, base, **sizes))
    results = json.loads((run / "results.json").read_text())
    methods = results["methods"]
    assert list(methods) == ["seed", "ssrm", "ser", "oracle"]
    for name, of in methods.items():
        assert {split: of["figures"][split]["n"] for split in experiment.SPLITS} == {
            split: 2 for split in experiment.SPLITS
        }
        assert bool(of["gains"]) == (name != "seed")
    first, second = methods["ssrm"]["rounds"]
    assert (first["pool"], first["kept"], first["remaining"], first["trained"]) == (14, 7, 7, 13)
    assert (second["pool"], second["kept"], second["remaining"]) == (7, 3, 4)
    assert 0 <= first["right"] <= 1
    (only,) = methods["ser"]["rounds"]
    assert (only["kept"], only["trained"], only["right"]) == (0, 0, None)
    # A round that kept nothing leaves the seed model as it was.
    assert methods["ser"]["figures"] == methods["seed"]["figures"]
    assert "oracle" in capsys.readouterr().out


def half(pool, rewards):
    order = np.argsort(rewards[:, 0] - rewards[:, 1])
    probabilities = np.full(len(pool), 0.5)
    probabilities[order[: len(pool) // 2]] = 0.1
    return experiment.confident(pool, probabilities)


def nothing(pool, rewards):
    return experiment.confident(pool, np.full(len(pool), 0.5))


def test_an_option_out_of_range_is_named():
    with pytest.raises(OptionError, match="--labelled"):
        Config(labelled=1.0)
    with pytest.raises(OptionError, match="--pairs"):
        Config(pairs=2)
    with pytest.raises(OptionError, match="--rounds"):
        Config(rounds=0)
