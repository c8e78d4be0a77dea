"""What a method is given, and what it makes of it: a task in, scores out.

All methods get the same task: a bench, comparisons, a trial (a learning rate and the method's
strength), and how much work they may do. Nearly all train `one` model; an ensemble trains several.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jaxtyping import Float

from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import PackedBatch, TokenTree
from jaxrm.errors import DataError
from jaxrm.methods.bench import Bench, Fitted
from jaxrm.methods.method import Method
from jaxrm.models import heads, transformer
from jaxrm.models.gate import Gated
from jaxrm.models.heads import HeadConfig
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import RewardModel
from jaxrm.read import scoring
from jaxrm.read.packed import Packed
from jaxrm.read.reading import Reading, read
from jaxrm.train.state import Params

Scores = Callable[[Packed], Float[np.ndarray, "n K"]]
"""The reward of every response."""


@functools.cache
def reading_of(method: Method) -> Reading:
    """What reads a method's reward off a model."""
    if method.reading is not None:
        return method.reading
    if method.outputs == 1:
        return heads.rewards

    def reading(model: RewardModel, hidden: Any, batch: PackedBatch) -> Any:
        return method.combine(heads.outputs(model, hidden, batch))

    return reading


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model, how it is read, and what it cost.

    Attributes:
      flops: useful floating-point operations of its training.
      dropped: comparisons that no row of training holds.
    """

    bench: Bench
    method: Method
    fitted: Fitted
    flops: float = 0.0
    dropped: int = 0

    def read(self, data: Packed, readings: Mapping[str, Reading]) -> dict[str, np.ndarray]:
        """Float32 [n, K, ...] for each of the readings."""
        return self.bench.read(self.fitted.params, data, readings, self.fitted.structure)

    def scores(self, data: Packed) -> Float[np.ndarray, "n K"]:
        """Its reward of every response."""
        if self.method.reading is not None:
            data = self.bench.filled(data, self.method.fills)
        return self.read(data, {"scores": reading_of(self.method)})["scores"]

    def whole(self) -> RewardModel:
        """The model with all outputs of its head."""
        return transformer.merge(self.fitted.structure, self.fitted.params)

    def reward_model(self) -> RewardModel:
        """The model whose head has one output, the reward."""
        return self.whole().with_head(*self.head(self.method.combine))

    def head(
        self, combine: Callable[[jax.Array], jax.Array], outputs: int = 1
    ) -> tuple[HeadConfig, Tree]:
        """A head of linear combinations of the model's outputs, as `heads.combined` makes it."""
        whole = self.whole()
        return heads.combined(whole.head_config, whole.reward_head.arrays(), combine, outputs)


@dataclasses.dataclass(frozen=True)
class Part:
    """A model's share in a reward: weight x (what is read off it - offset).

    Attributes:
      model: made when it is wanted, so that one of several is in memory.
      reads: "rewards" of its head, or "logps" of responses under its language model.
    """

    model: Callable[[], RewardModel]
    reads: Literal["rewards", "logps"] = "rewards"
    weight: float = 1.0
    offset: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """What a method made of a task.

    Attributes:
      scores: the reward of every response.
      models: all that were trained.
      parts: the same reward as a sum over models, for an export.
      gate: beside the only part, where its outputs are attributes that a gate weighs.
    """

    scores: Scores
    models: Sequence[Model]
    parts: Sequence[Part]
    gate: Gated | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the reward is the one output of one model's head."""
        [first, *others] = self.parts
        whole = first.reads == "rewards" and (first.weight, first.offset) == (1.0, 0.0)
        return whole and not others and self.gate is None

    def read(self, trees: Sequence[TokenTree], **options: Any) -> list[np.ndarray]:
        """The same rewards, float32 [K] for each tree of any K, a model at a time.

        Args:
          options: as for `jaxrm.read.reading.read`.
        """
        values = []
        for part in self.parts:
            reading, ask = scoring.READS[part.reads]
            readings = {"read": self.gate or reading}
            whole = read(part.model(), trees, readings, ask=ask, **options)
            values.append(whole["read"])
        return [scoring.total(self.parts, of_tree) for of_tree in zip(*values, strict=True)]


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Trees to train on, with all columns.

    Attributes:
      dropped: how many comparisons no row holds.
      weights, prompts: as for `jaxrm.data.loader.Loader`.
    """

    trees: Sequence[TokenTree]
    dropped: int = 0
    weights: np.ndarray | None = None
    prompts: np.ndarray | None = None


class Data(Protocol):
    """What is trained on."""

    comparisons: Sequence[Comparison]

    def prepared(
        self, bench: Bench, method: Method, comparisons: Sequence[Comparison] | None
    ) -> Prepared:
        """Its own comparisons, or others made of them, for the batches of a method."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """A study's data, tokenised once for all methods."""

    packed: Packed

    @property
    def comparisons(self) -> Sequence[Comparison]:
        """All of them."""
        return self.packed.comparisons

    def prepared(
        self, bench: Bench, method: Method, comparisons: Sequence[Comparison] | None
    ) -> Prepared:
        """As `Data` has it."""
        data = self.packed if comparisons is None else None
        if method.fills:
            every = bench.filled(data or bench.pack(comparisons), method.fills).trees
        else:
            every = bench.trees(comparisons) if data is None else data.trees
        trees = bench.fitting(every)
        return Prepared(trees, len(every) - len(trees))


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What a method is given.

    Attributes:
      bench: the base, its head, devices, and the shape of batches.
      data: to train on.
      validation: labelled as it is, of other prompts.
      rate, strength: the trial.
      epochs, seed: of training.
      steps: of each model, in place of epochs.
      flops: how much work the whole training may be; without it, it is all of its epochs.
      texts: that a method with text has beside its comparisons.
      run_dir: where models are kept and resumed; without it, in memory.
      watch: a model's figures, for the log of a run with a directory.
      kept: further options of `jaxrm.train.loop.fit`, for such a run.
    """

    bench: Bench
    data: Data
    validation: Packed
    rate: float
    strength: float | None
    epochs: int
    seed: int
    steps: int | None = None
    flops: float | None = None
    texts: Sequence[TokenTree] = ()
    run_dir: Path | None = None
    watch: Callable[[Model], Mapping[str, float]] | None = None
    kept: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def packed(self) -> Packed:
        """The data, to be read by a model. Raises ValueError where comparisons differ in K."""
        if isinstance(self.data, InMemory):
            return self.data.packed
        return self.bench.pack(self.data.comparisons)

    def train(self, method: Method) -> Trained:
        """What the method makes of the task."""
        return (method.train or one)(self, method)

    def fit(
        self,
        method: Method,
        comparisons: Sequence[Comparison] | None = None,
        *,
        name: str = "",
        share: float = 1.0,
        rate: float | None = None,
        seed: int | None = None,
        head_seed: int | None = None,
        params: Params | None = None,
    ) -> Model:
        """A model trained on the task's data, or on comparisons made of it.

        Args:
          name: of one of several models, for its directory.
          share: of the work that may be done, what this model may take.
          rate, seed: others than the task's.
          head_seed, params: where training begins, as for `Bench.points`.
        """
        bench, seed = self.bench, self.seed if seed is None else seed
        data = self.data.prepared(bench, method, comparisons)
        options = {"weights": data.weights, "prompts": data.prompts}
        loader = bench.loader(method, data.trees, seed, **options)
        steps, flops = loader.steps(self.epochs) if self.steps is None else self.steps, 0.0
        if not steps:
            problem = "the weights leave no comparison in an epoch: raise one, or the epochs"
            raise DataError(problem)
        options = {"rate": self.rate if rate is None else rate, "strength": self.strength}
        options |= {"seed": seed, "head_seed": head_seed, "params": params, "texts": self.texts}
        if self.run_dir is not None:
            kept = self._kept(method, steps)
            run_dir = self.run_dir / name
            fitted = bench.fit_in(run_dir, method, loader, steps=steps, **options, **kept)
        else:
            whole = loader.steps(self.epochs)
            per_step = self.epochs * bench.flops(method, data.trees) / whole
            if self.flops is not None:
                steps = max(1, round(share * self.flops / per_step))
            fitted, flops = bench.fit(method, data.trees, steps=steps, **options), steps * per_step
        return Model(bench, method, fitted, flops, data.dropped)

    def _kept(self, method: Method, steps: int) -> dict[str, Any]:
        kept = dict(self.kept)
        if self.watch is not None:

            def evaluate(model: RewardModel) -> Mapping[str, float]:
                at_step = Fitted(*transformer.split(model), steps=0)
                return self.watch(Model(self.bench, method, at_step))

            kept["evaluate"] = evaluate
            kept["eval_every"] = kept.get("eval_every") or max(1, steps // 10)
        return kept


def one(task: Task, method: Method) -> Trained:
    """One model, on what the method prepares."""
    model = task.fit(method, method.prepare(task) if method.prepare else None)
    return Trained(model.scores, [model], [Part(model.reward_model)])
