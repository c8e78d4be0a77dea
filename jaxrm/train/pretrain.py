"""A language model from nothing: how the toy world's base and other small bases are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh

from jaxrm.data import planning
from jaxrm.data.loader import Loader
from jaxrm.data.packing import PackedBatch, TokenTree
from jaxrm.models import heads, transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.transformer import RewardModel
from jaxrm.parallel import ShardingRules
from jaxrm.train.loop import fit
from jaxrm.train.optimizer import OptimizerConfig, learning_rates, make_optimizer
from jaxrm.train.terms import Term, Terms


def language_loss(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
    """The mean loss of a token, in nats."""
    logps = heads.target_logps(model, model.hidden(batch), batch)
    return {"text": Term(1.0, -logps, batch.target_mask)}


def pretrain(
    config: ModelConfig,
    trees: Sequence[TokenTree],
    run_dir: Path,
    *,
    rows: int,
    length: int,
    mesh: Mesh,
    rules: ShardingRules,
    learning_rate: float = 2e-3,
    steps: int | None = None,
    seed: int = 0,
    checkpoint_every: int = 500,
) -> RewardModel:
    """A fresh model without a reward head that has read the trees, kept and resumed as by `fit`.

    Args:
      trees: text to read: the tokens of `ask="all"` are learnt.
      rows, length: of a batch, and tokens of a row.
      learning_rate: the peak.
      steps: of the optimizer; as many as one reading takes without it.
      seed: of the first weights and of the order.
    """
    shape = planning.fit_shape(trees, rows=rows, length=length, ask="all")
    loader = Loader(trees, shape, mesh=mesh, seed=seed)
    optimizer = OptimizerConfig(learning_rate, warmup=0.025, floor=0.02, b2=0.98, clip=1.0)
    return fit(
        transformer.create(config, None, seed=seed, mesh=mesh, rules=rules),
        language_loss,
        loader,
        make_optimizer(optimizer),
        learning_rates(optimizer, steps or loader.steps(1)),
        run_dir=run_dir,
        mesh=mesh,
        rules=rules,
        checkpoint_every=checkpoint_every,
    )
