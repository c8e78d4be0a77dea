"""Which trees share a row, and in which order rows come: pure functions of lengths and a seed.

Nothing here looks at a token. A plan is made for all rows of an epoch at once, the same on every
host, and each host writes its own slice of it (`jaxrm.data.loader`).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence

import numpy as np

from jaxrm.data.carried import Census
from jaxrm.data.packing import MEASURES, UNLIMITED, Ask, PackShape, TokenTree, measure
from jaxrm.errors import DataError

LOOK_AHEAD = 64
"""How many prompts may wait for a later batch while smaller ones fill this one up."""


def fit_shape(
    trees: Sequence[TokenTree],
    *,
    rows: int,
    length: int,
    ask: Ask = "none",
) -> PackShape:
    """Capacities that suit `trees`, as a pure function of their lengths.

    Rows are planned by length alone and each capacity is set to hold 95 % of them, which keeps
    the language-model targets (the costly ones) near their mean; the planner works around the
    rest. Batches carry the columns that all trees have; a loss that reads another one is told which
    tree lacks it.

    Raises:
      DataError: there are no trees, or they differ in their number of attributes.
    """
    if not len(trees):
        raise DataError("there are no comparisons to make batches of")
    census = Census()  # in the one pass that measures: trees may have to be read from disk
    sizes = measure(map(census.add, trees), ask=ask, preferences=True)
    if len(census.widths) > 1:
        raise DataError(
            f"comparisons carry different numbers of attributes: {sorted(census.widths)}: train on "
            "one of their data sets, or leave the column out"
        )
    unlimited = np.full(len(MEASURES), UNLIMITED)
    unlimited[0] = length
    plan = plan_rows(sizes, unlimited, np.arange(len(trees)))
    per_row = np.array([sizes[row].sum(0) for row in plan])
    need = np.maximum(np.quantile(per_row, 0.95, axis=0, method="higher"), sizes.max(0))
    _, slots, pairs, targets, groups, steps = (int(n) for n in need)
    return PackShape(
        rows=rows,
        length=length,
        slots=slots,
        pairs=pairs,
        groups=groups,
        group_size=int(sizes[:, 1].max()),
        targets=targets,
        attributes=max(census.widths, default=0),
        steps=steps,
        ask=ask,
        columns=census.columns(),
        absent=census.absent(),
    )


def pair_shape(rows: int, length: int, ask: Ask, responses: int = 2) -> PackShape:
    """A shape to train on comparisons in, set by the row's length and not fitted to data.

    A row is full of tokens before it is full of targets, and before its slots are taken where texts
    have far more than the 8 tokens that a slot takes here. So what a batch holds does not depend on
    `ask`, and losses that ask differently see the same pairs in the same batches.

    Args:
      rows, length: of a batch, and tokens of a row.
      ask: whose tokens are language-model targets.
      responses: of a comparison, at most.
    """
    # Comparisons of K have (K - 1) / 2 pairs for each of their responses, smaller ones fewer.
    alone = reading_shape(rows, length, ask)
    pairs, groups = alone.slots * (responses - 1) // 2, alone.slots // 2
    return dataclasses.replace(alone, pairs=pairs, groups=groups, group_size=responses)


def reading_shape(rows: int, length: int, ask: Ask) -> PackShape:
    """`pair_shape` without preferences, for what no preference loss is taken of."""
    targets = 0 if ask == "none" else length
    return PackShape(rows, length, slots=max(1, length // 8), targets=targets, ask=ask)


def plan_rows(sizes: np.ndarray, capacity: np.ndarray, order: np.ndarray) -> list[list[int]]:
    """Groups trees into rows: first fit, longest first within windows of `order`.

    Args:
      sizes: int [trees, 6] as from `measure`.
      capacity: int [6], what one row holds.
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
            f"tree {too_big[0]} needs [{', '.join(MEASURES)}] = {need}, "
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


def plan_epoch(
    sizes: np.ndarray,
    shape: PackShape,
    seed: int,
    epoch: int,
    *,
    weights: np.ndarray | None = None,
    prompts: np.ndarray | None = None,
    rows_per_batch: int | None = None,
) -> list[list[int]]:
    """The global order of an epoch's rows: a pure function of its arguments.

    Args:
      sizes: int [trees, 6] as from `measure`.
      shape: the static shape, whose capacity a row keeps to.
      seed: of the run.
      epoch: counting from 0; every epoch has an order of its own.
      weights: float [trees] >= 0, how often an epoch shows each tree, 1 without it. Tree i comes
        floor(w) or ceil(w) times, w times on average, and the trees of one weight together come as
        often as their weights add up to, rounded up or down.
      prompts: int [trees]; trees of one number come in one batch, copies of them too, since a
        prompt's comparisons are so alike that a step for each of them overfits (InstructGPT, arXiv
        2203.02155, section 3.5). Every batch then has `rows_per_batch` rows, some of them empty.
      rows_per_batch: rows of an optimizer step; `shape.rows` without it.

    Returns:
      Rows of tree indices.

    Raises:
      DataError: the trees of a prompt need more rows than a batch has.
      ValueError: a tree exceeds the capacity of an empty row, there are not as many weights or
        prompts as trees, or a weight is negative or not finite.
    """
    if weights is not None:
        check_weights(weights, len(sizes))
    if prompts is not None and len(prompts) != len(sizes):
        raise ValueError(f"{len(prompts)} prompts for {len(sizes)} trees")
    rng = np.random.default_rng([seed, epoch])
    drawn = np.arange(len(sizes)) if weights is None else _draw(weights, seed, epoch)
    order = rng.permutation(drawn)
    if prompts is None:
        rows = plan_rows(sizes, shape.capacity, order)
        return [rows[i] for i in rng.permutation(len(rows))]
    groups = _by_prompt(order, prompts, sizes, rng)
    return _plan_batches(sizes, shape.capacity, groups, rows_per_batch or shape.rows)


def check_weights(weights: np.ndarray, trees: int) -> None:
    """Raises ValueError unless each of so many trees has a weight, finite and at least 0."""
    if len(weights) != trees:
        raise ValueError(f"{len(weights)} weights for {trees} trees")
    wrong = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if wrong.size:
        problem = f"the weight of tree {wrong[0]} is {weights[wrong[0]]}"
        raise ValueError(f"{problem}: it must be finite and at least 0")


def _draw(weights: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Tree indices, each as often as an epoch shows it: systematic sampling.

    The fractions of the weights are laid end to end from a random start, and a tree comes once more
    where its stretch holds a whole number. Trees of one weight lie side by side, in random order.
    """
    # A stream of its own, so that the order of trees is what it would be without weights.
    rng = np.random.default_rng([seed, epoch, 1])
    order = rng.permutation(len(weights))
    order = order[np.argsort(weights[order], kind="stable")]
    whole = np.floor(weights[order])
    ends = np.cumsum(np.concatenate([[rng.random()], weights[order] - whole]))
    times = np.zeros(len(weights), np.int64)
    times[order] = whole + np.diff(np.floor(ends))
    return np.repeat(np.arange(len(weights)), times)


def _by_prompt(
    order: np.ndarray, prompts: np.ndarray, sizes: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """The trees of `order` by prompt: prompts in random order, each one's longest tree first."""
    numbers, group = np.unique(prompts[order], return_inverse=True)
    group = rng.permutation(len(numbers))[group]
    by_group = np.lexsort((-sizes[order, 0], group))
    ends = np.cumsum(np.bincount(group, minlength=len(numbers)))
    return np.split(order[by_group], ends[:-1]) if len(numbers) else []


def _plan_batches(
    sizes: np.ndarray, capacity: np.ndarray, groups: Sequence[np.ndarray], count: int
) -> list[list[int]]:
    """Batches of `count` rows each, filled with whole groups: as they come, the next that fits."""
    rows: list[list[int]] = []
    queue = deque(groups)
    while queue:
        batch: list[list[int]] = [[] for _ in range(count)]
        free = np.tile(capacity, (count, 1))
        widest = free[0, 0]
        passed: list[np.ndarray] = []
        while queue and len(passed) < LOOK_AHEAD:
            group = queue.popleft()
            # The first comparison saves most of the search: a batch that is nearly full takes few.
            places = None if sizes[group[0], 0] > widest else _place(sizes[group], free)
            if places is None and not any(batch):
                need = len(plan_rows(sizes, capacity, group))
                raise DataError(
                    f"the {len(group)} comparisons of one prompt (tree {group[0]} among them) need "
                    f"{need} rows, but an optimizer step has {count}: raise rows, accumulate or "
                    "row_length, or do not keep prompts together"
                )
            if places is None:
                passed.append(group)
                continue
            for tree, place in zip(group, places, strict=True):
                batch[place].append(int(tree))
            widest = free[:, 0].max()
        rows += batch
        queue.extendleft(reversed(passed))  # first in the next batch
    return rows


def _place(sizes: np.ndarray, free: np.ndarray) -> list[int] | None:
    """The row for each tree, first fit, taken off `free`; None, and nothing taken, if they do not
    all fit."""
    left = free.copy()
    places = []
    for size in sizes:
        fits = (left >= size).all(axis=1)
        place = int(np.argmax(fits))
        if not fits[place]:
            return None
        left[place] -= size
        places.append(place)
    free[:] = left
    return places
