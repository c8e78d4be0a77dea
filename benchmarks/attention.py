"""Attention's forms beside each other: one layer, forward and backward, on a batch of real trees.

    python -m benchmarks.attention --base DIR --data SOURCE --out FILE.json

The batch is the first that the loader makes of SOURCE, the shapes are the base's, and queries, keys
and values are random. The form that suits the machine comes first. Results and gradients are seen
to agree before they are timed. Writes one JSON object (see `benchmarks.turns`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import train, turns
from jaxrm import cli, parallel
from jaxrm.data.packing import PackedBatch
from jaxrm.errors import require_positive
from jaxrm.huggingface import names
from jaxrm.methods import grm
from jaxrm.methods.bench import Bench, fitted
from jaxrm.models import attention
from jaxrm.models.attention import Form


@dataclasses.dataclass(frozen=True)
class Config:
    """A base, comparisons, and the shape of their rows."""

    base: Path
    """A model with a chat template, as a directory or by its name on the Hub."""
    data: str
    """A source of pairs (see jaxrm.data.sources)."""
    out: Path
    """The record, a JSON file."""
    chat_template: Path | None = None
    """A file with the chat template, for a base that brings none."""
    comparisons: int = 400
    """Of the source, from its beginning, that the batch is drawn from."""
    rows: int = 4
    row_length: int = 1024
    repeats: int = 5
    tolerance: float = 1e-4
    """By how much of the largest value results and gradients may differ."""


def main(cfg: Config) -> None:
    """Measures, writes and prints."""
    require_positive(cfg, "comparisons", "rows", "row_length", "repeats")
    parallel.start()
    turns.keep(measure(cfg), cfg.out)


def measure(cfg: Config) -> turns.Record:
    """The record of one base and one source."""
    bench = Bench(
        names.local(cfg.base).directory,
        rows=cfg.rows,
        length=cfg.row_length,
        mesh=parallel.make_mesh(),
        shape=fitted,
        chat_template=cfg.chat_template,
    )
    method, trees = grm.method("sft"), train.pairs_of(bench, cfg.data, cfg.comparisons)
    window = next(bench.loader(method, trees, seed=0).batches(0))
    batch = jax.tree.map(lambda leaf: leaf[0], window)
    config, rng = bench.config, np.random.default_rng(0)
    qkv = [
        jnp.asarray(rng.standard_normal((*batch.tokens.shape, heads, config.head_dim)), "float32")
        for heads in (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    ]
    first = attention.suited(cfg.row_length)
    forms: list[Form] = [first, "split" if first == "dense" else "dense"]
    ways = {form: functools.partial(way(batch, form, config.query_scale), qkv) for form in forms}
    parity, seconds = turns.take_turns(
        ways, cfg.repeats, lambda firsts: agreement(firsts, cfg.tolerance)
    )
    return turns.record(
        seconds,
        parity,
        base=bench.base.name,
        step="attention of one layer, forward and backward, float32",
        data=Path(cfg.data).name,
        work=train.work([trees[i] for i in train.in_batch(window)], window),
    )


def agreement(firsts: Mapping[str, Any], tolerance: float) -> dict[str, float]:
    """By how much of the largest value the forms' results and gradients differ.

    Raises ParityError where that is above the tolerance.
    """
    pairs = zip(*map(jax.tree.leaves, firsts.values()), strict=True)
    found = max(float(jnp.abs(a - b).max() / jnp.abs(a).max()) for a, b in pairs)
    if not found <= tolerance:
        raise turns.ParityError(f"the forms of attention do not agree: they differ by {found:.1e}")
    return {"largest difference": found}


def way(batch: PackedBatch, form: Form, scale: float) -> Callable[..., Any]:
    """Result and gradients, of real tokens alone."""
    real = (jnp.asarray(batch.comparison) >= 0)[..., None, None]

    def total(qkv: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        mixed = attention.tree_attention(*qkv, batch, scale=scale, form=form)
        mixed = jnp.where(real, mixed, 0.0)
        return jnp.square(mixed).sum(), mixed

    computed = jax.jit(jax.value_and_grad(total, has_aux=True))
    return lambda qkv: jax.block_until_ready(computed(qkv))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
