"""Reading: any K, any length, input order, whatever the rows."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.packing import TokenTree
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.huggingface import hub
from jaxrm.models import heads, transformer
from jaxrm.models.rotary import Dynamic, Rope
from jaxrm.models.transformer import RewardModel
from jaxrm.read import reading
from jaxrm.read.reading import read
from tests.messages_oracle import FOLDER
from tests.models.support import CONFIG

BOTH = {"rewards": heads.rewards, "logps": heads.response_logps}


def rewards_of(model, trees, **options):
    return read(model, trees, {"rewards": heads.rewards}, **options)["rewards"]


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def model():
    return hub.load(FOLDER, None)


def question(text, *answers):
    responses = tuple((Message("assistant", answer),) for answer in answers)
    return Comparison((Message("user", text),), responses)


@pytest.fixture(scope="module")
def trees():
    mixed = [
        question("what does the narvel eat?", "figs", "", "figs", "it eats oats " * 40),
        question("one answer?", "yes"),
        question("a long one? " * 30, "no", "yes", "maybe"),
        question("many?", *(f"answer {i}" for i in range(25))),
    ]
    return chat.tokenize(mixed, load_tokenizer(FOLDER))


@pytest.fixture(scope="module")
def scores(model, trees, mesh):
    return read(model, trees, BOTH, mesh=mesh, rows=2, row_length=1024, ask="all")


def test_every_response_is_scored_in_its_place(scores, trees):
    assert [len(rewards) for rewards in scores["rewards"]] == [4, 1, 3, 25]
    rewards = np.concatenate(scores["rewards"])
    assert np.isfinite(rewards).all()
    # The same answer elsewhere in a row: where it lies decides the last bits of float32.
    assert scores["rewards"][0][0] == pytest.approx(scores["rewards"][0][2], rel=1e-5)
    assert len(np.unique(rewards.round(5))) > 25
    assert (np.concatenate(scores["logps"]) < 0).all()


def test_short_rows_split_comparisons_and_lengthen_for_long_texts(scores, model, trees, mesh):
    # No row of 64 holds the second and third comparison's texts, nor all 25 answers of the last.
    short = read(model, trees, BOTH, mesh=mesh, rows=2, row_length=64, ask="all")
    for whole, cut in zip(scores["rewards"], short["rewards"], strict=True):
        np.testing.assert_allclose(whole, cut, rtol=1e-5, atol=1e-5)
    for whole, cut in zip(scores["logps"], short["logps"], strict=True):
        np.testing.assert_allclose(whole, cut, rtol=1e-5)


def test_all_sets_of_trees_share_a_compilation(model, trees, mesh):
    options = {"mesh": mesh, "rows": 2, "row_length": 256, "ask": "all"}
    read(model, trees[:1], BOTH, **options)
    compiled = reading._read_batch._cache_size()
    for subset in (trees[1:2], trees[3:], [trees[3], trees[0]]):
        read(model, subset, BOTH, **options)
    assert reading._read_batch._cache_size() == compiled


def test_scores_follow_their_comparison_in_any_order(scores, model, trees, mesh):
    order = [2, 0, 3, 1]
    shuffled = rewards_of(model, [trees[i] for i in order], mesh=mesh, rows=3, row_length=512)
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled[place], scores["rewards"][i], rtol=1e-5, atol=1e-5)


def test_longer_rows_come_fewer_to_a_batch(trees, mesh):
    batches = list(reading.pack_batches(trees, CONFIG, mesh=mesh, rows=8, row_length=64))
    shapes = {batch.tokens.shape for batch in batches}
    assert len(shapes) > 1
    for rows, length in shapes:
        assert rows * length <= 8 * 64


def test_no_reward_hangs_on_its_siblings_where_frequencies_go_by_length(model, trees, mesh):
    scaled = Rope(10_000.0, Dynamic(factor=4.0, original_length=32))
    config, params = dataclasses.replace(model.config, rope=scaled), transformer.split(model)[1]
    dynamic = RewardModel(config, model.head_config, params=params)
    options = {"mesh": mesh, "rows": 2, "row_length": 512}
    together = rewards_of(dynamic, trees, **options)
    alone = [
        rewards_of(dynamic, [TokenTree(tree.prompt, (branch,))], **options)[0][0]
        for tree in trees[:3]
        for branch in tree.branches
    ]
    np.testing.assert_allclose(np.concatenate(together[:3]), alone, rtol=1e-4)
    # One of these texts is long enough to be read otherwise.
    plain = np.concatenate(rewards_of(model, trees[:3], **options))
    assert np.abs(plain - alone).max() > 1e-2
