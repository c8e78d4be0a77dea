"""Reference log-probs: what a live reference gives, computed once for what they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data import planning
from jaxrm.data.packing import PackShape, measure, pack
from jaxrm.data.store import with_columns
from jaxrm.losses import generation
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import Compute, RewardModel, split
from jaxrm.read.reference import reference_logps
from tests.models.support import CONFIG, alone, in_order, random_tree, read_off, small_model

HEAD = HeadConfig("linear")
MESH = parallel.make_mesh(devices=jax.devices()[:1])


class Ran(Exception):
    """A model was run."""


class Asleep(RewardModel):
    """A model that must not be run."""

    def hidden(self, batch):
        raise Ran


def asleep(seed=0, **compute):
    """The model of that seed, for a cache that holds all that is asked of it."""
    params = split(small_model(CONFIG, HEAD, seed))[1]
    return Asleep(CONFIG, HEAD, params=params, compute=Compute(**compute))


@pytest.fixture(scope="module")
def model():
    return small_model(CONFIG, HEAD)


@pytest.fixture(scope="module")
def trees():
    rng = np.random.default_rng(3)
    return [random_tree(rng, 5, (3, 6)), random_tree(rng, 4, (7, 2, 3)), random_tree(rng, 9, (2,))]


def logps_of(model, trees, cache, key="weights", rows=1, row_length=32):
    options = {"mesh": MESH, "rows": rows, "row_length": row_length}
    return reference_logps(model, trees, cache=cache, model_key=key, **options)


@pytest.fixture(scope="module")
def filled(model, trees, tmp_path_factory):
    """A cache that holds the log-probs of `trees`, and these."""
    cache = tmp_path_factory.mktemp("cache") / "deep"
    return cache, logps_of(model, trees, cache)


@pytest.fixture
def cache(filled, tmp_path):
    for path in filled[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def same(found, expected):
    assert all(logps.dtype == np.float32 for logps in found)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def live(model, trees):
    """Log-probs of every response alone in its row, one after another."""
    shape = PackShape(rows=6, length=16, slots=1, targets=16, ask="all")
    batch = alone(trees, shape)
    return in_order(read_off(*split(model), batch)[1], batch, 6)


def test_they_are_a_live_references_log_probs_in_input_order(filled, model, trees):
    assert [logps.shape for logps in filled[1]] == [(2,), (3,), (1,)]
    expected = live(model, trees)
    assert jnp.std(expected) > 1.0
    np.testing.assert_allclose(np.concatenate(filled[1]), expected, rtol=0, atol=1e-5)


def packed_pairs(trees):
    shape = planning.fit_shape(trees, rows=2, length=48, ask="all")
    sizes = measure(trees, ask="all", preferences=True)
    return pack(trees, planning.plan_rows(sizes, shape.capacity, np.array([2, 0, 1])), shape)


def test_dpo_with_them_is_dpo_with_a_live_reference(filled, model, trees):
    batch = packed_pairs(with_columns(trees, {"reference_logps": filled[1]}))
    asked = np.where(batch.response_mask, batch.response_index, 0)
    live_logps = jnp.where(batch.response_mask, live(model, trees)[asked], 0.0)

    def loss(policy, reference_logps):
        logps = read_off(*split(policy), batch)[1]
        pairs = (*batch.pairs(logps), *batch.pairs(reference_logps))
        return np.asarray(generation.dpo(*pairs, 0.5))[batch.pair_mask]

    policy = small_model(CONFIG, HEAD, seed=1)
    found, expected = loss(policy, batch.reference_logps), loss(policy, live_logps)
    assert expected.shape == (4,)
    assert np.abs(expected - math.log(2)).min() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(loss(model, batch.reference_logps), math.log(2), atol=1e-5)


def test_a_second_call_does_not_run_the_model(filled, trees):
    same(logps_of(asleep(), trees, filled[0]), filled[1])


def test_labels_and_packing_are_nothing_that_they_depend_on(filled, trees):
    relabelled = tuple(
        dataclasses.replace(tree, ranks=None, columns={"x": np.ones(())}) for tree in trees
    )
    same(logps_of(asleep(), relabelled, filled[0], rows=3, row_length=64), filled[1])


def change_branch(trees, **fields):
    branch = dataclasses.replace(trees[0].branches[0], **fields)
    first = dataclasses.replace(trees[0], branches=(branch, *trees[0].branches[1:]))
    return [first, *trees[1:]]


CHANGES = {
    "a prompt's token": lambda trees: [
        dataclasses.replace(trees[0], prompt=trees[0].prompt + np.eye(1, 5, 2, dtype=np.int32)[0]),
        *trees[1:],
    ],
    "a response's token": lambda trees: change_branch(
        trees, tokens=trees[0].branches[0].tokens[::-1]
    ),
    "a target": lambda trees: change_branch(trees, targets=~trees[0].branches[0].targets),
    "the border of prompt and response": lambda trees: [
        *trees[:2],
        dataclasses.replace(
            trees[2],
            prompt=trees[2].prompt[:-1],
            branches=(
                dataclasses.replace(
                    trees[2].branches[0],
                    tokens=np.append(trees[2].prompt[-1:], trees[2].branches[0].tokens),
                    targets=np.append(False, trees[2].branches[0].targets),
                ),
            ),
        ),
    ],
    "the order": lambda trees: trees[::-1],
    "one fewer": lambda trees: trees[:-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_texts_are_computed_anew(filled, trees, change):
    with pytest.raises(Ran):
        logps_of(asleep(), CHANGES[change](trees), filled[0])


def test_other_weights_types_and_precisions_are_computed_anew(filled, trees):
    with pytest.raises(Ran):
        logps_of(asleep(), trees, filled[0], key="other weights")
    with pytest.raises(Ran):
        logps_of(asleep(dtype="bfloat16"), trees, filled[0])
    with pytest.raises(Ran), jax.default_matmul_precision("highest"):
        logps_of(asleep(), trees, filled[0])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(path, **arrays):
    """Other arrays, under a hash that is theirs."""
    with np.load(path) as stored:
        arrays = dict(stored) | arrays
    with path.open("wb") as file:
        np.savez(file, **arrays)
    card = path.with_suffix(".json")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": digest}))


DAMAGES = {
    "a flipped byte": flip,
    "half the file": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "a garbled card": lambda path: path.with_suffix(".json").write_text('{"sha'),
    "a card without a hash": lambda path: path.with_suffix(".json").write_text("{}"),
    "a NaN": lambda path: rewrite(path, logps=np.full(6, np.nan, np.float32)),
    "other comparisons": lambda path: rewrite(path, counts=np.array([3, 2, 1])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_made_again(cache, filled, model, trees, damage, caplog):
    (path,) = cache.glob("*.npz")
    DAMAGES[damage](path)
    with caplog.at_level(logging.WARNING, logger="jaxrm"):
        same(logps_of(model, trees, cache), filled[1])
    assert f"{path} is damaged" in caplog.text
    same(logps_of(asleep(), trees, cache), filled[1])


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_write_that_was_interrupted_never_happened(cache, trees, suffix):
    (path,) = cache.glob(f"*{suffix}")
    path.unlink()
    with pytest.raises(Ran):
        logps_of(asleep(), trees, cache)


def test_the_card_says_what_the_numbers_belong_to(filled):
    (card,) = filled[0].glob("*.json")
    card = json.loads(card.read_text())
    assert (card["comparisons"], card["responses"]) == (3, 6)
    assert (card["model"], card["compute_dtype"]) == ("weights", "float32")
    assert len(list(filled[0].iterdir())) == 2


def test_what_is_not_finite_is_refused_and_not_kept(trees, tmp_path):
    broken = small_model(CONFIG, HEAD)
    broken.final_norm[...] = broken.final_norm[...] * jnp.nan
    with pytest.raises(FloatingPointError, match="comparison 0 is nan"):
        logps_of(broken, trees, tmp_path)
    assert not list(tmp_path.iterdir())
