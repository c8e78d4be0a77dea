"""What a batch does not carry is refused by whatever would compute with it."""

from __future__ import annotations

import copy
import math
import operator
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrm import parallel
from jaxrm.data import chat, packing, planning
from jaxrm.data.carried import REFERENCE, Absent, Column
from jaxrm.data.comparison import Comparison
from jaxrm.data.loader import Loader
from jaxrm.data.store import TreeStore
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError
from jaxrm.losses import attributes, generation, preference
from tests.data.test_packing import tree
from tests.messages_oracle import FOLDER

NONE = Absent("reference_logps", "comparison 3 has none")
ONES = jnp.ones((2, 3))

USES = {
    "asarray": jnp.asarray,
    "numpy": np.asarray,
    "where": lambda x: jnp.where(ONES > 0, x, 0.0),
    "take": lambda x: jnp.take_along_axis(x, jnp.zeros((1, 1), int), axis=1),
    "array first": lambda x: ONES - x,
    "array last": lambda x: x * ONES,
    "numpy first": lambda x: np.ones(3) * x,
    "number": lambda x: 0.5 * x,
    "compared": lambda x: x > ONES,
    "power": lambda x: x**2,
    "minus": operator.neg,
    "absolute": abs,
    "truth": bool,
    "item": lambda x: x[:, 0],
    "list": list,
    "length": len,
    "float": float,
    "shape": lambda x: x.shape,
    "method": lambda x: x.sum(),
    "isnan": jnp.isnan,
    "sum": jnp.sum,
    "softplus": jax.nn.softplus,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("compiled", [False, True])
def test_any_use_of_what_is_absent_is_refused(use, compiled):
    with pytest.raises(DataError, match="no reference_logps: comparison 3 has none: give every"):
        (jax.jit(use) if compiled else use)(NONE)


def test_it_goes_wherever_a_batch_goes():
    assert jax.tree.leaves(NONE) == []
    for same in (copy.deepcopy(NONE), pickle.loads(pickle.dumps(NONE)), jax.jit(lambda x: x)(NONE)):
        assert same == NONE
    assert Absent("reference_logps", "another reason") == NONE != Absent("margin", NONE.why)
    compiled = jax.jit(lambda x, batch: x + 1)
    compiled(1, NONE)
    compiled(1, Absent("reference_logps", "another reason"))
    assert compiled._cache_size() == 1


LOSSES = {
    "reference_logps": lambda b, x: generation.dpo(*b.pairs(x), *b.pairs(b.reference_logps), 0.1),
    "margin": lambda b, x: preference.bradley_terry(*b.pairs(x), b.margin),
    "response_score": lambda b, x: jnp.square(x - b.response_score),
    "magnitude": lambda b, x: preference.scaled(*b.pairs(x), b.column("magnitude")),
    "states": lambda b, x: jnp.square(x[..., None] - b.column("states")),
    "attributes": lambda b, x: attributes.regression(
        jnp.stack([x, x], -1), b.attributes, b.attributes_mask
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_on_what_no_comparison_or_not_every_one_has_fails_when_it_is_traced(name):
    """And where all have it, it does not."""
    columns = {
        "response_score": (1.0, 0.0),
        "reference_logps": (-3.0, -4.0),
        "margin": 0.5,
        "magnitude": 2.0,
        "states": ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
    }
    known = {"columns": columns, "attributes": ((1.0, 2.0), (3.0, 4.0))}
    whole, bare = tree(2, 1, 1, ranks=(0, 1), **known), tree(2, 1, 1, ranks=(0, 1))

    def lowered(*trees):
        batch = packing.pack(trees, [[0]], planning.fit_shape(trees, rows=1, length=8))
        return jax.jit(LOSSES[name]).lower(batch, jnp.zeros(batch.response_mask.shape))

    lowered(whole, whole)
    with pytest.raises(DataError, match=f"this batch has no {name}: no"):
        lowered(bare, bare)
    if name in columns:
        with pytest.raises(DataError, match=f"comparison 1, counting from 0, has no {name}"):
            lowered(whole, bare)


COLUMNS = (Column("shade"), Column("states", width=3), Column("magnitude", "pair"), REFERENCE)
NUMBERS = st.floats(-1e6, 1e6)


@st.composite
def comparisons(draw):
    """Comparisons of up to five responses, or of pairs, with every kind of column, their values
    as arrays."""
    made, most = [], draw(st.sampled_from([2, 5]))
    for i in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, most))
        columns = {}
        for column in COLUMNS:
            shape = column.shape(count)
            flat = draw(st.lists(NUMBERS, min_size=math.prod(shape), max_size=math.prod(shape)))
            columns[column.name] = np.array(flat).reshape(shape)
        responses = tuple(f"r{i}{'x' * k}" for k in range(count))
        known = {name: frozen(values.tolist()) for name, values in columns.items()}
        known = Comparison(f"p{i}", responses, ranks=tuple(range(count)), columns=known)
        made.append((known, columns))
    return made


def frozen(value):
    return tuple(map(frozen, value)) if isinstance(value, list) else value


@settings(max_examples=15, deadline=None)
@given(comparisons(), st.sampled_from([1, 4]))
def test_columns_go_from_comparisons_to_batches_as_they_are(made, devices):
    tokenizer = load_tokenizer(FOLDER)
    trees = TreeStore.write(chat.tokenize([known for known, _ in made], tokenizer))
    shape = planning.fit_shape(trees, rows=4, length=128)
    ranking = any(len(known.responses) > 2 for known, _ in made)
    assert {c for c in COLUMNS if c.per == "response" or not ranking} == set(shape.columns)
    mesh = parallel.make_mesh(devices=jax.devices()[:devices])
    loader = Loader(trees, shape, mesh=mesh, seed=0)
    window = jax.device_get(next(loader.batches(0)))
    batch = jax.tree.map(lambda leaf: leaf[0], window)
    where = batch.response_mask
    order = np.argsort(batch.response_index[where])
    for column in shape.columns:
        values = batch.column(column.name)
        assert values.dtype == np.float32
        if column.per == "response":
            expected = np.concatenate([columns[column.name] for _, columns in made])
            np.testing.assert_array_equal(values[where][order], np.float32(expected))
            assert not values[~where].any()
        else:
            owner = np.repeat(np.arange(len(made)), [len(known.responses) for known, _ in made])
            chosen, _ = batch.pairs(batch.response_index)
            pairs = owner[np.asarray(chosen)[batch.pair_mask]]
            expected = np.float32([made[i][1][column.name] for i in pairs])
            np.testing.assert_array_equal(values[batch.pair_mask], expected)
            assert not values[~batch.pair_mask].any()


@pytest.mark.parametrize("column", COLUMNS)
def test_what_one_comparison_lacks_no_batch_has(column):
    """By its name, and the comparison's, also where a loss asks for it when it is traced."""
    known = {c.name: np.ones(c.shape(2)) for c in COLUMNS}
    bare = {name: values for name, values in known.items() if name != column.name}
    trees = [tree(2, 1, 1, ranks=(0, 1), columns=each) for each in (known, known, bare)]
    shape = planning.fit_shape(trees, rows=1, length=16)
    batch = packing.pack(trees, [[0]], shape)
    carried = ", ".join(sorted(bare))
    problem = f"no {column.name}: comparison 2, .* has no {column.name}: it has {carried}"
    with pytest.raises(DataError, match=problem):
        jax.jit(lambda batch: batch.column(column.name).sum())(batch)
    with pytest.raises(DataError, match=f"needs {column.name} of every comparison: comparison 2"):
        shape.require(column.name, "it")


def test_what_no_comparison_has_is_named_with_what_there_is():
    bare = tree(2, 1, 1, ranks=(0, 1))
    batch = packing.pack([bare], [[0]], planning.fit_shape([bare], rows=1, length=16))
    with pytest.raises(DataError, match="no shade: no comparison has it: it has no columns"):
        batch.column("shade")
    with pytest.raises(DataError, match="no margin: no comparison has margin"):
        batch.column("margin")


def test_a_pair_has_one_number():
    with pytest.raises(ValueError, match="width 2 per pair"):
        Column("x", "pair", 2)
