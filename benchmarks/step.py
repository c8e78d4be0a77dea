"""One optimizer step of GRM at the shapes of a public model: its time, its work and its memory.

    python -m benchmarks.step --shapes gemma-2b --preset gemma-2b-it-lora --steps 20 --peak 990
    python -m benchmarks.step --shapes gemma-2b --preset gemma-2b-it-full --steps 0   # no device

Weights and tokens are random, so nothing is downloaded. With --steps 0 the step is compiled from
shapes alone, for the devices at hand, and the compiler says what memory it would take. Prints one
JSON object.

Work is counted honestly (useful FLOPs): each prompt once, no padding, no recomputation, the
vocabulary only where a target's log-prob is used. Full training is three forward passes; with a
frozen trunk the backward pass leaves out the weights' gradients and adds those of LoRA.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrm import cli, parallel
from jaxrm.data import packing, planning
from jaxrm.data.packing import Ask, Branch, PackedBatch, PackShape, TokenTree
from jaxrm.huggingface import families
from jaxrm.methods import grm
from jaxrm.methods.bench import Bench
from jaxrm.models import transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.flops import forward_flops
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.study.runconfig import PRESETS, Preset, RunConfig
from jaxrm.train import state
from jaxrm.train.step import make_train_step

ALPHA = 0.01
"""Text's share of the loss, as in the recipe; it changes no shape."""

SHAPES: dict[str, dict[str, Any]] = {
    "gemma-2b": {
        "model_type": "gemma",
        "vocab_size": 256_000,
        "hidden_size": 2048,
        "intermediate_size": 16_384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
    },
    "gemma-2-2b": {
        "model_type": "gemma2",
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
    },
    "tiny": {
        "model_type": "gemma",
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    shapes: Literal["gemma-2b", "gemma-2-2b", "tiny"] = "gemma-2b"
    preset: Preset = "gemma-2b-it-lora"
    """Of experiments.train: rows, lengths, dtype, remat, head, what trains."""
    regularizer: Literal["sft", "dpo", "dpo_reference_free"] = "sft"
    rows: int | None = None
    """Rows per micro-batch; the preset's without it."""
    steps: int = 20
    """Timed steps, after one that is not; 0 compiles only."""
    peak: float | None = None
    """The device's peak TFLOP/s in bfloat16, for the MFU."""
    mesh: parallel.MeshShape = parallel.MeshShape()


def main(config: Config) -> None:
    """Measures and prints."""
    print(json.dumps(measure(config), indent=1))


def measure(config: Config) -> dict[str, Any]:
    """Seconds per step, useful work and memory of one kind of step."""
    method = grm.method(config.regularizer)
    cfg = RunConfig(preset=config.preset, **PRESETS[config.preset])
    cfg = dataclasses.replace(cfg, rows=config.rows or cfg.rows, accumulate=1)
    bench = Bench(Path(), train=cfg.train, optimizer=cfg.optimizer())
    mesh = parallel.make_mesh(config.mesh)
    decoder = families.read(SHAPES[config.shapes])
    batch = random_batch(decoder, cfg, method.ask)
    lora = cfg.lora if cfg.train == "lora" else None
    declared = transformer.declare(decoder, cfg.head, lora)
    trunk_dtype = "float32" if cfg.train == "all" else cfg.dtype
    params = {
        name: jax.tree.map(
            lambda p, name=name: jax.ShapeDtypeStruct(
                p.shape, "float32" if name in ("lora", "reward_head") else trunk_dtype
            ),
            part,
        )
        for name, part in declared.items()
    }
    compute = Compute(cfg.dtype, cfg.remat)
    model = RewardModel(decoder, cfg.head, lora, compute=compute, params=params)
    structure, params = transformer.split(model)
    optimizer = bench.optimizer_at(method, ALPHA)
    abstract = state.abstract_state(
        params,
        transformer.axes(model),
        optimizer,
        trainable=functools.partial(bench.trains, method),
        mesh=mesh,
        rules=bench.rules,
    )
    step = make_train_step(method.loss(ALPHA), structure, optimizer, state.shardings_of(abstract))
    window = jax.tree.map(lambda leaf: leaf[None], batch)
    rows = parallel.rows_sharding(mesh, leading=1)
    with jax.set_mesh(mesh):
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows), window
        )
        compiled = step.lower(abstract, shapes, np.float32(0)).compile()
    pairs, tokens = int(batch.pair_mask.sum()), int((batch.comparison >= 0).sum())
    flops = useful_flops(decoder, batch, cfg)
    figures = {
        "shapes": config.shapes,
        "preset": config.preset,
        "regularizer": config.regularizer,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "jax": jax.__version__,
        "pairs": pairs,
        "tokens": tokens,
        "token_efficiency": tokens / batch.tokens.size,
        "useful_tflops": flops / 1e12,
        "memory_gib": memory(compiled),
    }
    if config.steps:
        seconds = timed(compiled, abstract, window, mesh, config.steps)
        figures |= {
            "seconds": statistics.median(seconds),
            "seconds_range": [min(seconds), max(seconds)],
            "pairs_per_second": pairs / statistics.median(seconds),
            "useful_tokens_per_second": tokens / statistics.median(seconds),
        }
        stats = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            figures["peak_gib_of_the_allocator"] = stats["peak_bytes_in_use"] / 2**30
        if config.peak:
            rate = flops / statistics.median(seconds) / len(jax.devices())
            figures["mfu"] = rate / (config.peak * 1e12)
    return figures


def random_batch(decoder: ModelConfig, cfg: RunConfig, ask: Ask) -> PackedBatch:
    """Full rows of random pairs whose lengths follow a log-normal law."""
    rng = np.random.default_rng(0)

    def length(median: int) -> int:
        longest = min(cfg.max_length // 2, cfg.row_length // 3)
        return int(np.clip(median * rng.lognormal(0.0, 0.7), 4, longest))

    def ids(count: int) -> np.ndarray:
        return rng.integers(0, decoder.vocab_size, count).astype(np.int32)

    def branch() -> Branch:
        count = length(cfg.max_length // 4)
        return Branch(ids(count), np.ones(count, bool))

    trees = [
        TokenTree(
            ids(length(cfg.max_length // 6)),
            (branch(), branch()),
            ranks=(0, 1),
            columns={"reference_logps": np.full(2, -100.0)},
        )
        for _ in range(8 * cfg.rows)
    ]
    shape: PackShape = planning.fit_shape(trees, rows=cfg.rows, length=cfg.row_length, ask=ask)
    sizes = packing.measure(trees, ask=ask, preferences=True)
    return packing.pack(trees, planning.plan_epoch(sizes, shape, 0, 0)[: cfg.rows], shape)


def useful_flops(decoder: ModelConfig, batch: PackedBatch, cfg: RunConfig) -> float:
    """Floating-point operations that one step cannot do without."""
    real = batch.comparison >= 0
    tokens = int(real.sum())
    # A token at position p of its tree sees p + 1 tokens.
    seen, targets = int((batch.positions[real] + 1).sum()), int(batch.target_mask.sum())
    forward = forward_flops(decoder, tokens=tokens, seen=seen, targets=targets)
    if cfg.train == "all":
        return 3 * forward
    declared = transformer.declare(decoder, None, cfg.lora)
    low_rank = sum(np.prod(p.shape) for p in declared["lora"].values())
    return 2 * forward + 6 * tokens * low_rank


def memory(compiled: Any) -> dict[str, float]:
    """GiB per device by the compiler's own analysis: the state, the rest, and both together."""
    analysis = compiled.memory_analysis()
    held = analysis.argument_size_in_bytes
    fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    sizes = {"state_and_batch": held, "temporary": analysis.temp_size_in_bytes + fresh}
    return {name: size / 2**30 for name, size in (sizes | {"total": sum(sizes.values())}).items()}


def timed(compiled: Any, abstract: state.TrainState, window: Any, mesh: Mesh, steps: int) -> list:
    """Seconds of each step from a state of random values, the first one left out."""
    shardings = state.shardings_of(abstract)

    @functools.partial(jax.jit, out_shardings=shardings)
    def random_state(seed: int) -> state.TrainState:
        leaves, tree = jax.tree.flatten(abstract)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        values = [
            (0.02 * jax.random.normal(key, leaf.shape)).astype(leaf.dtype)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else jnp.zeros(leaf.shape, leaf.dtype)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        made = jax.tree.unflatten(tree, values)
        # Second moments are squares.
        return dataclasses.replace(made, optimizer=jax.tree.map(jnp.abs, made.optimizer))

    current = random_state(0)
    batches = parallel.shard_rows(window, mesh, leading=1)
    seconds = []
    with jax.set_mesh(mesh):
        for _ in range(steps + 1):
            start = time.perf_counter()
            current, metrics = compiled(current, batches, np.float32(0))
            jax.block_until_ready((current, metrics))
            seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
