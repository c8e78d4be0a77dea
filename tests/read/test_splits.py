"""Splits are scored together and reported apart; the probe finds what is there and nothing else."""

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError
from jaxrm.evaluate.probe import probe
from jaxrm.huggingface import hub
from jaxrm.models import heads
from jaxrm.read import splits
from jaxrm.read.reading import read
from jaxrm.read.splits import Split
from tests.messages_oracle import FOLDER


@pytest.fixture(scope="module")
def options():
    return {"mesh": parallel.make_mesh(devices=jax.devices()[:1]), "rows": 2, "row_length": 256}


@pytest.fixture(scope="module")
def model():
    return hub.load(FOLDER, None)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER)


def test_figures_belong_to_their_split(model, tokenizer, options):
    rows = sources.read(FOLDER / "rows.jsonl")
    trees = chat.tokenize(rows, tokenizer)
    parts = {"first": Split(rows[:1], trees[:1]), "rest": Split(rows[1:], trees[1:])}
    found = splits.evaluate(model, parts, **options)
    both = {"rewards": heads.rewards, "logps": heads.response_logps}
    values = read(model, trees, both, ask="all", **options)
    for name, here in (("first", slice(0, 1)), ("rest", slice(1, 4))):
        margins = np.array([chosen - rejected for chosen, rejected in values["rewards"][here]])
        likelier = np.array([chosen > rejected for chosen, rejected in values["logps"][here]])
        assert found[name]["n"] == len(margins)
        assert found[name]["accuracy"] == (margins > 0).mean()
        np.testing.assert_allclose(
            found[name]["loss"], np.log1p(np.exp(-margins)).mean(), rtol=1e-5
        )
        assert found[name]["language"]["accuracy"] == likelier.mean()
        assert sum(found[name]["rewards"]["best"]) == len(margins)
        assert sum(found[name]["rewards"]["others"]) == len(margins)
    curves = splits.curves(found)
    assert curves["eval/rest/loss"] == found["rest"]["loss"]
    assert set(curves) == {f"eval/{n}/{f}" for n in parts for f in ("accuracy", "loss")}
    without = splits.evaluate(model, parts, language=False, **options)
    assert "language" not in without["rest"]


def test_comparisons_without_an_order_are_not_counted(model, tokenizer, options):
    rows = sources.read(FOLDER / "rows.jsonl")
    tie = Comparison(rows[0].prompt, rows[0].responses, ranks=(0, 0))
    split = Split([*rows, tie], chat.tokenize([*rows, tie], tokenizer))
    found = splits.evaluate(model, {"all": split}, **options)["all"]
    assert found["n"] == 4
    assert np.isfinite(found["loss"])


def test_a_comparison_without_ranks_is_named(model, tokenizer, options):
    row = sources.read(FOLDER / "rows.jsonl")[0]
    unranked = Comparison(row.prompt, row.responses, where="eval.jsonl, row 7")
    split = Split([unranked], chat.tokenize([unranked], tokenizer))
    with pytest.raises(DataError, match="eval.jsonl, row 7: field 'ranks'"):
        splits.evaluate(model, {"all": split}, **options)


def planted(tokenizer, seed, count, *, marked):
    """Pairs whose better answer begins "yes", or, unless `marked`, pairs of no difference."""
    rng = np.random.default_rng(seed)
    words = ["figs", "oats", "peas", "eggs", "seeds", "cheese", "apples", "grass"]
    rows = []
    for _ in range(count):
        said = [" ".join(rng.choice(words, 3)) for _ in range(2)]
        ends = "!." if marked else ".."
        answers = [
            (Message("assistant", text + end),) for text, end in zip(said, ends, strict=True)
        ]
        rows.append(Comparison((Message("user", "what?"),), tuple(answers), ranks=(0, 1)))
    return Split(rows, chat.tokenize(rows, tokenizer))


@pytest.mark.parametrize(("marked", "low", "high"), [(True, 0.7, 1.0), (False, 0.35, 0.65)])
def test_the_probe_finds_what_states_hold(model, tokenizer, options, marked, low, high):
    train, test = (planted(tokenizer, seed, 100, marked=marked) for seed in (0, 1))
    found = probe(model, train, test, **options)
    assert found.n == 100
    assert low <= found.accuracy <= high
