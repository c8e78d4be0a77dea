"""From conversations to rewards, log-probs and gradients: equal to Hugging Face's torch models."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrm.data import chat, packing, planning, sources
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.huggingface import families, hub, tensorfile
from jaxrm.losses import generation, preference
from jaxrm.models import heads, transformer
from tests import messages_oracle
from tests.messages_oracle import ALPHA, BETA, CHATS, FOLDER
from tests.models.support import named_gradients, quick_jit, small_model


def tokenized(directory):
    return chat.tokenize(sources.read(FOLDER / "rows.jsonl"), load_tokenizer(directory))


def two_rows(trees):
    """Conversations that share a row and some that do not."""
    length = 2 * max(map(packing.tree_length, trees))
    shape = planning.fit_shape(trees, rows=2, length=length, ask="all")
    sizes = packing.measure(trees, ask="all", preferences=True)
    plan = planning.plan_rows(sizes, shape.capacity, np.arange(len(trees)))
    assert len(plan) == 2
    return jax.tree.map(jnp.asarray, packing.pack(trees, plan, shape))


@pytest.fixture(scope="module")
def trees():
    return tokenized(FOLDER)


@pytest.fixture(scope="module")
def batch(trees):
    return two_rows(trees)


@pytest.fixture(scope="module")
def model():
    return hub.load(FOLDER, None)


def _read(structure, params, batch):
    model = transformer.merge(structure, params)
    hidden = model.hidden(batch)
    rewards = heads.rewards(model, hidden, batch)
    return hidden, rewards, heads.response_logps(model, hidden, batch)


read_params = quick_jit(_read)


def read(model, batch):
    return read_params(*transformer.split(model), batch)


@quick_jit
def loss_and_gradient(structure, params, batch):
    def loss_fn(params):
        _, rewards, logps = _read(structure, params, batch)
        pairs, best = batch.pair_weight * batch.pair_mask, batch.best_mask
        reward = preference.bradley_terry(*batch.pairs(rewards))
        text = generation.sft(batch.best(logps), BETA)
        return (1 - ALPHA) * (reward * pairs).sum() / pairs.sum() + ALPHA * (
            text * best
        ).sum() / best.sum()

    return jax.value_and_grad(loss_fn)(params)


def check_values(values, model, batch):
    hidden, rewards, logps = map(np.asarray, read(model, batch))
    seen = 0
    for r, s in zip(*np.nonzero(np.asarray(batch.response_mask)), strict=True):
        row, response = divmod(int(batch.response_index[r, s]), 2)
        mine = (batch.comparison[r] == batch.response_comparison[r, s]) & (
            (batch.branch[r] == 0) | (batch.branch[r] == response + 1)
        )
        theirs = f"{row}/{response}"
        np.testing.assert_array_equal(batch.tokens[r][mine], values[f"{theirs}/ids"])
        relative = functools.partial(np.testing.assert_allclose, rtol=1e-4)
        relative(hidden[r][np.asarray(mine)], values[f"{theirs}/hidden"], atol=1e-4)
        relative(rewards[r, s], values[f"{theirs}/reward"])
        relative(logps[r, s], values[f"{theirs}/logp"])
        seen += 1
    assert seen == 8


def check_gradients(values, gradients, model, batch, tmp_path):
    structure, params = transformer.split(model)
    loss, gradient = loss_and_gradient(structure, params, batch)
    np.testing.assert_allclose(loss, values["loss"], rtol=1e-5)
    ours = named_gradients(model, gradient, tmp_path)
    assert ours.keys() == gradients.keys()
    for name, theirs in gradients.items():
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours[name] / scale, theirs / scale, atol=1e-3, err_msg=name)
        assert scale > 0


def test_values_and_gradients_equal_the_stored_torch_ones(model, batch, tmp_path):
    values = dict(np.load(FOLDER / "values.npz"))
    check_values(values, model, batch)
    gradients = load_file(FOLDER / "gradients.safetensors")
    check_gradients(values, gradients, model, batch, tmp_path)


@pytest.fixture(scope="module", params=[name for name in CHATS if name != "gemma"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def directory(family, tmp_path_factory):
    """A small model of the family with its tokenizer, as `messages_oracle` had it."""
    scratch = tmp_path_factory.mktemp(family)
    config = families.read(messages_oracle.family_config(family))
    hub.save(small_model(config, None), scratch / "shapes")
    named = tensorfile.read(scratch / "shapes" / "model.safetensors")
    shapes = {name: tensor.shape for name, tensor in named.items()}
    shapes["score.weight"] = (1, config.hidden_size)
    messages_oracle.write(family, shapes, scratch / "model")
    return scratch / "model"


def test_every_familys_values_equal_the_stored_torch_ones(family, directory):
    values = dict(np.load(FOLDER / family / "values.npz"))
    check_values(values, hub.load(directory, None), two_rows(tokenized(directory)))


@pytest.mark.torch
def test_every_familys_values_and_gradients_equal_live_torch(family, directory, tmp_path):
    pytest.importorskip("torch")
    values, gradients = messages_oracle.answers(directory, CHATS[family].end_of_turn)
    model, batch = hub.load(directory, None), two_rows(tokenized(directory))
    check_values(values, model, batch)
    check_gradients(values, gradients, model, batch, tmp_path)


BEGINS = {"<bos>", "<s>", "<|begin_of_text|>"}
LAST = {"llama": "<|eot_id|>", "mistral": "</s>"}


def test_texts_begin_once_and_end_where_rewards_are_read(family, directory):
    hf = load_tokenizer(directory).hf
    for tree in tokenized(directory):
        for branch in tree.branches:
            tokens = hf.convert_ids_to_tokens(np.concatenate([tree.prompt, branch.tokens]))
            begins = [i for i, token in enumerate(tokens) if token in BEGINS]
            assert begins == ([] if family.startswith("qwen") else [0])
            # Of the other families' templates a newline is the last word, but no target.
            assert hf.decode(branch.tokens[-1]) == LAST.get(family, "\n")
            ends = hf.convert_ids_to_tokens(branch.tokens[branch.targets][-1:])
            assert ends == [CHATS[family].end_of_turn]


@pytest.mark.torch
def test_values_and_gradients_equal_live_torch(model, batch, tmp_path):
    pytest.importorskip("torch")
    values, gradients = messages_oracle.answers()
    check_values(values, model, batch)
    check_gradients(values, gradients, model, batch, tmp_path)


@pytest.mark.torch
def test_what_we_save_is_what_torch_reads(model, batch, tmp_path):
    pytest.importorskip("torch")
    hub.save(model, tmp_path / "saved", load_tokenizer(FOLDER))
    values, _ = messages_oracle.answers(tmp_path / "saved")
    stored = np.load(FOLDER / "values.npz")
    for name in stored.files:
        np.testing.assert_allclose(values[name], stored[name], rtol=1e-5, atol=1e-5)


def unpacked(trees):
    """The same comparisons, every response alone with its own copy of the prompt."""
    return [
        dataclasses.replace(tree, branches=(branch,), ranks=(0,), columns={})
        for tree in trees
        for branch in tree.branches
    ]


@pytest.mark.parametrize(
    ("rows", "length", "reverse", "alone"),
    [(1, 640, False, False), (4, 160, True, False), (3, 256, True, True), (1, 96, False, True)],
)
def test_scores_do_not_depend_on_packing(model, trees, rows, length, reverse, alone):
    values = np.load(FOLDER / "values.npz")
    given = unpacked(trees) if alone else trees
    order = np.arange(len(given))[:: -1 if reverse else 1]
    shape = planning.fit_shape(given, rows=rows, length=length, ask="all")
    sizes = packing.measure(given, ask="all", preferences=True)
    plan = planning.plan_rows(sizes, shape.capacity, order)
    seen = 0
    for start in range(0, len(plan), rows):
        batch = packing.pack(given, plan[start : start + rows], shape)
        _, rewards, logps = map(np.asarray, read(model, batch))
        for r, s in zip(*np.nonzero(batch.response_mask), strict=True):
            name = "{}/{}".format(*divmod(int(batch.response_index[r, s]), 2))
            # Rewards are of the size of 1, and one of them happens to be near 0.
            np.testing.assert_allclose(rewards[r, s], values[f"{name}/reward"], atol=1e-5)
            np.testing.assert_allclose(logps[r, s], values[f"{name}/logp"], rtol=1e-5)
            seen += 1
    assert seen == 8


def test_gradients_do_not_depend_on_packing(model, trees):
    structure, params = transformer.split(model)
    gradients = []
    for length, order in ((640, [0, 1, 2, 3]), (160, [3, 1, 0, 2])):
        shape = planning.fit_shape(trees, rows=4, length=length, ask="best")
        sizes = packing.measure(trees, ask="best", preferences=True)
        plan = planning.plan_rows(sizes, shape.capacity, np.array(order))
        batch = jax.tree.map(jnp.asarray, packing.pack(trees, plan, shape))
        gradients.append(loss_and_gradient(structure, params, batch)[1])
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        scale = np.abs(one).max()
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-4)
