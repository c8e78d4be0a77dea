"""Packing: trees are written into rows as the layout says."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrm.data import packing, planning
from jaxrm.data.carried import MARGIN, REFERENCE, SCORE, Column
from jaxrm.data.packing import Branch, PackShape, TokenTree
from jaxrm.errors import DataError


def tree(prompt, *branches, targets=None, columns=None, **known):
    """A tree of consecutive ids; `targets` counts the leading branch tokens that are targets."""
    columns = {name: np.array(values, float) for name, values in (columns or {}).items()}
    start = 10 + prompt
    made = []
    for length in branches:
        wanted = np.arange(length) < (length if targets is None else targets)
        made.append(Branch(np.arange(start, start + length, dtype=np.int32), wanted))
        start += length
    ids = np.arange(10, 10 + prompt, dtype=np.int32)
    return TokenTree(ids, tuple(made), columns=columns, **known)


def test_a_pair_is_written_as_the_layout_says():
    columns = {"response_score": (0.5, 2.0), "margin": 1.5, "wide": ((1, 2, 3), (4, 5, 6))}
    pair = tree(3, 2, 4, targets=2, ranks=(1, 0), columns=columns)
    columns = {"response_score": (3.0, -1.0), "margin": 0.0, "wide": ((7, 8, 9), (0, 1, 2))}
    other = tree(2, 1, 1, ranks=(0, 1), columns=columns)
    shape = planning.fit_shape([pair, other], rows=1, length=16, ask="all")
    batch = packing.pack([other, pair], [[1, 0]], dataclasses.replace(shape, length=16))

    ids = [10, 11, 12, 13, 14, 15, 16, 17, 18]
    np.testing.assert_array_equal(batch.tokens[0], [*ids, 10, 11, 12, 13, 0, 0, 0])
    np.testing.assert_array_equal(batch.comparison[0], [0] * 9 + [1] * 4 + [-1] * 3)
    np.testing.assert_array_equal(
        batch.branch[0], [0, 0, 0, 1, 1, 2, 2, 2, 2, 0, 0, 1, 2, -1, -1, -1]
    )
    np.testing.assert_array_equal(
        batch.positions[0], [0, 1, 2, 3, 4, 3, 4, 5, 6, 0, 1, 2, 2, 0, 0, 0]
    )
    np.testing.assert_array_equal(batch.response_end[0], [4, 8, 11, 12])
    np.testing.assert_array_equal(batch.prompt_end[0], [2, 2, 10, 10])
    np.testing.assert_array_equal(batch.response_length[0], [2, 2, 1, 1])
    np.testing.assert_array_equal(batch.response_rank[0], [1, 0, 0, 1])
    np.testing.assert_array_equal(batch.response_index[0], [2, 3, 0, 1])
    np.testing.assert_array_equal(batch.response_comparison[0], [0, 0, 1, 1])
    np.testing.assert_array_equal(batch.response_score[0], [0.5, 2.0, 3.0, -1.0])
    np.testing.assert_array_equal(batch.chosen_slot[0], [1, 2])
    np.testing.assert_array_equal(batch.rejected_slot[0], [0, 3])
    np.testing.assert_array_equal(batch.margin[0], [1.5, 0.0])
    assert batch.column("margin") is batch.margin
    wide = batch.column("wide")
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide[0], [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 1, 2]])
    chosen, rejected = batch.pairs(wide)
    np.testing.assert_array_equal(chosen[0], [[4, 5, 6], [7, 8, 9]])
    np.testing.assert_array_equal(rejected[0], [[1, 2, 3], [0, 1, 2]])
    np.testing.assert_array_equal(batch.group_slots[0], [[1, 0], [2, 3]])
    # The prompt's last position (2) predicts the first token of both branches; the fourth and fifth
    # tokens of the longer branch are no targets.
    np.testing.assert_array_equal(batch.predictor[0], [2, 3, 2, 5, 10, 10])
    np.testing.assert_array_equal(batch.target[0], [13, 14, 15, 16, 12, 13])
    np.testing.assert_array_equal(batch.target_slot[0], [0, 0, 1, 1, 2, 3])
    assert batch.target_mask.all()
    assert batch.logp_mask.all()


def test_only_the_best_response_is_asked_for_and_only_once():
    tied = tree(3, 2, 2, 2, ranks=(1, 0, 0))
    shape = planning.fit_shape([tied], rows=1, length=16, ask="best")
    batch = packing.pack([tied], [[0]], shape)
    np.testing.assert_array_equal(batch.logp_mask[0], [False, True, False])
    np.testing.assert_array_equal(batch.target_slot[0], [1, 1])
    np.testing.assert_array_equal(batch.best(np.array([[5.0, 6.0, 7.0]])), [[6.0]])
    np.testing.assert_array_equal(batch.best_mask, [[True]])


def test_pairs_of_a_ranking_weigh_one_comparison_in_total():
    ranked = tree(3, 1, 1, 1, 1, ranks=(2, 0, 3, 1))
    shape = planning.fit_shape([ranked], rows=1, length=16)
    batch = packing.pack([ranked], [[0]], shape)
    assert batch.pair_mask.sum() == 6
    np.testing.assert_allclose(batch.pair_weight.sum(), 1.0)
    chosen, rejected = batch.pairs(np.array([[1.0, 3.0, 0.0, 2.0]]))
    assert (np.asarray(chosen) > np.asarray(rejected)).all()
    np.testing.assert_array_equal(batch.group_slots[0, 0], [1, 3, 0, 2])


def test_ties_make_no_pair_and_unranked_trees_make_none():
    tied, unranked = tree(2, 1, 1, 1, ranks=(0, 0, 1)), tree(2, 1, 1)
    shape = planning.fit_shape([tied, unranked], rows=1, length=16)
    batch = packing.pack([tied, unranked], [[0, 1]], shape)
    np.testing.assert_array_equal(batch.chosen_slot[0][batch.pair_mask[0]], [0, 1])
    np.testing.assert_array_equal(batch.rejected_slot[0][batch.pair_mask[0]], [2, 2])


def test_scoring_makes_no_preferences():
    big = tree(3, *[1] * 405)
    batch = packing.pack([big], [[0]], PackShape(1, 512, slots=405))
    assert batch.chosen_slot.shape == (1, 0)
    assert batch.group_slots.shape == (1, 0, 0)
    assert batch.response_mask.sum() == 405


def test_nothing_predicts_the_first_token_where_there_is_no_prompt():
    bare = tree(0, 3, 2, ranks=(0, 1))
    shape = planning.fit_shape([bare], rows=1, length=8, ask="all")
    batch = packing.pack([bare], [[0]], shape)
    np.testing.assert_array_equal(batch.predictor[0], [0, 1, 3])
    np.testing.assert_array_equal(batch.target[0], [11, 12, 14])
    np.testing.assert_array_equal(batch.prompt_end[0], [0, 3])


def test_unlabelled_attributes_are_masked_zeros():
    rated = tree(2, 1, 1, attributes=((1.0, float("nan")), (float("nan"), 3.0)))
    plain = tree(2, 1, 1)
    shape = planning.fit_shape([rated, plain], rows=1, length=8)
    batch = packing.pack([rated, plain], [[0, 1]], shape)
    np.testing.assert_array_equal(batch.attributes[0], [[1, 0], [0, 3], [0, 0], [0, 0]])
    np.testing.assert_array_equal(batch.attributes_mask[0, :2], [[True, False], [False, True]])
    assert not batch.attributes_mask[0, 2:].any()


NARROW = tree(2, 1, 1, attributes=((1.0,), (2.0,)))
KNOWN = {
    "response_score": (1.0, 0.0),
    "reference_logps": (-3.0, -4.0),
    "margin": 0.5,
    "wide": ((1.0, 2.0), (3.0, 4.0)),
}
WIDE = Column("wide", width=2)


@pytest.mark.parametrize(
    ("made", "carried", "problem"),
    [
        (NARROW, {"attributes": 2}, "batches carry 2 attributes, but comparison 1, .* has 1"),
        (tree(2, 1, 1, 1), {}, "comparison 1, .* has 3 responses, but a group .* holds 2"),
        (
            tree(2, 1, 1),
            {"columns": (REFERENCE,)},
            "carry reference_logps, but comp",
        ),
        (tree(2, 1, 1), {"columns": (SCORE,)}, "comparison 1, .* has no response_score"),
        (tree(2, 1, 1), {"columns": (MARGIN,)}, "comparison 1, .* has no margin"),
        (tree(2, 1, 1), {"columns": (WIDE,)}, "comparison 1, .* has no wide"),
        (
            tree(2, 1, 1, columns={"wide": (1, 2)}),
            {"columns": (WIDE,)},
            r"comparison 1, .* has wide of shape \[2\] and not \[2, 2\]",
        ),
    ],
)
def test_a_tree_that_lacks_what_its_batch_carries_is_named(made, carried, problem):
    grades = ((1.0, 2.0), (3.0, 4.0))
    whole = tree(2, 1, 1, ranks=(0, 1), attributes=grades if "attributes" in carried else None)
    columns = {name: np.array(values) for name, values in KNOWN.items()}
    trees = [dataclasses.replace(whole, columns=columns), made]
    shape = PackShape(1, 20, slots=6, pairs=6, groups=2, group_size=2, **carried)
    packing.pack(trees, [[0]], shape)
    with pytest.raises(DataError, match=problem):
        packing.pack(trees, [[1]], shape)
    assert list(packing.checked(trees[:1], shape)) == trees[:1]
    with pytest.raises(DataError, match=problem):
        list(packing.checked(trees, shape))


def test_attributes_that_no_tree_has_are_not_carried():
    trees = [tree(2, 1, 1, ranks=(0, 1))] * 3
    with pytest.raises(DataError, match="carry attributes, but no comparison has any"):
        list(packing.checked(trees, PackShape(1, 20, slots=6, attributes=2)))


def test_a_shape_says_what_it_cannot_give_before_anything_is_computed():
    scored = {"response_score": (1.0, 2.0)}
    trees = [tree(2, 1, 1, ranks=(0, 1), columns=each) for each in (KNOWN, scored)]
    shape = planning.fit_shape(trees, rows=1, length=8)
    shape.require("response_score", "a regression")
    with pytest.raises(DataError, match="DPO needs reference_logps of every comparison: comparis"):
        shape.require("reference_logps", "DPO")
    with pytest.raises(DataError, match="needs margin of every comparison: the shape of its"):
        PackShape(1, 8, slots=2).require("margin", "it")


def with_steps(made, *steps):
    """The tree with (last tokens, labels) of each branch's steps."""
    branches = tuple(
        dataclasses.replace(
            branch, step_ends=np.array(ends, np.int32), step_labels=np.array(labels)
        )
        for branch, (ends, labels) in zip(made.branches, steps, strict=True)
    )
    return dataclasses.replace(made, branches=branches)


def stepped():
    """A tree of two branches in three steps, one of them without a label."""
    nan = float("nan")
    return with_steps(tree(3, 4, 2), ([0, 3], [1.0, 0.25]), ([1], [nan]))


def test_steps_are_written_as_the_layout_says():
    plain = tree(2, 1)
    assert planning.fit_shape([plain, stepped()], rows=2, length=16).steps == 3
    shape = PackShape(2, 16, slots=3, steps=4)
    batch = packing.pack([plain, stepped()], [[0, 1]], shape)
    np.testing.assert_array_equal(batch.step_end[0], [6, 9, 11, 0])
    np.testing.assert_array_equal(batch.response_end[0], [2, 9, 11])
    np.testing.assert_array_equal(batch.step_slot[0], [1, 1, 2, 0])
    np.testing.assert_array_equal(batch.step_label[0], np.float32([1, 0.25, 0, 0]))
    np.testing.assert_array_equal(batch.step_present[0], [True, True, True, False])
    np.testing.assert_array_equal(batch.step_mask[0], [True, True, False, False])
    assert not batch.step_present[1].any()
    np.testing.assert_array_equal(
        batch.by_response(np.array([[5.0, 6.0, 7.0, 8.0], [9.0] * 4])),
        [[[0, 0, 0, 0], [5, 6, 0, 0], [7, 0, 0, 0]], np.zeros((3, 4))],
    )
    found = batch.by_response(batch.step_mask)
    assert found.dtype == bool
    np.testing.assert_array_equal(found[0, 1:], [[True, True, False, False], [False] * 4])


def test_a_shape_without_steps_leaves_them_out():
    shape = PackShape(1, 16, slots=2)
    batch = packing.pack([stepped()], [[0]], shape)
    assert batch.step_end is batch.step_mask is None
    with pytest.raises(ValueError, match="row 0 needs"):
        packing.pack([stepped()], [[0]], dataclasses.replace(shape, steps=2))


def test_steps_close_a_row():
    trees = [stepped()] * 4
    sizes = packing.measure(trees, ask="none", preferences=False)
    capacity = PackShape(1, 100, slots=9, steps=7).capacity
    plan = planning.plan_rows(sizes, capacity, np.arange(4))
    assert plan == [[0, 1], [2, 3]]


def test_splitting_takes_along_what_belongs_to_a_branch():
    columns = {"reference_logps": np.array([-1.0, -2.0]), "margin": np.array(1.0)}
    whole = dataclasses.replace(stepped(), ranks=(0, 1), columns=columns)
    parts = packing.split(whole, 7)
    assert [part.branches[0].step_ends.tolist() for part in parts] == [[0, 3], [1]]
    assert [part.columns for part in parts] == [
        {"reference_logps": -1.0},
        {"reference_logps": -2.0},
    ]
    assert [part.ranks for part in parts] == [None, None]


def test_missing_rows_are_empty_and_nothing_is_nan():
    nan = float("nan")
    trees = [with_steps(tree(2, 1, 1, ranks=(0, 1)), ([0], [nan]), ([0], [nan]))]
    shape = planning.fit_shape(trees, rows=3, length=8, ask="all")
    batch = packing.pack(trees, [[0]], shape)
    assert (batch.comparison[1:] == -1).all()
    for name in ("response_mask", "pair_mask", "group_mask", "target_mask"):
        assert not getattr(batch, name)[1:].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(batch))


def test_splitting_repeats_the_prompt_and_keeps_the_order():
    big = tree(5, 3, 4, 9, 2, 2)
    parts = packing.split(big, 12)
    assert [len(part.branches) for part in parts] == [2, 1, 2]
    assert all(len(part.prompt) == 5 for part in parts)
    restored = np.concatenate([b.tokens for part in parts for b in part.branches])
    np.testing.assert_array_equal(restored, np.concatenate([b.tokens for b in big.branches]))
    assert packing.split(big, 100) == [big]


def test_splitting_keeps_to_every_capacity_of_a_row():
    assert [len(part.branches) for part in packing.split(tree(1, *[1] * 5), 9, slots=2)] == [
        2,
        2,
        1,
    ]
    assert len(packing.split(stepped(), 100, steps=3)) == 1
    assert len(packing.split(stepped(), 100, steps=2)) == 2


def test_a_row_that_overflows_is_refused():
    trees = [tree(30, 3, 3, ranks=(0, 1))]
    shape = PackShape(rows=1, length=20, slots=2, pairs=1, groups=1, group_size=2)
    with pytest.raises(ValueError, match="row 0 needs"):
        packing.pack(trees, [[0]], shape)
