"""Seeds of a small model side by side: in turn, in one batched program, or in processes?

    python -m benchmarks.side_by_side

Trains the toy base by Bradley-Terry on pairs of as many seeds as there are cores, three ways: one
run after another with all cores; all runs as one program, vmapped over the seeds; each run in a
process with a core of its own (`jaxrm.train.sweep`). Prints one JSON object: pairs trained per
second over all runs, compilation left out, the median of --repeats, and the ratios to `in turn`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxrm import cli, parallel, toy
from jaxrm.data import chat
from jaxrm.data.loader import Loader
from jaxrm.data.planning import pair_shape
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.huggingface import hub
from jaxrm.methods.method import bradley_terry
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.train.sweep import Record, sweep
from jaxrm.train.terms import total_weight, weighted_sum


@dataclasses.dataclass(frozen=True)
class Config:
    """How several small runs share one machine."""

    seeds: int = os.cpu_count() or 1
    """Runs."""
    pairs: int = 1000
    """Of each run."""
    repeats: int = 5


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs of one process: in turn, or as one program."""

    seeds: tuple[int, ...]
    pairs: int
    repeats: int
    way: Literal["in turn", "vmapped"]


def run(job: Job) -> Record:
    """{"pairs_per_second"} of all runs together, of each repeat."""
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    tokenizer, base = load_tokenizer(toy.TOKENIZER), toy.shipped_base()
    structure, params = transformer.split(hub.load(base, HeadConfig(), seed=0))
    optimizer = optax.adam(1e-4)
    data = []
    for seed in job.seeds:
        trees = chat.tokenize(toy.World(seed).comparisons("train", job.pairs), tokenizer)
        loader = Loader(trees, pair_shape(8, 160, "none"), mesh=mesh, seed=seed)
        batches = zip(range(loader.steps(1)), loader.batches(0), strict=False)
        data.append([jax.tree.map(lambda leaf: leaf[0], batch) for _, batch in batches])

    def loss(params, batch):
        model = transformer.merge(structure, params)
        terms = bradley_terry(None)(model, batch, jax.random.key(0))
        reward = terms["reward"]
        return weighted_sum(reward.values, reward.weights) / total_weight(reward.weights)

    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    if job.way == "vmapped":
        together = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
        data = [[together(*batches) for batches in zip(*data, strict=False)]]
        params = together(*[params] * len(job.seeds))
        step, init = jax.vmap(step), jax.vmap(optimizer.init)
    else:
        init = optimizer.init
    pairs = sum(int(batch.pair_mask.sum()) for batches in data for batch in batches)
    with jax.set_mesh(mesh):
        step = jax.jit(step)
        rates = []
        for repeat in range(job.repeats + 1):
            since = time.perf_counter()
            for batches in data:
                trained, state = params, init(params)
                for batch in batches:
                    trained, state = step(trained, state, batch)
                jax.block_until_ready(trained)
            if repeat:  # the first compiles
                rates.append(pairs / (time.perf_counter() - since))
    return {"pairs_per_second": rates}


def main(cfg: Config) -> None:
    """Measures the three ways and prints them."""
    seeds = tuple(range(cfg.seeds))
    shared = {"pairs": cfg.pairs, "repeats": cfg.repeats}
    with tempfile.TemporaryDirectory() as directory:
        records = functools.partial(sweep, run=run, out=Path(directory))
        (in_turn,) = records([Job(seeds, way="in turn", **shared)], workers=1)
        (vmapped,) = records([Job(seeds, way="vmapped", **shared)], workers=1)
        apart = records([Job((s,), way="in turn", **shared) for s in seeds], workers=cfg.seeds)
    rates = {
        "in turn": statistics.median(in_turn["pairs_per_second"]),
        "vmapped": statistics.median(vmapped["pairs_per_second"]),
        "processes": sum(statistics.median(record["pairs_per_second"]) for record in apart),
    }
    print(
        json.dumps(
            {
                "seeds": cfg.seeds,
                "cores": os.cpu_count(),
                "jax": jax.__version__,
                "python": platform.python_version(),
                "pairs_per_second": {way: round(rate, 1) for way, rate in rates.items()},
                "ratio": {way: round(rate / rates["in turn"], 3) for way, rate in rates.items()},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
