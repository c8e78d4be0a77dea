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
from jaxrm.data.store import TreeStore
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

    width = draw(st.integers(1, 3))
    grades = st.lists(NUMBERS | st.just(float("nan")), min_size=width, max_size=width).map(tuple)
    return TokenTree(
        np.array(draw(st.lists(IDS, max_size=6)), np.int32),
        tuple(branches),
        ranks=per_branch(st.integers(0, 2**31 - 1)),
        scores=per_branch(NUMBERS),
        margin=draw(st.none() | NUMBERS),
        attributes=per_branch(grades),
        reference_logps=per_branch(NUMBERS),
    )


def contents(tree):
    """All of a tree in plain values that compare equal when they are, NaN included."""
    arrays = [tree.prompt]
    for b in tree.branches:
        arrays += [b.tokens, b.targets, b.step_ends, b.step_labels]
    labels = (tree.ranks, tree.scores, tree.margin, tree.attributes, tree.reference_logps)
    return [(array.dtype.name, repr(array.tolist())) for array in arrays], repr(labels)


def small(count):
    return [tree(1 + i % 5, 2, 1 + i % 3, ranks=(0, 1), margin=float(i)) for i in range(count)]


def margins(trees):
    return [tree.margin for tree in trees]


@given(st.lists(any_tree(), max_size=5))
def test_trees_come_back_as_they_went_in(trees):
    stored = TreeStore.write(iter(trees))
    assert len(stored) == len(trees)
    assert [contents(tree) for tree in stored] == [contents(tree) for tree in trees]


def test_stores_of_trees_without_steps_keep_their_key():
    recorded = "da460949d52e002d4710161c98b25d0645dfdaef8693f05e79b86969677c5041"
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
    assert (stored[6].margin, stored[-1].margin, stored[np.int64(2)].margin) == (6.0, 6.0, 2.0)
    for part in (slice(2, 5), slice(None, None, -2), slice(5, 99), slice(3, 3)):
        assert margins(stored[part]) == margins(trees[part])
    for outside in (7, -8):
        with pytest.raises(IndexError):
            stored[outside]


def test_references_are_attached_to_their_trees_over_the_same_file():
    stored = TreeStore.write(small(3))
    logps = [np.array([-i, -i - 0.5], np.float32) for i in range(3)]
    referred = stored.with_references(logps)
    assert [tree.reference_logps for tree in referred] == [(0.0, -0.5), (-1.0, -1.5), (-2.0, -2.5)]
    assert referred[1:][0].reference_logps == referred[-2].reference_logps == (-1.0, -1.5)
    assert margins(referred) == margins(stored)
    assert stored[0].reference_logps is None
    assert referred.words is stored.words
    replaced = referred.with_references([np.zeros(2)] * 3)
    assert replaced[2].reference_logps == (0.0, 0.0)


def test_references_must_fit_the_trees():
    stored = TreeStore.write(small(3))
    for wrong in ([np.zeros(2)] * 2, [np.zeros(2), np.zeros(1), np.zeros(3)]):
        with pytest.raises(ValueError, match="for 3 trees, 6 responses"):
            stored.with_references(wrong)


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
