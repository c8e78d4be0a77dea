"""What a batch does not carry is refused by whatever would compute with it."""

from __future__ import annotations

import copy
import operator
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data import packing, planning
from jaxrm.data.carried import Absent
from jaxrm.errors import DataError
from jaxrm.losses import attributes, generation, preference
from tests.data.test_packing import tree

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
