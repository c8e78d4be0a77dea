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
from jaxrm.methods.bench import Bench
from jaxrm.methods.self_training import confident, rounds_of
from jaxrm.methods.task import InMemory, Task
from tests.methods.small_base import small_base


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


def test_the_seed_has_the_labelled_pairs_and_the_oracle_all_labels(base, pairs):
    data = experiment.FewLabels(10)
    drawn = data.draw("train", 40, 0)
    assert drawn[:10] == pairs[:10]
    assert [c.ranks for c in drawn[10:]] == [None] * 30
    assert data.draw("id", 5, 0) == toy.World(0).comparisons("id", 5)
    bench = Bench(base)
    packed = bench.pack(drawn)
    task = Task(bench, InMemory(packed), packed, 1e-3, None, epochs=1, seed=0)
    assert experiment.METHODS["seed"].prepare(task) == pairs[:10]
    assert experiment.METHODS["oracle"].prepare(task) == pairs


def test_a_small_run_leaves_every_number(base, tmp_path, capsys, monkeypatch):
    # A model of random weights is sure of nothing; its median makes it sure of half.
    for name, select in (("ssrm", half), ("ser", nothing)):
        method = dataclasses.replace(experiment.METHODS[name], train=rounds_of(select))
        monkeypatch.setitem(experiment.METHODS, name, method)
    run = tmp_path / "run"
    sizes = {"pairs": 20, "labelled": 0.3, "steps": 2, "items": 6, "seeds": 2, "workers": 1}
    experiment.main(Config(run, base, **sizes))
    results = json.loads((run / "results.json").read_text())
    assert list(results["methods"]) == ["seed", "ssrm", "ser", "oracle"]
    for figures in results["methods"].values():
        assert {split: figure["n"] for split, figure in figures.items()} == {
            "ood_prompt": 2,
            "id": 2,
        }
    assert list(results["gains"]) == ["ssrm - seed", "ser - seed", "oracle - seed"]
    assert {len(choice["trials"]) for choice in results["choices"].values()} == {2}
    means = {
        name: [figure["mean"] for figure in figures.values()]
        for name, figures in results["rounds"].items()
    }
    assert list(means) == ["ssrm 1", "ssrm 2"]
    assert means["ssrm 1"][:2] == [14, 7]
    assert (means["ssrm 1"][3], means["ssrm 2"][0]) == (7, 7)
    assert means["ssrm 2"][1:4:2] == [3, 4]
    assert 0 <= means["ssrm 1"][4] <= 1
    models = {"seed": 1, "ssrm": 3, "ser": 1, "oracle": 1}
    for record in results["records"]:
        assert record["steps"] == 2 * models[record["method"]]
        if record["method"] == "ser":
            (only,) = record["rounds"]
            assert (only["kept"], only["trained"], only["right"]) == (0, 0, None)
    # A round that kept nothing leaves the seed model as it was.
    assert results["methods"]["ser"] == results["methods"]["seed"]
    assert "ssrm 2" in capsys.readouterr().out


def half(pool, rewards):
    order = np.argsort(rewards[:, 0] - rewards[:, 1])
    probabilities = np.full(len(pool), 0.5)
    probabilities[order[: len(pool) // 2]] = 0.1
    return confident(pool, probabilities)


def nothing(pool, rewards):
    return confident(pool, np.full(len(pool), 0.5))


def test_an_option_out_of_range_is_named():
    with pytest.raises(OptionError, match="--labelled"):
        Config(labelled=1.0)
    with pytest.raises(OptionError, match="--pairs"):
        Config(pairs=2)
    with pytest.raises(OptionError, match="--steps"):
        Config(steps=0)
