"""What memory one optimizer step of GRM takes at the shapes of a public model.

    python -m benchmarks.memory --shapes gemma-2b --preset gemma-2b-it-lora

The step is compiled from shapes alone, for the devices at hand: nothing is downloaded, computed or
held. Prints one JSON object.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from benchmarks.recipe import Recipe
from benchmarks.shapes import SHAPES
from jaxrm import cli, parallel
from jaxrm.data import packing, planning
from jaxrm.data.packing import Ask, Branch, PackedBatch, PackShape, TokenTree
from jaxrm.huggingface import families
from jaxrm.methods import grm
from jaxrm.methods.bench import Bench
from jaxrm.models import transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.study.runconfig import PRESETS, Preset, RunConfig
from jaxrm.train.loop import Trainer


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    shapes: Literal["gemma-2b", "gemma-2-2b", "tiny"] = "gemma-2b"
    preset: Preset = "gemma-2b-it-lora"
    """Of experiments.train: rows, lengths, dtype, remat, head, what trains."""
    loss: Literal["sft", "dpo"] = "sft"
    """GRM's text loss."""
    rows: int | None = None
    """Rows per micro-batch; the preset's without it."""
    mesh: parallel.MeshShape = parallel.MeshShape()


def main(config: Config) -> None:
    """Measures and prints."""
    print(json.dumps(measure(config), indent=1))


def measure(config: Config) -> dict[str, Any]:
    """What the compiler says of one kind of step."""
    recipe = Recipe(config.loss)
    method = grm.method(recipe.loss, recipe.beta)
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
    optimizer = bench.optimizer_at(method, recipe.alpha)
    trainer = Trainer(
        structure,
        transformer.axes(model),
        params,
        method.loss(recipe.alpha),
        optimizer,
        mesh=mesh,
        rules=bench.rules,
        trainable=functools.partial(bench.trains, method),
    )
    window = jax.tree.map(lambda leaf: leaf[None], batch)
    rows = parallel.rows_sharding(mesh, leading=1)
    with jax.set_mesh(mesh):
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows), window
        )
        compiled = trainer.compiled(shapes)
    return {
        "shapes": config.shapes,
        "preset": config.preset,
        "loss": config.loss,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "jax": jax.__version__,
        "pairs": int(batch.pair_mask.sum()),
        "tokens": int((batch.comparison >= 0).sum()),
        "memory_gib": memory(compiled),
    }


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


def memory(compiled: Any) -> dict[str, float]:
    """GiB per device by the compiler's own analysis: the state, the rest, and both together."""
    analysis = compiled.memory_analysis()
    held = analysis.argument_size_in_bytes
    fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    sizes = {"state_and_batch": held, "temporary": analysis.temp_size_in_bytes + fresh}
    return {name: size / 2**30 for name, size in (sizes | {"total": sum(sizes.values())}).items()}


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
