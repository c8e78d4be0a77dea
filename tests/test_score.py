"""Scoring: any K, any length, input order; the command writes whole files or none."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm import score as scoring
from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.packing import TokenTree
from jaxrm.errors import DataError
from jaxrm.models import heads, hub, transformer
from jaxrm.models.rotary import Dynamic, Rope
from jaxrm.models.transformer import RewardModel
from jaxrm.score import read, score
from tests.messages_oracle import FOLDER

BOTH = {"rewards": heads.rewards, "logps": heads.response_logps}


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
    return chat.tokenize(mixed, chat.load_tokenizer(FOLDER))


@pytest.fixture(scope="module")
def scores(model, trees, mesh):
    return read(model, trees, BOTH, mesh=mesh, rows=2, row_length=1024, ask="all")


def test_every_response_is_scored_in_its_place(scores, trees):
    assert [len(rewards) for rewards in scores["rewards"]] == [4, 1, 3, 25]
    rewards = np.concatenate(scores["rewards"])
    assert np.isfinite(rewards).all()
    assert scores["rewards"][0][0] == pytest.approx(
        scores["rewards"][0][2], rel=1e-6
    )  # the same answer
    assert len(np.unique(rewards.round(5))) > 25
    assert (np.concatenate(scores["logps"]) < 0).all()


def test_short_rows_split_comparisons_and_lengthen_for_long_texts(scores, model, trees, mesh):
    # No row of 64 holds the second and third comparison's texts, nor all 25 answers of the last.
    short = read(model, trees, BOTH, mesh=mesh, rows=2, row_length=64, ask="all")
    for whole, cut in zip(scores["rewards"], short["rewards"], strict=True):
        np.testing.assert_allclose(whole, cut, rtol=1e-5, atol=1e-5)
    for whole, cut in zip(scores["logps"], short["logps"], strict=True):
        np.testing.assert_allclose(whole, cut, rtol=1e-5)


def test_scores_follow_their_comparison_in_any_order(scores, model, trees, mesh):
    order = [2, 0, 3, 1]
    shuffled = score(model, [trees[i] for i in order], mesh=mesh, rows=3, row_length=512)
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled[place], scores["rewards"][i], rtol=1e-5, atol=1e-5)


def test_longer_rows_come_fewer_to_a_batch(trees, mesh):
    batches = list(scoring._batches(trees, 8, 64, "none", mesh, shared=True))
    shapes = {batch.tokens.shape for batch in batches}
    assert len(shapes) > 1
    for rows, length in shapes:
        assert rows * length <= 8 * 64


def test_the_command_scores_a_file(tmp_path, scores, mesh, model):
    rows = [
        {
            "id": "ranked",
            "prompt": [{"role": "user", "content": "hi"}],
            "responses": ["a", "b", ""],
        },
        {"id": "pair", "prompt": "raw text", "responses": [" and more", " or less"]},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "deep" / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    scoring.main(scoring.Config(source, out, FOLDER, row_length=64, rows=1))
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in written] == ["ranked", "pair"]
    trees = chat.tokenize(sources.read(source), chat.load_tokenizer(FOLDER))
    expected = score(model, trees, mesh=mesh, rows=2, row_length=256)
    for row, rewards in zip(written, expected, strict=True):
        np.testing.assert_allclose(row["rewards"], rewards, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rows": 0}, "--rows must be at least 1"),
        ({"row_length": 0}, "--row-length must be at least 1"),
        ({"output": FOLDER}, "is a directory"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(tmp_path, options, problem):
    config = scoring.Config(str(tmp_path / "none.jsonl"), tmp_path / "out.jsonl", FOLDER)
    with pytest.raises(DataError, match=problem):
        scoring.main(dataclasses.replace(config, **options))


def test_a_bad_row_is_named_and_nothing_is_written(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a", "responses": ["b"]}\n{"prompt": "a", "responses": [3]}\n')
    command = [sys.executable, "-m", "jaxrm.score", "--model", FOLDER, source, out]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "in.jsonl, row 2: field 'responses[0]': expected text" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_no_reward_hangs_on_its_siblings_where_frequencies_go_by_length(model, trees, mesh):
    scaled = Rope(10_000.0, Dynamic(factor=4.0, original_length=32))
    config, params = dataclasses.replace(model.config, rope=scaled), transformer.split(model)[1]
    dynamic = RewardModel(config, model.head_config, params=params)
    options = {"mesh": mesh, "rows": 2, "row_length": 512}
    together = score(dynamic, trees, **options)
    alone = [
        score(dynamic, [TokenTree(tree.prompt, (branch,))], **options)[0][0]
        for tree in trees[:3]
        for branch in tree.branches
    ]
    np.testing.assert_allclose(np.concatenate(together[:3]), alone, rtol=1e-4)
    # One of these texts is long enough to be read otherwise.
    plain = np.concatenate(score(model, trees[:3], **options))
    assert np.abs(plain - alone).max() > 1e-2
