"""The ArmoRM experiment: its data and figures by hand, and a small run end to end."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import armo as experiment
from experiments.armo import Config, Graded
from jaxrm import toy
from jaxrm.errors import OptionError
from jaxrm.methods.bench import Bench
from jaxrm.methods.task import InMemory, Task
from jaxrm.toy.gold import WEIGHTS
from tests.methods.small_base import small_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


GRADED = Graded("by_family")


def test_verbosity_is_the_length_and_always_known():
    plain = toy.World(seed=0, weighting="by_family").comparisons("train", 16)
    graded = GRADED.draw("train", 16, seed=0)
    grades = np.array([row for c in graded for row in c.attributes])
    lengths = [len(response[-1].content) for c in plain for response in c.responses]
    assert grades.shape == (32, len(WEIGHTS) + 1)
    np.testing.assert_allclose(grades[:, -1], np.minimum(np.array(lengths) / 80, 1))
    assert 0.1 < np.isnan(grades[:, :-1]).mean() < 0.5


def test_the_share_of_longer_winners_leaves_equal_lengths_out():
    comparisons = GRADED.draw("id", 3, seed=0)
    texts = [("a" * 5, "a"), ("a", "a" * 5), ("aa", "aa")]
    comparisons = [
        dataclasses.replace(c, prompt="q", responses=pair)
        for c, pair in zip(comparisons, texts, strict=True)
    ]
    rewards = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert experiment.prefers_longer(rewards, comparisons) == 0.5


def test_a_trunk_is_trained_once_and_its_states_are_read_once(base):
    bench = Bench(base)
    data = bench.pack(GRADED.draw("train", 16, seed=0))
    task = Task(bench, InMemory(data), data, 1e-3, strength=None, epochs=1, seed=0)
    trunk, untrained = experiment.of_pairs(task), experiment.of_base(task)
    again = dataclasses.replace(task, strength=1.0)
    assert experiment.of_pairs(again) is trunk
    assert trunk.read(data) is experiment.of_pairs(again).read(data)
    assert trunk.flops > 0 == untrained.flops
    assert np.abs(trunk.read(data)["states"] - untrained.read(data)["states"]).max() > 0
    plain = task.train(experiment.METHODS["bt"]).models[0].fitted
    jax.tree.map(np.testing.assert_array_equal, trunk.fitted.params, plain.params)


def test_options_out_of_range_are_named():
    with pytest.raises(OptionError, match="--seeds must be at least 2"):
        Config(seeds=1)
    with pytest.raises(OptionError, match="--methods must be among bt"):
        Config(methods=("armo", "arno"))
    with pytest.raises(OptionError, match="--val-items must be at least 1"):
        Config(val_items=0)


def check_run(base, directory, methods, printed_by):
    """Runs these methods at the smallest size, and looks at what is left."""
    cfg = Config(directory, base, seed=0, seeds=2, workers=1, methods=methods, pairs=16)
    experiment.main(dataclasses.replace(cfg, val_items=12, items=13))
    results = json.loads((directory / "results.json").read_text())
    assert results["seeds"] == [0, 1]
    printed = printed_by.readouterr().out
    for world in results["worlds"].values():
        assert set(world["methods"]) == set(world["choices"]) == {"bt", *methods}
        for name, figures in world["methods"].items():
            trials = [(t["learning_rate"], t["strength"]) for t in world["choices"][name]["trials"]]
            rate = world["choices"]["bt"]["learning_rate"]
            assert trials == [dataclasses.astuple(t) for t in experiment.tried(name, rate)]
            assert figures["ood_prompt"]["n"] == 2
            assert 0 <= figures["longer"]["mean"] <= 1
            assert name in printed
        gains, of_method = world["gains"]["armo - armo, no gate"], world["methods"]
        means = [of_method[name]["id"]["mean"] for name in ("armo", "armo, no gate")]
        assert gains["id"]["mean"] == pytest.approx(means[0] - means[1])
        assert "armo - smorm" not in world["gains"] or "smorm" in methods
    gold = [world["methods"]["gold attributes"]["id"] for world in results["worlds"].values()]
    assert gold[0]["mean"] == 1.0
    assert gold[1]["mean"] > 0.7


def test_a_small_run_leaves_every_figure(base, tmp_path, capsys):
    few = ("armo", "armo, no gate", "base: bt", "gold attributes")
    check_run(base, tmp_path / "run", few, capsys)


@pytest.mark.slow
def test_so_does_a_small_run_of_all_methods(base, tmp_path, capsys):
    check_run(base, tmp_path / "run", tuple(experiment.METHODS), capsys)
