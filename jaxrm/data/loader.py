"""Packed batches in a planned order, made by a background thread and placed on the device.

The order is a pure function of the seed, the epoch and what is known of each tree (token lengths,
weight, prompt), so the loader's whole state is one integer: how many batches were consumed. Hosts
plan alike and each writes those rows of every batch that its devices hold, so the number of hosts
changes nothing.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrm import parallel
from jaxrm.data import packing, planning
from jaxrm.data.packing import PackedBatch, PackShape, TokenTree
from jaxrm.errors import DataError

T = TypeVar("T")


class Loader:
    """Endless batches over `trees`, epoch after epoch, each epoch in an order of its own.

    Batches are PackedBatch with leaves [accumulate, rows, ...]: one optimizer step's window of
    micro-batches. The last batch of an epoch is filled up with empty rows.

    Args:
      trees: all trees, in memory or on disk (`jaxrm.data.store`).
      shape: the static shape of a micro-batch.
      mesh: the devices that its rows lie over.
      seed: of the order.
      accumulate: micro-batches of an optimizer step.
      weights: float [trees], how often an epoch shows each tree; once without it.
      prompts: int [trees]; trees of one number come in one optimizer step (`planning.plan_epoch`).
        Without it, every tree comes where it fits best.

    Raises:
      MeshError: the rows do not divide over the devices.
      DataError: a tree lacks what batches of `shape` carry, or has more responses than a group of
        it; there are no trees, or all weigh 0; or those of a prompt do not fit one optimizer step.
      ValueError: a weight is negative or not finite.
    """

    def __init__(
        self,
        trees: Sequence[TokenTree],
        shape: PackShape,
        *,
        mesh: Mesh,
        seed: int,
        accumulate: int = 1,
        weights: np.ndarray | None = None,
        prompts: np.ndarray | None = None,
    ):
        parallel.check_rows(shape.rows, mesh)
        self.trees, self.shape, self.mesh = trees, shape, mesh
        self.seed, self.accumulate = seed, accumulate
        self._sizes = packing.measure(
            packing.checked(trees, shape), ask=shape.ask, preferences=shape.groups > 0
        )
        if weights is not None:
            planning.check_weights(weights, len(trees))
        if not len(trees) or (weights is not None and not np.any(weights)):
            raise DataError("an epoch would be empty: there are no trees, or all weigh 0")
        self._offsets = np.cumsum(self._sizes[:, 1]) - self._sizes[:, 1]  # a slot per response
        self._weights, self._prompts = weights, prompts
        self._plans: list[list[list[int]]] = []
        if prompts is not None:
            # The fullest epoch there can be: a prompt that outgrows a step is refused now, and not
            # in the first epoch that happens to draw it so often.
            self._plan_epoch(0, None if weights is None else np.ceil(weights))

    def steps(self, epochs: int) -> int:
        """How many batches that many epochs take."""
        return sum(self._batches_in(epoch) for epoch in range(epochs))

    def batches(self, start: int) -> Iterator[PackedBatch]:
        """Batches number `start`, `start + 1`, ... on the device, prepared two ahead.

        Args:
          start: how many batches of the endless sequence were consumed before.
        """
        return prefetch(self._indices(start), self._load, ahead=2)

    def _plan(self, epoch: int) -> list[list[int]]:
        while len(self._plans) <= epoch:
            self._plans.append(self._plan_epoch(len(self._plans), self._weights))
        return self._plans[epoch]

    def _plan_epoch(self, epoch: int, weights: np.ndarray | None) -> list[list[int]]:
        return planning.plan_epoch(
            self._sizes,
            self.shape,
            self.seed,
            epoch,
            weights=weights,
            prompts=self._prompts,
            rows_per_batch=self.shape.rows * self.accumulate,
        )

    def _batches_in(self, epoch: int) -> int:
        return -(-len(self._plan(epoch)) // (self.shape.rows * self.accumulate))

    def _indices(self, start: int) -> Iterator[tuple[int, int]]:
        """(epoch, batch within it) from the endless sequence's place `start` on."""
        epoch = 0
        while start >= self._batches_in(epoch):
            start -= self._batches_in(epoch)
            epoch += 1
        while True:
            for batch in range(start, self._batches_in(epoch)):
                yield epoch, batch
            start, epoch = 0, epoch + 1

    def _load(self, index: tuple[int, int]) -> PackedBatch:
        epoch, batch = index
        rows = self.shape.rows
        first = batch * self.accumulate * rows
        window = [
            pack_local(
                self.trees,
                self._plan(epoch),
                first + micro * rows,
                self.shape,
                self._offsets,
                self.mesh,
            )
            for micro in range(self.accumulate)
        ]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *window)
        return parallel.shard_rows(stacked, self.mesh, leading=1)


def pack_local(
    trees: Sequence[TokenTree],
    plan: Sequence[Sequence[int]],
    first: int,
    shape: PackShape,
    offsets: np.ndarray,
    mesh: Mesh,
) -> PackedBatch:
    """This process's share of the batch that begins at row `first` of a plan, as numpy arrays."""
    mine = parallel.local_rows(shape.rows, mesh)
    planned = [plan[first + row] if first + row < len(plan) else [] for row in mine]
    local = dataclasses.replace(shape, rows=len(mine))
    return packing.pack(trees, planned, local, offsets)


def prefetch(items: Iterator, load: Callable[..., T], *, ahead: int) -> Iterator[T]:
    """Yields `load(item)` for each item in order, loading up to `ahead` of them in a thread.

    An exception in `items` or `load` is raised here, in its place. Closing the iterator, or
    dropping it, ends the thread.
    """
    ready: queue.Queue[tuple[str, T | Exception | None]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def offer(kind: str, value: T | Exception | None) -> None:
        while not stop.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                offer("batch", load(item))
                if stop.is_set():
                    return
            offer("end", None)
        except Exception as error:  # whatever it is, it belongs to the consumer
            offer("error", error)

    thread = threading.Thread(target=work, name="loader", daemon=True)
    thread.start()
    try:
        while (entry := ready.get())[0] != "end":
            kind, value = entry
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()
