"""Where a study's small models are trained and read: one base, one head, one shape of batch.

Runs that differ in method, learning rate, data, length or seed start from the same parameters and
see the same comparisons in the same batches. Everything is in memory and on one device; a run that
is interrupted starts again. What several runs share (a compiled step, the base) is kept for the
life of the process.

    lab = Lab(toy.shipped_base())
    fitted = lab.fit(Recipe(), lab.trees(world.comparisons("train", 1000)), rate=3e-4, seed=seed)
    rewards = lab.read(fitted.params, lab.pack(held_out), {"rewards": heads.rewards})["rewards"]
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxrm import parallel
from jaxrm.data import chat, packing
from jaxrm.data.carried import REFERENCE
from jaxrm.data.comparison import Comparison
from jaxrm.data.loader import Loader
from jaxrm.data.packing import Ask, PackShape, TokenTree
from jaxrm.data.store import with_columns
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.huggingface import hub
from jaxrm.models import heads, transformer
from jaxrm.models.flops import forward_flops_of
from jaxrm.models.heads import HeadConfig
from jaxrm.read import packed
from jaxrm.read.packed import Packed, pack_alike, pair_shape, reading_shape
from jaxrm.read.reading import Reading
from jaxrm.study.recipe import Recipe, WithText
from jaxrm.train import short
from jaxrm.train.optimizer import OptimizerConfig, make_schedule
from jaxrm.train.short import Point, Start, Trainer
from jaxrm.train.state import Params

WARMUP = 0.03
TEXT_ROWS = 2
"""Rows of text in a batch that has text beside its comparisons."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A model at the end of its training.

    Attributes:
      params: all of it, in the host's memory.
      steps, tokens, seconds: of training, without padding and without the compilation.
    """

    params: Params
    steps: int
    tokens: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Lab:
    """A base and a head, and the shape of the batches in which models that start there are trained.

    Attributes:
      base: a directory in Hugging Face layout.
      head: of all models.
      rows, length: of a batch, and tokens of a row, which no comparison may exceed.
    """

    base: Path
    head: HeadConfig = HeadConfig()
    rows: int = 8
    length: int = 160

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The base's."""
        return _tokenizer(self.base)

    def start(self, seed: int) -> Start:
        """The base before training, with a head drawn from `seed`."""
        return _start(self.base, self.head, seed)

    def trees(self, comparisons: Sequence[Comparison]) -> list[TokenTree]:
        """Comparisons as tokens."""
        return chat.tokenize(comparisons, self.tokenizer)

    def fitting(self, trees: Sequence[TokenTree]) -> list[TokenTree]:
        """The trees that a row of training holds."""
        return [tree for tree in trees if packing.tree_length(tree) <= self.length]

    def pack(self, comparisons: Sequence[Comparison], ask: Ask = "none") -> Packed:
        """Comparisons of equally many responses each, packed to be read by many models."""
        return self.pack_trees(comparisons, self.trees(comparisons), ask)

    def pack_trees(
        self, comparisons: Sequence[Comparison], trees: Sequence[TokenTree], ask: Ask = "none"
    ) -> Packed:
        """`pack` of comparisons that are tokens already."""
        return pack_alike(comparisons, trees, reading_shape(self.rows, self.length, ask))

    def shape(self, recipe: Recipe) -> PackShape:
        """That of a recipe's batches."""
        shape = pair_shape(self.rows, self.length, recipe.ask, recipe.responses)
        carried = {name: getattr(recipe, name) for name in ("attributes", "steps", "columns")}
        return dataclasses.replace(shape, **carried)

    def steps(self, recipe: Recipe, trees: Sequence[TokenTree], epochs: int, seed: int) -> int:
        """Optimizer steps of that many epochs."""
        return self._loader(self.shape(recipe), trees, seed).steps(epochs)

    def train(
        self,
        recipe: Recipe,
        trees: Sequence[TokenTree],
        *,
        rate: float,
        strength: float | None = None,
        epochs: int = 1,
        seed: int = 0,
        params: Params | None = None,
        texts: Sequence[TokenTree] = (),
        steps: int | None = None,
        points: int = 1,
    ) -> Iterator[Point]:
        """The model at each of `points` equal parts of its training.

        The rate rises over 3 % of the steps and falls as a cosine.

        Args:
          trees: to train on.
          rate: the peak learning rate.
          strength: of the recipe.
          seed: of the head where no `params` are given, of the order, and of dropout.
          params: where training begins, in the host's memory.
          texts: what a recipe with text has beside the comparisons.
          steps: in place of `epochs`.

        Raises:
          ValueError: a tree does not fit an empty row.
          DataError: a tree lacks what the recipe reads, or has more responses than it takes.
        """
        tools = _trainer(self, recipe, strength)
        loader = self._loader(self.shape(recipe), trees, seed)
        batches: Iterator[Any] = loader.batches(0)
        if recipe.text:
            beside = self._loader(self.text_shape, texts, seed)
            batches = map(WithText, batches, beside.batches(0))
        count = loader.steps(epochs) if steps is None else steps
        schedule = make_schedule(OptimizerConfig(learning_rate=rate, warmup=WARMUP), count)
        rates = np.asarray(schedule(np.arange(count)), np.float32)
        start = self.start(seed).params if params is None else params
        with jax.set_mesh(mesh()):
            yield from short.train(tools, start, batches, rates, points=points, seed=seed)

    def fit(self, recipe: Recipe, trees: Sequence[TokenTree], **options: Any) -> Fitted:
        """The model at the end of its training; `options` are those of `train`."""
        (point,) = self.train(recipe, trees, **options)
        return Fitted(jax.device_get(point.params), point.step, point.tokens, point.seconds)

    def flops(self, recipe: Recipe, trees: Sequence[TokenTree]) -> float:
        """Useful floating-point operations of one epoch, without the text beside it.

        Where the trunk is frozen there is no backward pass to speak of.
        """
        config = hub.read_config(self.base)
        layers = transformer.declare(config, None)["layers"]
        passes = 3 if any(recipe.trains(f"layers/{name}") for name in layers) else 1
        return passes * forward_flops_of(config, trees, recipe.ask)

    def read(
        self, params: Params, data: Packed, readings: Mapping[str, Reading]
    ) -> dict[str, Float[np.ndarray, "n K ..."]]:
        """Float32 [n, K, ...] for each of the readings (see `jaxrm.read.reading`), in order."""
        with jax.set_mesh(mesh()):
            return packed.read(self.start(0).structure, params, data, readings)

    def with_references(self, data: Packed) -> Sequence[TokenTree]:
        """The trees with the base's own log-probs of their responses: DPO's reference.

        Args:
          data: packed with the tokens of all responses asked for.
        """
        logps = self.read(self.start(0).params, data, {"logps": heads.response_logps})["logps"]
        return with_columns(data.trees, {REFERENCE.name: logps})

    @property
    def text_shape(self) -> PackShape:
        """That of the text in a recipe's batches."""
        return reading_shape(TEXT_ROWS, self.length, "all")

    def _loader(self, shape: PackShape, trees: Sequence[TokenTree], seed: int) -> Loader:
        return Loader(trees, shape, mesh=mesh(), seed=seed)


@functools.cache
def mesh() -> Mesh:
    """One device: a run has a process to itself, and is too small for two."""
    return parallel.make_mesh(devices=jax.devices()[:1])


@functools.cache
def _tokenizer(base: Path) -> ChatTokenizer:
    return load_tokenizer(base)


@functools.lru_cache(maxsize=8)
def _start(base: Path, head: HeadConfig, seed: int) -> Start:
    logging.getLogger(hub.__name__).setLevel(logging.ERROR)  # that a head is fresh is no news
    return short.load(base, head, seed)


@functools.cache
def _trainer(lab: Lab, recipe: Recipe, strength: float | None) -> Trainer:
    """One compilation for all learning rates, data, lengths of run and seeds."""
    batch: Any = packing.pack([], [], lab.shape(recipe))
    if recipe.text:
        batch = WithText(batch, packing.pack([], [], lab.text_shape))
    with jax.set_mesh(mesh()):
        return short.trainer(
            lab.start(0),
            recipe.loss(strength),
            functools.partial(recipe.optimizer, strength=strength),
            batch,
            trainable=recipe.trains,
            mesh=mesh(),
        )
