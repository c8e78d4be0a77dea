from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data.packing import PackShape
from jaxrm.models import attention, split_attention
from jaxrm.models.attention import tree_attention, tree_mask
from tests.models.support import packed, random_tree

FORMS = ("dense", "split")
SHAPE = PackShape(rows=2, length=20, slots=5, targets=20, ask="all")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return packed([random_tree(rng, 5, (3, 4)), random_tree(rng, 4, (2, 3, 2))], SHAPE)


@pytest.fixture(scope="module")
def qkv(batch):
    rng = np.random.default_rng(1)
    shapes = [(2, 20, heads, 6) for heads in (4, 2, 2)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.fixture(params=[1, 3, 8, 64])
def block(request, monkeypatch):
    """Tokens of a block: of one, of some that leave a rest, of more than a row has."""
    monkeypatch.setattr(split_attention, "BLOCK", request.param)
    jax.clear_caches()  # what was traced with another


def _sees(batch, r: int, i: int, j: int, window: int | None) -> bool:
    """The rule, token by token, in the words of `jaxrm.data.packing`."""
    if batch.comparison[r, i] < 0 or batch.comparison[r, i] != batch.comparison[r, j]:
        return False
    if batch.branch[r, j] not in (0, batch.branch[r, i]):
        return False
    distance = batch.positions[r, i] - batch.positions[r, j]
    return distance >= 0 and (window is None or distance < window)


def _reference(q, k, v, batch, scale, window, softcap):
    """Attention in float64 loops; padding's rows stay NaN."""
    rows, length, heads, _ = q.shape
    out = np.full(q.shape, np.nan)
    for r in range(rows):
        for i in range(length):
            seen = [j for j in range(length) if _sees(batch, r, i, j, window)]
            for h in range(heads if seen else 0):
                kv = h // (heads // k.shape[2])
                logits = scale * (k[r, seen, kv].astype(np.float64) @ q[r, i, h])
                if softcap is not None:
                    logits = softcap * np.tanh(logits / softcap)
                weights = np.exp(logits - logits.max())
                out[r, i, h] = weights / weights.sum() @ v[r, seen, kv]
    return out


def test_the_mask_is_the_rule_of_the_tree(batch):
    mask = np.asarray(tree_mask(batch))
    for (r, i, j), seen in np.ndenumerate(mask):
        assert seen == _sees(batch, r, i, j, None)


@pytest.mark.parametrize("window", [None, 1, 3, 2**30])
@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("form", FORMS)
def test_equals_a_plain_reference(batch, qkv, window, softcap, form):
    expected = _reference(*qkv, batch, 0.9, window, softcap)
    real = batch.comparison >= 0
    assert (~real).sum() > 0
    options = {"window": window, "softcap": softcap, "form": form}
    found = tree_attention(*qkv, batch, scale=0.9, **options)
    np.testing.assert_allclose(found[real], expected[real], atol=2e-6)


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"window": 3, "softcap": 0.7}])
def test_the_split_form_has_the_value_and_the_gradients_of_the_dense_one(
    batch, qkv, options, block
):
    real = jnp.asarray(batch.comparison >= 0)[..., None, None]

    def value_and_gradients(form):
        def total(qkv):
            found = tree_attention(*qkv, batch, scale=0.9, form=form, **options)
            return (jnp.where(real, found, 0.0) ** 2).sum()

        return jax.jit(jax.value_and_grad(total))([jnp.asarray(part) for part in qkv])

    pairs = zip(*(jax.tree.leaves(value_and_gradients(form)) for form in FORMS), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)  # of values up to 8


@pytest.mark.parametrize("order", ["as packed", "shuffled"])
def test_blocks_find_their_keys_wherever_they_lie(batch, qkv, order, block):
    place = np.arange(20) if order == "as packed" else np.random.default_rng(2).permutation(20)
    fields = ("comparison", "branch", "positions")
    moved = dataclasses.replace(batch, **{n: getattr(batch, n)[:, place] for n in fields})
    for window in (None, 2):
        expected = _reference(*qkv, batch, 0.9, window, None)[:, place]
        options = {"window": window, "form": "split"}
        found = tree_attention(*(part[:, place] for part in qkv), moved, scale=0.9, **options)
        real = moved.comparison >= 0
        np.testing.assert_allclose(found[real], expected[real], atol=2e-6)


def test_only_pairs_of_blocks_that_see_each_other_are_computed(batch, monkeypatch):
    monkeypatch.setattr(split_attention, "BLOCK", 4)
    blocks = split_attention.cut(batch)
    mask = np.asarray(tree_mask(batch)).reshape(2, 5, 4, 5, 4)
    np.testing.assert_array_equal(blocks.seen, mask.any(axis=(2, 4)))
    count = int(split_attention._pairs(blocks, None).count)
    assert count == mask.any(axis=(2, 4)).sum() < 2 * 5 * 5
    near = split_attention._pairs(blocks, 1)  # a token alone: its own block at the least
    assert 10 - 2 <= int(near.count) < count


def test_the_form_suits_the_machine(monkeypatch):
    assert attention.suited(255) == "dense"
    assert attention.suited(256) == "split"
    one, all_ = (parallel.make_mesh(devices=jax.devices()[:n]) for n in (1, 8))
    with jax.set_mesh(one):
        assert attention.suited(1024) == "split"
    with jax.set_mesh(all_):
        assert attention.suited(1024) == "dense"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert attention.suited(1024) == "dense"


def test_windows_and_caps_change_the_result(batch, qkv):
    plain, windowed, capped = (
        tree_attention(*qkv, batch, scale=0.9, **options)
        for options in ({}, {"window": 3}, {"softcap": 0.7})
    )
    assert jnp.abs(plain - windowed).max() > 0.1
    assert jnp.abs(plain - capped).max() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_padding_is_finite_and_so_are_its_gradients(batch, qkv, form):
    def total(qkv):
        return tree_attention(*qkv, batch, scale=1.0, window=2, softcap=5.0, form=form).sum()

    value, gradients = jax.value_and_grad(total)([jnp.asarray(part) for part in qkv])
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_keeps_its_type_and_softmaxes_in_float32(batch, qkv, form):
    narrow = [jnp.asarray(part, jnp.bfloat16) for part in qkv]
    found = tree_attention(*narrow, batch, scale=0.9, form=form)
    assert found.dtype == jnp.bfloat16
    wide = tree_attention(*(part.astype(jnp.float32) for part in narrow), batch, scale=0.9)
    real = batch.comparison >= 0
    np.testing.assert_allclose(found[real].astype(np.float32), wide[real], atol=0.03)
    jaxpr = str(jax.make_jaxpr(lambda *x: tree_attention(*x, batch, scale=0.9, form=form))(*narrow))
    exponentials = [line for line in jaxpr.splitlines() if "= exp " in line]
    assert exponentials
    assert all("f32" in line for line in exponentials)
