"""Trees come back from disk as they went in, without a name there and without filling memory."""

from __future__ import annotations

import dataclasses
import gc
import os
import tempfile
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data import packing, planning
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.data.store import TreeStore, with_columns
from jaxrm.errors import DataError
from tests.data.test_packing import tree

IDS = st.integers(0, 2**31 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def any_tree(draw):
    branches = []
    for ids in draw(st.lists(st.lists(IDS, min_size=1, max_size=6), min_size=1, max_size=4)):
        targets = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        branch = Branch(np.array(ids, np.int32), np.array(targets))
        if draw(st.booleans()):
            ends = np.array(sorted(draw(st.sets(st.integers(0, len(ids) - 1)))), np.int32)
            labels = draw(st.lists(st.floats(), min_size=len(ends), max_size=len(ends)))
            branch = dataclasses.replace(
                branch, step_ends=ends, step_labels=np.array(labels, float)
            )
        branches.append(branch)

    def per_branch(values):
        entries = st.lists(values, min_size=len(branches), max_size=len(branches))
        return draw(st.none() | entries.map(tuple))

    def row(values):
        width = draw(st.integers(1, 3))
        return st.lists(values, min_size=width, max_size=width).map(tuple)

    columns = {
        "margin": draw(st.none() | NUMBERS),
        "reference_logps": per_branch(NUMBERS),
        draw(st.sampled_from("ab")): per_branch(NUMBERS),
        draw(st.sampled_from("bc")): per_branch(row(NUMBERS)),
    }
    return TokenTree(
        np.array(draw(st.lists(IDS, max_size=6)), np.int32),
        tuple(branches),
        ranks=per_branch(st.integers(0, 2**31 - 1)),
        attributes=per_branch(row(NUMBERS | st.just(float("nan")))),
        columns={name: np.array(v) for name, v in columns.items() if v is not None},
    )


def contents(tree):
    """All of a tree in plain values that compare equal when they are, NaN included."""
    arrays = [tree.prompt]
    for b in tree.branches:
        arrays += [b.tokens, b.targets, b.step_ends, b.step_labels]
    columns = {name: tree.columns[name].tolist() for name in sorted(tree.columns)}
    labels = (tree.ranks, tree.attributes, columns)
    return [(array.dtype.name, repr(array.tolist())) for array in arrays], repr(labels)


def small(count):
    known = [{"ranks": (0, 1), "columns": {"margin": i}} for i in range(count)]
    return [tree(1 + i % 5, 2, 1 + i % 3, **each) for i, each in enumerate(known)]


def margins(trees):
    return [float(tree.columns["margin"]) for tree in trees]


@given(st.lists(any_tree(), max_size=5))
def test_trees_come_back_as_they_went_in(trees):
    stored = TreeStore.write(iter(trees))
    assert len(stored) == len(trees)
    assert [contents(tree) for tree in stored] == [contents(tree) for tree in trees]


def test_stores_of_trees_without_steps_keep_their_key():
    recorded = "8d8d7048f5823480959f6a34ae00020b2ae42c67e078eef2034836f9361840ac"
    assert TreeStore.write(small(7)).key() == recorded
    (first, *others) = small(7)
    branch = dataclasses.replace(
        first.branches[0], step_ends=np.array([1], np.int32), step_labels=np.array([1.0])
    )
    labelled = dataclasses.replace(first, branches=(branch, *first.branches[1:]))
    assert TreeStore.write([labelled, *others]).key() != recorded


def test_a_store_is_read_like_a_list():
    trees = small(7)
    stored = TreeStore.write(trees)
    assert margins([stored[6], stored[-1], stored[np.int64(2)]]) == [6.0, 6.0, 2.0]
    for part in (slice(2, 5), slice(None, None, -2), slice(5, 99), slice(3, 3)):
        assert margins(stored[part]) == margins(trees[part])
    for outside in (7, -8):
        with pytest.raises(IndexError):
            stored[outside]


BESIDE = {
    "reference_logps": [np.array([-i, -i - 0.5], np.float32) for i in range(3)],
    "states": [np.full((2, 3), i) for i in range(3)],
    "magnitude": [0.5, 1.5, 2.5],
}


@pytest.mark.parametrize("kind", [list, TreeStore.write])
def test_columns_are_attached_to_their_trees(kind):
    whole = with_columns(kind(small(3)), BESIDE)
    for i, each in enumerate(whole):
        assert set(each.columns) == {"margin", *BESIDE}
        for name, values in BESIDE.items():
            np.testing.assert_array_equal(each.columns[name], values[i])
            assert each.columns[name].shape == np.shape(values[i])
    np.testing.assert_array_equal(whole[1:][0].columns["reference_logps"], [-1.0, -1.5])
    np.testing.assert_array_equal(whole[-2].columns["states"], np.ones((2, 3)))
    np.testing.assert_array_equal(whole[1:][-1].columns["magnitude"], 2.5)
    assert margins(whole) == [0.0, 1.0, 2.0]
    replaced = with_columns(whole, {"reference_logps": np.zeros((3, 2)), "margin": [7.0] * 3})
    np.testing.assert_array_equal(replaced[2].columns["reference_logps"], np.zeros(2))
    assert margins(replaced[1:]) == [7.0, 7.0]


def test_columns_beside_a_store_are_over_the_same_file():
    stored = TreeStore.write(small(3))
    whole = with_columns(stored, BESIDE)
    assert whole.words is stored.words
    assert set(stored[0].columns) == {"margin"}


@pytest.mark.parametrize("kind", [list, TreeStore.write])
@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([np.zeros(2)] * 2, "x of 2 trees for 3 trees"),
        ([np.zeros(2), np.zeros(1), np.zeros(2)], r"x of shape \[1\] for 2 responses"),
        ([np.zeros((2, 0))] * 3, r"x of shape \[2, 0\] for 2 responses"),
        ([np.zeros(2), 1.0, np.zeros(2)], "x is more than one column"),
    ],
)
def test_columns_must_fit_the_trees(kind, values, problem):
    with pytest.raises(ValueError, match=problem):
        with_columns(kind(small(3)), {"x": values})


def test_sizes_and_shapes_are_those_of_the_list():
    trees = small(40)
    stored = TreeStore.write(trees)
    measured = [packing.measure(t, ask="best", preferences=True) for t in (trees, stored)]
    np.testing.assert_array_equal(*measured)
    shapes = [planning.fit_shape(t, rows=2, length=30, ask="best") for t in (trees, stored)]
    assert shapes[0] == shapes[1]


def test_a_tree_on_disk_costs_memory_a_few_integers():
    ids, wanted = np.arange(400, dtype=np.int32), np.ones(400, bool)

    def peak(count):
        trees = (TokenTree(ids[:99], (Branch(ids, wanted),), ranks=(0,)) for _ in range(count))
        tracemalloc.start()
        stored = TreeStore.write(trees)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(stored) == count
        return most

    peak(10)
    assert peak(8000) - peak(1000) < 7000 * 32


def test_nothing_is_left_on_disk_or_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stored = TreeStore.write(small(3))
    part = stored[1:]
    assert not list(tmp_path.iterdir())
    mapped = weakref.ref(stored.words.base)
    del stored
    gc.collect()
    assert mapped() is not None
    assert margins(part) == [1.0, 2.0]
    del part
    gc.collect()
    assert mapped() is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_says_what_to_do(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115
    with pytest.raises(DataError, match="set TMPDIR to a directory that has it"):
        TreeStore.write(small(3))


def test_an_error_of_the_reader_is_not_the_disk_s():
    def trees():
        yield from small(2)
        raise FileNotFoundError("pairs.jsonl")

    with pytest.raises(FileNotFoundError, match=r"pairs\.jsonl"):
        TreeStore.write(trees())
