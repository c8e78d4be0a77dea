"""Plans: every tree as often as it should come, within capacity, and prompts kept together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrm.data import packing, planning
from jaxrm.data.carried import MARGIN, REFERENCE, Column
from jaxrm.data.packing import PackShape
from jaxrm.errors import DataError
from tests.data.test_packing import tree


@st.composite
def forests(draw):
    count = draw(st.integers(1, 40))
    trees = []
    for _ in range(count):
        branches = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
        ranks = draw(st.lists(st.integers(0, 3), min_size=len(branches), max_size=len(branches)))
        trees.append(tree(draw(st.integers(0, 15)), *branches, ranks=tuple(ranks)))
    return trees


def measured(lengths, rows, length):
    """Sizes of pairs that take `lengths` tokens, and a shape that only their tokens can fill."""
    sizes = np.ones((len(lengths), len(packing.MEASURES)), np.int64)
    sizes[:, 0] = lengths
    many = len(lengths) * 10
    shape = PackShape(
        rows=rows, length=length, slots=many, pairs=many, groups=many, group_size=2, targets=many
    )
    return sizes, shape


def times(plan, trees):
    return np.bincount(list(itertools.chain(*plan)), minlength=trees)


@given(forests(), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=50)
def test_an_epoch_plans_every_tree_once_and_within_capacity(trees, seed, epoch):
    shape = planning.fit_shape(trees, rows=2, length=70, ask="all")
    sizes = packing.measure(trees, ask="all", preferences=True)
    plan = planning.plan_epoch(sizes, shape, seed, epoch)
    assert sorted(i for row in plan for i in row) == list(range(len(trees)))
    for row in plan:
        assert (sizes[row].sum(0) <= shape.capacity).all()
    assert plan == planning.plan_epoch(sizes, shape, seed, epoch)


def test_a_shape_holds_the_widest_tree():
    trees = [tree(3, 1, 1, ranks=(0, 1)) for _ in range(3000)]
    wide = tree(3, *[1] * 7, ranks=tuple(range(7)), attributes=((1.0, 2.0),) * 7)
    shape = planning.fit_shape([*trees, wide], rows=2, length=20, ask="best")
    assert (shape.rows, shape.length, shape.group_size, shape.attributes) == (2, 20, 7, 2)
    assert (shape.pairs, shape.slots) == (21, 8)
    mixed = [wide, tree(3, 1, attributes=((1.0,),))]
    with pytest.raises(DataError, match=r"different numbers of attributes: \[1, 2\]"):
        planning.fit_shape(mixed, rows=2, length=20)


@pytest.mark.parametrize("ask", ["none", "best", "all"])
def test_a_row_is_full_of_tokens_first_however_long_the_best_response_is(ask):
    sizes = packing.measure([tree(2, 155, 2, ranks=(0, 1))], ask=ask, preferences=True)
    assert (sizes <= planning.pair_shape(8, 160, ask).capacity).all()


def test_shapes_of_a_row_s_length_by_hand():
    shape = planning.pair_shape(8, 160, "best")
    assert (shape.slots, shape.pairs, shape.groups, shape.group_size) == (20, 10, 10, 2)
    assert planning.pair_shape(8, 160, "best", responses=4).pairs == 30
    targets = {ask: planning.pair_shape(8, 160, ask).targets for ask in ("none", "best", "all")}
    assert targets == {"none": 0, "best": 160, "all": 160}
    alone = planning.reading_shape(8, 160, "best")
    assert (alone.slots, alone.pairs, alone.groups, alone.group_size) == (20, 0, 0, 0)
    assert planning.reading_shape(8, 5, "none").slots == 1


def test_no_trees_have_no_shape():
    with pytest.raises(DataError, match="no comparisons to make batches of"):
        planning.fit_shape([], rows=2, length=20)


def test_a_shape_carries_what_all_trees_have():
    columns = {"margin": 1.0, "reference_logps": (-1, -2), "states": ((1, 2, 3), (4, 5, 6))}
    pair = tree(3, 1, 1, ranks=(0, 1), columns=columns)
    bare = tree(3, 1, 1, ranks=(0, 1))
    wide = tree(3, 1, 1, 1, ranks=(0, 1, 2), columns={"margin": 1.0})
    other = tree(3, 1, 1, ranks=(0, 1), columns={"states": (1, 2)})

    def shape(*trees):
        return planning.fit_shape(trees, rows=2, length=20)

    states = Column("states", width=3)
    assert shape(pair, pair).columns == (MARGIN, REFERENCE, states)
    assert shape(pair, bare).columns == shape(bare, pair).columns == shape(bare).columns == ()
    assert shape(wide).columns == shape(pair, other).columns == ()
    why = dict(shape(pair, wide).absent)
    assert why["reference_logps"] == "comparison 1, counting from 0, has no reference_logps"
    assert why["margin"].endswith(" 1, counting from 0, has 3 responses, and margin is of a pair")
    assert (
        dict(shape(bare, pair).absent)["states"] == "comparison 0, counting from 0, has no states"
    )
    assert dict(shape(pair, other).absent)["states"].endswith("states of shape [2] and not [2, 3]")
    why = dict(shape(bare).absent)
    assert why["margin"] == "no comparison has margin"
    assert why["attributes"] == "no comparison has any"


def test_seed_and_epoch_change_the_order():
    trees = [tree(n % 7, 3, 4, ranks=(0, 1)) for n in range(60)]
    shape = planning.fit_shape(trees, rows=2, length=40)
    sizes = packing.measure(trees, ask="none", preferences=True)
    for known in ({}, {"weights": np.full(60, 1.5)}, {"prompts": np.arange(60) // 2}):
        plans = [planning.plan_epoch(sizes, shape, *at, **known) for at in [(0, 0), (0, 1), (1, 0)]]
        assert plans[0] != plans[1]
        assert plans[0] != plans[2]


def test_rows_are_full_of_tokens_not_of_padding():
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(3.5, 0.7, (2000, 3))), 1, 200).astype(int)
    trees = [tree(*row, ranks=(0, 1)) for row in lengths]
    shape = planning.fit_shape(trees, rows=1, length=1024, ask="all")
    sizes = packing.measure(trees, ask="all", preferences=True)
    plan = planning.plan_epoch(sizes, shape, 0, 0)
    assert sizes[:, 0].sum() / (1024 * len(plan)) > 0.95


def test_a_tree_larger_than_a_row_is_refused():
    sizes, shape = measured([30], rows=1, length=20)
    with pytest.raises(ValueError, match="tree 0 needs"):
        planning.plan_rows(sizes, shape.capacity, np.arange(1))
    with pytest.raises(ValueError, match="tree 0 needs"):
        planning.plan_epoch(sizes, shape, 0, 0, prompts=np.zeros(1, np.int64))


def test_the_order_of_recorded_runs_has_not_changed():
    sizes, shape = measured(np.random.default_rng(5).integers(1, 90, 3000), rows=4, length=100)
    rng = np.random.default_rng([7, 2])
    rows = planning.plan_rows(sizes, shape.capacity, rng.permutation(3000))
    recorded = [rows[i] for i in rng.permutation(len(rows))]
    assert planning.plan_epoch(sizes, shape, 7, 2) == recorded
    assert planning.plan_epoch(sizes, shape, 7, 2, weights=np.ones(3000)) == recorded


WEIGHTS = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0]), st.floats(0, 4))


@given(st.lists(st.tuples(WEIGHTS, st.integers(1, 30)), max_size=8), st.integers(0, 99), st.data())
def test_trees_of_one_weight_come_as_often_as_they_weigh(parts, seed, data):
    weights = np.array([w for w, count in parts for _ in range(count)])
    weights = weights[data.draw(st.permutations(range(len(weights))))] if parts else weights
    sizes, shape = measured(np.full(len(weights), 3), rows=2, length=10)
    seen = times(planning.plan_epoch(sizes, shape, seed, 0, weights=weights), len(weights))
    assert (np.floor(weights) <= seen).all()
    assert (seen <= np.ceil(weights)).all()
    for weight in set(weights):
        alike = weights == weight
        assert abs(seen[alike].sum() - weights[alike].sum()) < 1 + 1e-6
    assert abs(seen.sum() - weights.sum()) < 1 + 1e-6


def test_every_tree_comes_as_often_as_it_weighs_on_average():
    weights = np.repeat([0.3, 1.0, 2.75], 20)
    sizes, shape = measured(np.full(60, 3), rows=2, length=10)
    epochs = [planning.plan_epoch(sizes, shape, 0, epoch, weights=weights) for epoch in range(400)]
    average = np.mean([times(plan, 60) for plan in epochs], axis=0)
    # Five standard errors of a coin of probability 0.3 thrown 400 times.
    np.testing.assert_allclose(average, weights, atol=0.115)
    np.testing.assert_array_equal(average[20:40], 1.0)


def test_every_tree_needs_a_weight_and_a_prompt():
    sizes, shape = measured([3, 3], rows=1, length=10)
    with pytest.raises(ValueError, match="3 weights for 2 trees"):
        planning.plan_epoch(sizes, shape, 0, 0, weights=np.ones(3))
    with pytest.raises(ValueError, match="1 prompts for 2 trees"):
        planning.plan_epoch(sizes, shape, 0, 0, prompts=np.zeros(1, np.int64))


@pytest.mark.parametrize("weight", [np.nan, np.inf, -0.5])
def test_a_weight_that_is_none_is_refused(weight):
    sizes, shape = measured([3, 3], rows=1, length=10)
    with pytest.raises(ValueError, match=f"the weight of tree 1 is {weight}: it must be finite"):
        planning.plan_epoch(sizes, shape, 0, 0, weights=np.array([1.0, weight]))


@given(st.data(), st.integers(0, 99), st.sampled_from([None, 1.0, 0.6, 2.0]))
def test_a_prompt_stays_in_one_batch_whatever_is_drawn_of_it(data, seed, weight):
    lengths = data.draw(st.lists(st.integers(1, 10), min_size=1, max_size=60))
    count = len(lengths)
    # At most five trees share a prompt, and twice five trees of length 10 fit five rows of 20.
    prompts = np.array(data.draw(st.permutations([7 * (i // 5) for i in range(count)])))
    weights = None if weight is None else np.full(count, weight)
    sizes, shape = measured(lengths, rows=2, length=20)
    options = {"weights": weights, "prompts": prompts, "rows_per_batch": 5}
    plan = planning.plan_epoch(sizes, shape, seed, 0, **options)
    assert len(plan) % 5 == 0
    assert all(sizes[row, 0].sum() <= 20 for row in plan)
    batches = [plan[i : i + 5] for i in range(0, len(plan), 5)]
    assert all(any(batch) for batch in batches)
    met = [{int(prompts[i]) for row in batch for i in row} for batch in batches]
    assert sum(map(len, met)) == len(set().union(*met))
    drawn = times(plan, count)
    if weight == 0.6:
        assert abs(drawn.sum() - 0.6 * count) < 1
    else:
        assert (drawn == (weight or 1)).all()
    assert plan == planning.plan_epoch(sizes, shape, seed, 0, **options)


@pytest.mark.parametrize("rows", [2, 8])
def test_keeping_prompts_together_wastes_little(rows):
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(4.5, 0.7, 3000)), 1, 600).astype(int)
    sizes, shape = measured(lengths, rows=rows, length=1024)
    prompts = np.repeat(np.arange(3000), rng.integers(1, 4, 3000))[:3000]
    plan = planning.plan_epoch(sizes, shape, 0, 0, prompts=prompts)
    assert len(plan) % rows == 0
    assert lengths.sum() / (1024 * len(plan)) > 0.93


def test_a_prompt_larger_than_a_batch_is_refused_with_what_it_needs():
    sizes, shape = measured([6, 6, 6, 6, 6, 2], rows=2, length=10)
    prompts = np.array([4, 4, 4, 4, 4, 1])
    with pytest.raises(DataError, match=r"the 5 comparisons .* need 5 rows, .* step has 2: raise"):
        planning.plan_epoch(sizes, shape, 0, 0, prompts=prompts)
    plan = planning.plan_epoch(sizes, shape, 0, 0, prompts=prompts, rows_per_batch=5)
    assert len(plan) == 5
