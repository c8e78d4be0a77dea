"""The whole path on a mesh of eight devices equals one device, and compiles once."""

import functools

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data import chat, packing, planning, sources
from jaxrm.data.loader import Loader
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.huggingface import hub
from jaxrm.methods.grm import grm
from jaxrm.models import heads, transformer
from jaxrm.parallel import MeshShape, ShardingRules
from jaxrm.read.reading import read
from jaxrm.train.optimizer import OptimizerConfig, learning_rates, make_optimizer
from jaxrm.train.state import abstract_state, create_state, shardings_of
from jaxrm.train.step import make_train_step
from tests.messages_oracle import FOLDER


@pytest.fixture(scope="module")
def trees():
    read = chat.tokenize(sources.read(FOLDER / "rows.jsonl"), load_tokenizer(FOLDER))
    rng = np.random.default_rng(0)
    # Many comparisons of varied lengths and orders from the few real ones.
    made = []
    for i in range(120):
        tree = read[i % len(read)]
        kept = [b.tokens[: rng.integers(1, len(b.tokens) + 1)] for b in tree.branches]
        branches = tuple(packing.Branch(t, np.ones(len(t), bool)) for t in kept)
        made.append(packing.TokenTree(tree.prompt, branches, ranks=(i % 2, 1 - i % 2)))
    return made


def train(mesh, trees, steps):
    shape = planning.fit_shape(trees, rows=4, length=128, ask="best")
    loader = Loader(trees, shape, mesh=mesh, seed=0)
    model = hub.load(FOLDER, None, mesh=mesh)
    structure, params = transformer.split(model)
    config = OptimizerConfig(learning_rate=1e-3, clip=1.0)
    optimizer, rates = make_optimizer(config), learning_rates(config, 100)
    abstract = abstract_state(
        params,
        transformer.axes(model),
        optimizer,
        trainable=lambda path: True,
        mesh=mesh,
        rules=ShardingRules(),
    )
    state = create_state(params, optimizer, abstract, seed=0)
    step = make_train_step(grm(0.3), structure, optimizer, shardings_of(abstract))
    history = []
    with jax.set_mesh(mesh):
        for rate, batch in zip(rates[:steps], loader.batches(0), strict=False):
            state, metrics = step(state, batch, rate)
            history.append(jax.device_get(metrics))
    return step, jax.device_get(state.trainable), history


@pytest.fixture(scope="module")
def single(trees):
    one = parallel.make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
    return train(one, trees, 2)


def test_eight_devices_train_as_one(trees, single):
    _, params, history = train(parallel.make_mesh(MeshShape(2, 2, 2)), trees, 2)
    _, expected, expected_history = single
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
        history,
        expected_history,
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), params, expected)


def test_parameters_are_really_split():
    mesh = parallel.make_mesh(MeshShape(2, 2, 2))
    _, params = transformer.split(hub.load(FOLDER, None, mesh=mesh))
    query = params["layers"]["query"]
    assert query.sharding.shard_shape(query.shape) == (2, 12, 2, 8)
    key = params["layers"]["key"]  # one key-value head cannot be split over two devices
    assert key.sharding.shard_shape(key.shape) == (2, 12, 1, 8)


def test_eight_devices_score_as_one(trees):
    scores, both = [], {"rewards": heads.rewards, "logps": heads.response_logps}
    for shape, devices in ((MeshShape(1, 1, 1), 1), (MeshShape(2, 2, 2), 8)):
        mesh = parallel.make_mesh(shape, jax.devices()[:devices])
        model = hub.load(FOLDER, None, mesh=mesh)
        scores.append(read(model, trees[:20], both, mesh=mesh, rows=4, row_length=128, ask="all"))
    for one, eight in zip(scores[0]["rewards"], scores[1]["rewards"], strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-5)
    for one, eight in zip(scores[0]["logps"], scores[1]["logps"], strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-4)


def test_fifty_varied_batches_compile_once(trees):
    step, _, history = train(parallel.make_mesh(MeshShape(2, 2, 2)), trees, 50)
    assert len(history) == 50
    assert len({int(metrics["tokens"]) for metrics in history}) > 10
    assert step._cache_size() == 1
