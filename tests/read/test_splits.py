"""Figures of a model on named splits."""

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError
from jaxrm.huggingface import hub
from jaxrm.models import heads
from jaxrm.read import splits
from jaxrm.read.packed import pack
from jaxrm.read.reading import read
from tests.messages_oracle import FOLDER


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def model():
    return hub.load(FOLDER, None)


@pytest.fixture(scope="module")
def split(model, mesh):
    """A function of comparisons: their split."""
    tokenizer = load_tokenizer(FOLDER)

    def of_rows(rows):
        trees = chat.tokenize(rows, tokenizer)
        return pack(rows, trees, model.config, mesh=mesh, rows=2, row_length=256, ask="all")

    return of_rows


def test_figures_belong_to_their_split(model, split, mesh):
    rows = sources.read(FOLDER / "rows.jsonl")
    parts = {"first": split(rows[:1]), "rest": split(rows[1:])}
    found = splits.evaluate(model, parts, mesh=mesh)
    both = {"rewards": heads.rewards, "logps": heads.response_logps}
    values = read(model, split(rows).trees, both, mesh=mesh, ask="all", row_length=512)
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
    without = splits.evaluate(model, parts, mesh=mesh, language=False)
    assert "language" not in without["rest"]


def test_comparisons_without_an_order_are_not_counted(model, split, mesh):
    rows = sources.read(FOLDER / "rows.jsonl")
    tie = Comparison(rows[0].prompt, rows[0].responses, ranks=(0, 0))
    found = splits.evaluate(model, {"all": split([*rows, tie])}, mesh=mesh)["all"]
    assert found["n"] == 4
    assert np.isfinite(found["loss"])


def test_a_comparison_without_ranks_is_named(model, split, mesh):
    row = sources.read(FOLDER / "rows.jsonl")[0]
    unranked = Comparison(row.prompt, row.responses, where="eval.jsonl, row 7")
    with pytest.raises(DataError, match="eval.jsonl, row 7: field 'ranks'"):
        splits.evaluate(model, {"all": split([unranked])}, mesh=mesh)
