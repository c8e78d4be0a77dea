"""The ArmoRM experiment: its data, losses and choices by hand, and a small run end to end."""

import dataclasses
import json
import math

import numpy as np
import pytest
from jaxrm.study.lab import Lab

from experiments import armo as experiment
from experiments.armo import NAMES, VERBOSITY, Config, Drawn
from jaxrm import toy
from jaxrm.data.packing import pack
from jaxrm.errors import OptionError
from tests.methods.small_base import small_base

DRAWN = Drawn("by_family", seed=0, pairs=16, val_items=12, items=13)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


def test_verbosity_is_the_length_and_always_known(base):
    data = experiment.packed(base, DRAWN, "train")
    plain = toy.World(seed=0, weighting="by_family").comparisons("train", 16)
    grades = np.array([row for c in data.comparisons for row in c.attributes])
    lengths = [len(response[-1].content) for c in plain for response in c.responses]
    np.testing.assert_allclose(grades[:, VERBOSITY], np.minimum(np.array(lengths) / 80, 1))
    assert 0.1 < np.isnan(grades[:, :VERBOSITY]).mean() < 0.5
    assert len(experiment.packed(base, DRAWN, "val").comparisons) == 12
    assert len(experiment.packed(base, DRAWN, "id").comparisons) == 13


@pytest.fixture(scope="module")
def batch(base):
    lab, trees = Lab(base, rows=1), experiment.packed(base, DRAWN, "train").trees
    return pack(trees, [[0, 1]], lab.shape(experiment.SMORM))


class Saying:
    """A model whose head's outputs are known."""

    def __init__(self, batch, count):
        shape = (*batch.response_mask.shape, count)
        self.outputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def hidden(self, batch):
        return None


@pytest.fixture
def saying(monkeypatch, batch):
    monkeypatch.setattr(experiment.heads, "outputs", lambda model, *_: model.outputs)
    return lambda count: Saying(batch, count)


def test_smorm_is_bradley_terry_on_one_output_and_regression_on_the_others(batch, saying):
    model = saying(1 + len(NAMES))
    terms = experiment.smorm(3.0)(model, batch, None)
    margin = model.outputs[0, 0, 0] - model.outputs[0, 1, 0]
    assert terms["reward"].values[0, 0] == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-5)
    assert terms["reward"].weights.sum() == 2
    squares = (model.outputs[..., 1:] - batch.attributes) ** 2
    known = batch.attributes_mask
    np.testing.assert_allclose(terms["attributes"].values[known], squares[known], rtol=1e-5)
    assert terms["attributes"].coefficient == 3.0
    assert terms["attributes"].weights.sum() == known.sum() < 4 * len(NAMES)


def test_urm_halves_the_outputs(batch, saying):
    model, mask = saying(2 * len(NAMES)), batch.attributes_mask
    values = experiment.gaussian(None)(model, batch, None)["attributes"].values
    mean, log_deviation = np.split(model.outputs, 2, axis=-1)
    distance = (batch.attributes - mean) / np.exp(log_deviation)
    expected = log_deviation + math.log(2 * math.pi) / 2 + distance**2 / 2
    np.testing.assert_allclose(values[mask], expected[mask], rtol=1e-4)


def test_qrm_groups_the_outputs_by_attribute(batch, saying):
    model = saying(19 * len(NAMES))
    values = experiment.quantiles(None)(model, batch, None)["attributes"].values
    short = batch.attributes[0, 1, VERBOSITY] - model.outputs[0, 1, 19 * VERBOSITY :]
    expected = np.mean(short * (np.arange(1, 20) / 20 - (short < 0)))
    assert values[0, 1, VERBOSITY] == pytest.approx(expected, rel=1e-4)


def test_unbiased_heads_say_nothing_of_verbosity_itself():
    rng = np.random.default_rng(0)
    weights, states = rng.normal(size=(4, len(NAMES))), rng.normal(size=(30, 2, 4))
    left = experiment.unbiased(weights, states)
    np.testing.assert_array_equal(left[:, VERBOSITY], 0.0)
    # The others lost a multiple of verbosity's head between none and all of it.
    lost = (weights - left) / weights[:, VERBOSITY : VERBOSITY + 1]
    np.testing.assert_allclose(lost, np.broadcast_to(lost[:1], lost.shape), atol=1e-9)
    assert (lost >= 0).all()
    assert (lost <= 1).all()


def test_the_share_of_longer_winners_leaves_equal_lengths_out(base):
    comparisons = experiment.packed(base, DRAWN, "id").comparisons[:3]
    texts = [("a" * 5, "a"), ("a", "a" * 5), ("aa", "aa")]
    comparisons = [
        dataclasses.replace(c, prompt="q", responses=pair)
        for c, pair in zip(comparisons, texts, strict=True)
    ]
    rewards = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert experiment.prefers_longer(rewards, comparisons) == 0.5


def record(setting, macro):
    return {"setting": setting, "splits": {"val": {"macro": macro}}}


def test_a_setting_is_chosen_by_its_mean_on_val():
    records = [record(1.0, 0.5), record(3.0, 0.9), record(1.0, 0.7), record(3.0, 0.2)]
    assert experiment.chosen(records) == 1.0


def test_options_out_of_range_are_named():
    with pytest.raises(OptionError, match="--seeds must be at least 2"):
        Config(seeds=1)
    with pytest.raises(OptionError, match="--methods must be among bt"):
        Config(methods=("armo", "arno"))
    with pytest.raises(OptionError, match="--val-items must be at least 1"):
        Config(val_items=0)


def check_run(base, directory, methods, printed_by):
    """Runs these methods at the smallest size, and looks at what is left."""
    cfg = Config(directory, methods, seed=0, seeds=2, pairs=16, val_items=12, items=13, base=base)
    experiment.main(dataclasses.replace(cfg, workers=1))
    results = json.loads((directory / "results.json").read_text())
    assert results["seeds"] == [0, 1]
    printed = printed_by.readouterr().out
    for found in results["worlds"].values():
        assert set(found["methods"]) == {"bt", *methods}
        for name, method in found["methods"].items():
            assert method["setting"] in experiment.METHODS[name].trials
            assert method["splits"]["ood_prompt"]["macro"]["n"] == 2
            assert 0 <= method["splits"]["id"]["longer"]["mean"] <= 1
            assert name in printed
        gains, of = found["gains"]["armo - armo, no gate"], found["methods"]
        means = [of[name]["splits"]["id"]["macro"]["mean"] for name in ("armo", "armo, no gate")]
        assert gains["id"]["mean"] == pytest.approx(means[0] - means[1])
        assert "armo - smorm" not in found["gains"] or "smorm" in methods
    known = [found["methods"]["gold attributes"] for found in results["worlds"].values()]
    assert known[0]["splits"]["id"]["macro"]["mean"] == 1.0
    assert known[1]["splits"]["id"]["macro"]["mean"] > 0.7


def test_a_small_run_leaves_every_figure(base, tmp_path, capsys):
    few = ("armo", "armo, no gate", "base: bt", "gold attributes")
    check_run(base, tmp_path / "run", few, capsys)


@pytest.mark.slow
def test_so_does_a_small_run_of_all_methods(base, tmp_path, capsys):
    check_run(base, tmp_path / "run", tuple(experiment.METHODS), capsys)
