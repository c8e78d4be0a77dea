"""Which trees share a row, and in which order rows come: pure functions of lengths and a seed.

Nothing here looks at a token. A plan is made for all rows of an epoch at once, the same on every
host, and each host writes its own slice of it (`jaxrm.data.loader`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxrm.data.packing import Ask, PackShape, TokenTree, measure


def fit_shape(
    trees: Sequence[TokenTree],
    *,
    rows: int,
    length: int,
    ask: Ask = "none",
    preferences: bool = True,
) -> PackShape:
    """Capacities that suit `trees`, as a pure function of their lengths.

    Rows are planned by length alone and each capacity is set to hold 95 % of them, which keeps
    the language-model targets (the costly ones) near their mean; the planner works around the
    rest.
    """
    sizes = measure(trees, ask=ask, preferences=preferences)
    unlimited = np.full(5, np.iinfo(np.int64).max)
    unlimited[0] = length
    plan = plan_rows(sizes, unlimited, np.arange(len(trees)))
    per_row = np.array([sizes[row].sum(0) for row in plan])
    need = np.maximum(np.quantile(per_row, 0.95, axis=0, method="higher"), sizes.max(0))
    _, slots, pairs, targets, groups = (int(n) for n in need)
    widths = {len(tree.attributes[0]) for tree in trees if tree.attributes is not None}
    if len(widths) > 1:
        raise ValueError(f"trees carry different numbers of attributes: {sorted(widths)}")
    return PackShape(
        rows=rows,
        length=length,
        slots=slots,
        pairs=pairs,
        groups=groups,
        group_size=max(len(tree.branches) for tree in trees) if preferences else 0,
        targets=targets,
        attributes=max(widths, default=0),
        ask=ask,
    )


def plan_rows(sizes: np.ndarray, capacity: np.ndarray, order: np.ndarray) -> list[list[int]]:
    """Groups trees into rows: first fit, longest first within windows of `order`.

    Args:
      sizes: int [trees, 5] as from `measure`.
      capacity: int [5], what one row holds.
      order: int, tree indices in the order in which they should be met.

    Returns:
      Rows of tree indices; every index of `order` is in exactly one row.

    Raises:
      ValueError: a tree exceeds the capacity of an empty row.
    """
    too_big = order[(sizes[order] > capacity).any(axis=1)]
    if too_big.size:
        need = sizes[too_big[0]].tolist()
        raise ValueError(
            f"tree {too_big[0]} needs [tokens, slots, pairs, targets, groups] = {need}, "
            f"but a row holds {capacity.tolist()}"
        )
    # Sorting a window of a shuffled order packs nearly as tightly as sorting everything, and leaves
    # rows of the same window alike in nothing but that. 64 open rows keep the search short.
    window, most_open = 1024, 64
    rows: list[list[int]] = []
    open_rows = np.zeros(0, np.int64)
    free = np.zeros((0, len(capacity)), np.int64)
    for start in range(0, len(order), window):
        chunk = order[start : start + window]
        for tree in chunk[np.argsort(-sizes[chunk, 0], kind="stable")]:
            fits = (free >= sizes[tree]).all(axis=1)
            place = int(np.argmax(fits)) if fits.any() else len(open_rows)
            if place == len(open_rows):
                open_rows = np.append(open_rows, len(rows))
                free = np.vstack([free, capacity])
                rows.append([])
            rows[open_rows[place]].append(int(tree))
            free[place] -= sizes[tree]
        emptiest = np.sort(np.argsort(-free[:, 0], kind="stable")[:most_open])
        open_rows, free = open_rows[emptiest], free[emptiest]
    return rows


def plan_epoch(sizes: np.ndarray, shape: PackShape, seed: int, epoch: int) -> list[list[int]]:
    """The global order of an epoch's rows: a pure function of (seed, epoch, lengths, shape)."""
    rng = np.random.default_rng([seed, epoch])
    rows = plan_rows(sizes, shape.capacity, rng.permutation(len(sizes)))
    return [rows[i] for i in rng.permutation(len(rows))]
