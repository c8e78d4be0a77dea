"""One optimizer step on real comparisons: ours beside what a user would otherwise run.

    python -m benchmarks.train --base DIR --data SOURCE --out FILE.json
    python -m benchmarks.train --base DIR --data SOURCE --train lora --loss dpo --out FILE.json

Ours is the train step of the library on the first batch that its loader makes of SOURCE: prompts
shared, rows packed, the vocabulary only where a target's log-prob is used, a reference's log-probs
computed before. The peers take a step on the same pairs, from the same weights and the same head
(`benchmarks.torch_peers`): as GRM's reference code does, in micro-batches in the order that pairs
come, padded to their longest, with logits of every token and a live reference; and the same with
pairs sorted by length.

Before anything is timed each peer's loss and gradient norm are seen to be ours. Then all take
turns. Writes one JSON object (see `benchmarks.turns`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import turns
from benchmarks.memory import memory
from benchmarks.recipe import Loss, Peers, Recipe, Taken
from jaxrm import cli, parallel
from jaxrm.data import sources
from jaxrm.data.packing import Ask, PackedBatch, TokenTree, tree_length
from jaxrm.data.store import with_columns
from jaxrm.errors import DataError, require_positive
from jaxrm.huggingface import adapter, names
from jaxrm.methods import grm
from jaxrm.methods.bench import Bench, fitted
from jaxrm.methods.method import Method
from jaxrm.models import transformer
from jaxrm.models.flops import forward_flops_of
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute
from jaxrm.read.reading import read
from jaxrm.train.loop import Trainer


@dataclasses.dataclass(frozen=True)
class Config:
    """A base, comparisons, and what a step is to do with them."""

    base: Path
    """A model with a chat template, as a directory or by its name on the Hub."""
    data: str
    """A source of pairs (see jaxrm.data.sources)."""
    out: Path
    """The record, a JSON file."""
    loss: Loss = "sft"
    """Bradley-Terry alone, or GRM's with that text loss."""
    train: Literal["all", "lora"] = "all"
    chat_template: Path | None = None
    """A file with the chat template, for a base that brings none."""
    comparisons: int = 400
    """Of the source, from its beginning, that the batch is drawn from."""
    rows: int = 4
    """Rows of our batch."""
    row_length: int = 1024
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"
    micro_batch: int = 4
    """Pairs of the peers' micro-batches."""
    repeats: int = 5
    peak: float | None = None
    """The peak TFLOP/s of one device, for the MFU."""
    tolerance: float = 1e-3
    """By which share a peer's loss and gradient norm may differ from ours."""
    mesh: parallel.MeshShape = parallel.MeshShape()
    """Of our devices."""


def main(cfg: Config) -> None:
    """Measures, writes and prints."""
    require_positive(cfg, "comparisons", "rows", "row_length", "micro_batch", "repeats")
    parallel.start()
    turns.keep(measure(cfg), cfg.out)


def measure(cfg: Config) -> turns.Record:
    """The record of one base, one source and one loss."""
    recipe = Recipe(cfg.loss, micro_batch=cfg.micro_batch)
    bench, method = bench_of(cfg, recipe), method_of(recipe)
    trees = pairs_of(bench, cfg.data, cfg.comparisons)
    for fill in method.fills:
        options = {"mesh": bench.devices, "rows": bench.rows, "row_length": bench.length}
        base, reading = bench.load(0).without_lora(), {fill.name: fill.reading}
        trees = with_columns(trees, read(base, trees, reading, ask=fill.ask, **options))
    batch = next(bench.loader(method, trees, seed=0).batches(0))
    members = [trees[i] for i in in_batch(batch)]
    ours = Ours(bench, method, recipe, batch)
    ways = {"jaxrm": ours.step}
    with tempfile.TemporaryDirectory() as scratch:
        if cfg.train == "lora":
            adapter.save(ours.start, Path(scratch), base=str(bench.base), tokenizer=bench.tokenizer)
            recipe = dataclasses.replace(recipe, adapter=Path(scratch))
        ways |= peers_of(bench.base, members, recipe, ours.head)
    parity, seconds = turns.take_turns(
        ways | {"plain product": product},
        cfg.repeats,
        lambda firsts: agreement({name: firsts[name] for name in ways}, cfg.tolerance),
    )
    plain = PRODUCT_FLOPS / statistics.median(seconds.pop("plain product"))
    useful = useful_flops(bench, members, method.ask) / statistics.median(seconds["jaxrm"])
    gflops = {"useful": useful / 1e9, "plain product": plain / 1e9, "share": useful / plain}
    if cfg.peak is not None:
        gflops["mfu"] = useful / (cfg.peak * 1e12 * bench.devices.size)
    return turns.record(
        seconds,
        parity,
        step=f"{cfg.loss}, --train {cfg.train}, {cfg.dtype}, --remat {cfg.remat}",
        base=bench.base.name,
        data=Path(cfg.data).name,
        work=work(members, batch),
        memory_gib=memory(ours.compiled),
        compile_seconds=ours.compile_seconds,
        gflops=gflops,
    )


def bench_of(cfg: Config, recipe: Recipe) -> Bench:
    """Where ours trains."""
    return Bench(
        names.local(cfg.base).directory,
        rows=cfg.rows,
        length=cfg.row_length,
        optimizer=recipe.optimizer,
        train=cfg.train,
        lora=LoraConfig(dropout=0.0),  # so that all ways compute the same
        compute=Compute(cfg.dtype, cfg.remat),
        mesh=parallel.make_mesh(cfg.mesh),
        shape=fitted,
        chat_template=cfg.chat_template,
    )


def method_of(recipe: Recipe) -> Method:
    """The library's method of that loss."""
    if recipe.loss == "bt":
        return Method("Bradley-Terry")
    return grm.method(recipe.loss, recipe.beta)


def pairs_of(bench: Bench, source: str, count: int) -> list[TokenTree]:
    """Of a source's first comparisons the pairs that a row holds, the chosen response first.

    Raises DataError where there is none.
    """
    comparisons = itertools.islice(sources.stream(source), count)
    pairs = [comparison for comparison in comparisons if comparison.ranks == (0, 1)]
    trees = bench.fitting(bench.trees(pairs))
    if not trees:
        raise DataError(f"--data {source}: no pair fits a row of {bench.length} tokens")
    return trees


def in_batch(batch: PackedBatch) -> list[int]:
    """Which of the pairs that a loader was given are in its batch, in their order."""
    responses = np.asarray(batch.response_index)[np.asarray(batch.response_mask)]
    return sorted(set((responses // 2).tolist()))


class Ours:
    """The library's step on one batch, again and again.

    Attributes:
      start: the model before the first step.
      head: float32 [d], its reward head.
      compiled: the step.
      compile_seconds: that this took.
    """

    def __init__(self, bench: Bench, method: Method, recipe: Recipe, batch: PackedBatch):
        self.start = bench.load(0)
        self.head = np.asarray(self.start.reward_head.arrays()["weight"])[:, 0]
        structure, params = transformer.split(self.start)
        strength = recipe.alpha if method.strengths else None
        trainer = Trainer(
            structure,
            transformer.axes(self.start),
            params,
            method.loss(strength),
            bench.optimizer_at(method, strength),
            mesh=bench.devices,
            rules=bench.rules,
            trainable=functools.partial(bench.trains, method),
        )
        self._mesh, self._batch = bench.devices, batch
        self._rate = np.float32(recipe.optimizer.learning_rate)
        with jax.set_mesh(self._mesh):
            since = time.perf_counter()
            self.compiled = trainer.compiled(batch)
            self.compile_seconds = time.perf_counter() - since
            # The step takes the place of its state.
            self._state = trainer.start(jax.tree.map(jnp.copy, params), seed=0)

    def step(self) -> Taken:
        """One optimizer step."""
        with jax.set_mesh(self._mesh):
            self._state, metrics = self.compiled(self._state, self._batch, self._rate)
            jax.block_until_ready(self._state)
        return Taken(float(metrics["loss"]), float(metrics["grad_norm"]))


def peers_of(base: Path, trees: Sequence[TokenTree], recipe: Recipe, head: np.ndarray) -> Peers:
    """The ways that torch takes the step, by name; none where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: ours alone is timed")
        return {}
    from benchmarks import torch_peers

    return torch_peers.steps(base, trees, recipe, head)


def agreement(firsts: Mapping[str, Taken], tolerance: float) -> dict[str, Any]:
    """Loss and gradient norm of every way's first step, and the largest difference from ours.

    Raises ParityError where it is above the tolerance, relative to ours.
    """
    ours, *theirs = firsts.values()
    differences = [abs(b - a) / abs(a) for each in theirs for a, b in zip(ours, each, strict=True)]
    largest = max(differences, default=0.0)
    if not largest <= tolerance:
        raise turns.ParityError(
            f"the ways do not compute the same: (loss, gradient norm) are {firsts}"
        )
    named = {name: taken._asdict() for name, taken in firsts.items()}
    return {"first step": named, "largest difference": largest}


def work(trees: Sequence[TokenTree], batch: PackedBatch) -> dict[str, float]:
    """What is in a batch: its pairs, mean lengths, and the share of its tokens that are real."""
    prompts = [len(tree.prompt) for tree in trees]
    responses = [len(branch.tokens) for tree in trees for branch in tree.branches]
    real = np.asarray(batch.comparison) >= 0
    return {
        "pairs": len(trees),
        "tokens": int(real.sum()),
        "mean prompt": float(np.mean(prompts)),
        "mean response": float(np.mean(responses)),
        "prompt over response": float(np.mean(prompts) / np.mean(responses)),
        "token efficiency": float(real.mean()),
    }


def useful_flops(bench: Bench, trees: Sequence[TokenTree], ask: Ask) -> float:
    """Floating-point operations that a step on these pairs cannot do without.

    Training all weights is three forward passes; with a frozen trunk the backward pass leaves out
    the weights' gradients and adds those of LoRA.
    """
    forward = forward_flops_of(bench.config, trees, ask)
    if bench.train == "all":
        return 3 * forward
    declared = transformer.declare(bench.config, None, bench.lora)
    low_rank = sum(np.prod(p.shape) for p in declared["lora"].values())
    return 2 * forward + 6 * sum(map(tree_length, trees)) * float(low_rank)


SIDE = 2048
PRODUCT_FLOPS = 2 * SIDE**3


@functools.cache
def _factors() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (SIDE, SIDE), jnp.float32)


_square = jax.jit(lambda x: x @ x)


def product() -> None:
    """A product of two float32 matrices: what the machine reaches where nothing else is done."""
    jax.block_until_ready(_square(_factors()))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
