"""SMORM, URM, QRM and ArmoRM: their losses by hand, and what they train and export."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import jax
import numpy as np
import pytest

from jaxrm import toy
from jaxrm.data.packing import pack
from jaxrm.errors import DataError
from jaxrm.losses.attributes import LEVELS
from jaxrm.methods import attributes
from jaxrm.methods.attributes import ATTRIBUTES
from jaxrm.methods.bench import Bench, of_length
from jaxrm.methods.method import Method
from jaxrm.methods.task import InMemory, Task
from jaxrm.models.gate import ConstantGate
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from tests.methods.small_base import small_base

WORLD = toy.World(seed=0)
COUNT = 7


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def comparisons():
    return {split: WORLD.rated(WORLD.comparisons(split, 16)) for split in ("train", "val", "id")}


# The losses


@pytest.fixture(scope="module")
def batch(base, comparisons):
    bench = Bench(base, rows=1)
    trees = bench.trees(comparisons["train"])
    return pack(trees, [[0, 1]], of_length(bench, Method("", columns=attributes.GRADES), trees))


class Saying:
    """A model whose head's outputs are known."""

    def __init__(self, batch, count):
        shape = (*batch.response_mask.shape, count)
        self.outputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        self.lora = None

    def hidden(self, batch, rng=None):
        return None


@pytest.fixture
def saying(monkeypatch, batch):
    monkeypatch.setattr(attributes.heads, "outputs", lambda model, *_: model.outputs)
    return lambda count: Saying(batch, count)


def test_smorm_is_bradley_terry_on_one_output_and_regression_on_the_others(batch, saying):
    model = saying(1 + COUNT)
    terms = attributes.smorm(3.0)(model, batch, None)
    margin = model.outputs[0, 0, 0] - model.outputs[0, 1, 0]
    assert terms["reward"].values[0, 0] == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-5)
    assert terms["reward"].weights.sum() == 2
    squares = (model.outputs[..., 1:] - batch.attributes) ** 2
    graded = batch.attributes_mask
    np.testing.assert_allclose(terms["attributes"].values[graded], squares[graded], rtol=1e-5)
    assert terms["attributes"].coefficient == 3.0
    assert terms["attributes"].weights.sum() == graded.sum() < 4 * COUNT


def test_urm_halves_the_outputs(batch, saying):
    model, mask = saying(2 * COUNT), batch.attributes_mask
    values = attributes.gaussian(None)(model, batch, None)["attributes"].values
    mean, log_deviation = np.split(model.outputs, 2, axis=-1)
    distance = (batch.attributes - mean) / np.exp(log_deviation)
    expected = log_deviation + math.log(2 * math.pi) / 2 + distance**2 / 2
    np.testing.assert_allclose(values[mask], expected[mask], rtol=1e-4)


def test_qrm_groups_the_outputs_by_attribute(batch, saying):
    model = saying(19 * COUNT)
    values = attributes.quantiles(None)(model, batch, None)["attributes"].values
    row, slot, last = map(int, np.argwhere(batch.attributes_mask)[-1])
    of_attribute = model.outputs[row, slot, 19 * last : 19 * (last + 1)]
    short = batch.attributes[row, slot, last] - of_attribute
    expected = np.mean(short * (np.arange(1, 20) / 20 - (short < 0)))
    assert values[row, slot, last] == pytest.approx(expected, rel=1e-4)


# What is trained


BENCHES = {
    "all": {},
    "lora": {"train": "lora", "lora": LoraConfig(rank=2)},
    "a deep head": {"head": HeadConfig("mlp", hidden=8)},
}


@pytest.fixture(scope="module")
def task(base, comparisons):
    @functools.cache
    def on(kind):
        bench = Bench(base, rows=2, **BENCHES[kind])
        train, val = (bench.pack(comparisons[split]) for split in ("train", "val"))
        return Task(bench, InMemory(train), val, rate=1e-2, strength=None, epochs=1, seed=0)

    return on


@pytest.fixture(scope="module")
def trained(task):
    @functools.cache
    def by(name, kind):
        method = ATTRIBUTES[name]
        return dataclasses.replace(task(kind), strength=method.default).train(method)

    return by


def exported(trained, bench, data):
    """What its parts, and the gate on them, say."""
    options = {"mesh": bench.devices, "rows": bench.rows, "row_length": bench.length}
    return np.stack(trained.read(data.trees, **options))


@pytest.mark.parametrize(
    ("name", "kind"),
    [*itertools.product(ATTRIBUTES, ("all", "lora")), ("urm", "a deep head")],
)
def test_what_scores_is_what_is_exported(task, trained, comparisons, name, kind):
    bench, made = task(kind).bench, trained(name, kind)
    held_out = bench.pack(comparisons["id"])
    scores = made.scores(held_out)
    assert scores.shape == (16, 2)
    assert np.abs(scores[:, 0] - scores[:, 1]).min() > 0
    np.testing.assert_allclose(exported(made, bench, held_out), scores, rtol=1e-4, atol=1e-5)
    assert (made.gate is None) == (name == "smorm")
    outputs = 1 if name == "smorm" else COUNT
    assert made.parts[0].model().head_config.outputs == outputs


def test_lora_leaves_the_base_as_it_is(task, trained):
    start = task("lora").bench.start(0)
    for model in trained("qrm", "lora").models:
        params = model.fitted.params
        jax.tree.map(np.testing.assert_array_equal, params["layers"], start["layers"])
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params["lora"], start["lora"])
        assert min(jax.tree.leaves(moved)) > 0


def test_quantiles_leave_the_states_as_they_are(trained):
    trunk, head = trained("qrm", "all").models
    assert head.fitted.params["reward_head"]["weight"].shape[1] == COUNT * len(LEVELS)
    for group in trunk.fitted.params.keys() - {"reward_head"}:
        np.testing.assert_equal(head.fitted.params[group], trunk.fitted.params[group])


def test_a_debiased_head_says_nothing_of_verbosity(task):
    ridge = functools.partial(attributes.of_ridge, gate=ConstantGate(scale=10.0))
    debiased, plain = (
        Method("", strengths=(1e-2,), train=functools.partial(ridge, debias=debias))
        for debias in (True, False)
    )
    small = dataclasses.replace(task("all"), strength=1e-2)
    weights = [
        small.train(method).parts[0].model().reward_head.arrays()["weight"]
        for method in (debiased, plain)
    ]
    np.testing.assert_array_equal(weights[0][:, -1], 0.0)
    # The others lost a multiple of verbosity's head between none and all of it.
    lost = (weights[1] - weights[0]) / weights[1][:, -1:]
    np.testing.assert_allclose(lost, np.broadcast_to(lost[:1], lost.shape), atol=1e-3)
    assert -1e-3 < lost.min() <= lost.max() < 1 + 1e-3


def test_data_without_grades_are_named(task):
    plain = task("all").bench.pack(WORLD.comparisons("train", 4))
    for method in ATTRIBUTES.values():
        with pytest.raises(DataError, match="attributes"):
            dataclasses.replace(task("all"), data=InMemory(plain), strength=1.0).train(method)
