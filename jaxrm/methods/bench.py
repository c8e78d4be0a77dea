"""Where models are trained: a base, a head's start, what trains, devices, and the shape of batches.

Runs that differ in method, learning rate, data, length or seed start from the same parameters and
see the same comparisons in the same batches. With a run directory a training checkpoints, logs and
resumes exactly; without one it is in memory, and what several runs share (a compiled step, the
base) is kept for the life of the process:

    bench = Bench(toy.shipped_base())
    fitted = bench.fit(METHODS["bt"], bench.trees(comparisons), rate=3e-4, seed=seed)
    rewards = bench.read(fitted.params, bench.pack(held_out), {"rewards": heads.rewards})["rewards"]
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from jaxrm import parallel
from jaxrm.data import chat, packing, planning
from jaxrm.data.carried import Column
from jaxrm.data.comparison import Comparison
from jaxrm.data.loader import Loader
from jaxrm.data.packing import Ask, PackedBatch, PackShape, TokenTree
from jaxrm.data.planning import pair_shape, reading_shape
from jaxrm.data.store import with_columns
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.huggingface import hub
from jaxrm.methods.method import Fill, Method
from jaxrm.models import transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.flops import forward_flops_of
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.parallel import ShardingRules
from jaxrm.read import packed
from jaxrm.read.packed import Packed
from jaxrm.read.reading import Reading
from jaxrm.train import loop
from jaxrm.train.loop import Point, Trainer
from jaxrm.train.optimizer import AtRate, OptimizerConfig, learning_rates, make_optimizer
from jaxrm.train.state import Params

TEXT_ROWS = 2
"""Rows of text in a batch that has text beside its comparisons."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithText:
    """Comparisons, and text beside them."""

    pairs: PackedBatch
    text: PackedBatch

    @property
    def comparison(self) -> jax.Array:
        """Of all tokens, -1 on padding: what the train step counts."""
        return jnp.concatenate([self.pairs.comparison.ravel(), self.text.comparison.ravel()])


@dataclasses.dataclass(frozen=True)
class Together:
    """Two loaders as one of `WithText`."""

    pairs: Loader
    text: Loader

    def batches(self, start: int) -> Iterator[WithText]:
        """As `Loader.batches`."""
        return map(WithText, self.pairs.batches(start), self.text.batches(start))


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A model at the end of its training.

    Attributes:
      structure, params: of the model; the arrays are in the host's memory, or on the devices after
        a run with a directory.
      steps: of the optimizer.
      tokens, seconds: of training in memory, without padding and without the compilation.
    """

    structure: nnx.GraphDef
    params: Params
    steps: int
    tokens: int = 0
    seconds: float = 0.0


def of_length(bench: Bench, method: Method, trees: Sequence[TokenTree]) -> PackShape:
    """A shape of batches that follows from the row's length, so that studies share compilations."""
    most = max(len(tree.branches) for tree in trees)
    return dataclasses.replace(
        pair_shape(bench.rows, bench.length, method.ask, most),
        attributes=len(trees[0].attributes[0]) if "attributes" in method.columns else 0,
        # A step takes at least five tokens of a row.
        steps=bench.length // 5 if "steps" in method.columns else 0,
        columns=tuple(column_of(trees[0], name) for name in column_names(method)),
    )


def fitted(
    bench: Bench, method: Method, trees: Sequence[TokenTree], *, ask: Ask | None = None
) -> PackShape:
    """A shape of batches that is fitted to the data: less padding, a compilation for each set.

    Args:
      ask: in place of the method's, so that methods which ask differently see the same batches.
    """
    shape = planning.fit_shape(trees, rows=bench.rows, length=bench.length, ask=ask or method.ask)
    for name in column_names(method):
        shape.require(name, "the method")
    return shape


def column_names(method: Method) -> tuple[str, ...]:
    """The columns that a method's batches carry."""
    named = [name for name in method.columns if name not in ("attributes", "steps")]
    return (*named, *(fill.name for fill in method.fills))


def column_of(tree: TokenTree, name: str) -> Column:
    """What a tree's column is; one that it lacks is taken for numbers of responses."""
    values = tree.columns.get(name)
    count = len(tree.branches)
    return Column(name) if values is None else Column.of_values(name, values, count)


@dataclasses.dataclass(frozen=True)
class Bench:
    """A base, a head, and how models that start there are trained and read.

    Attributes:
      base: a directory in Hugging Face layout.
      head: of all models, but for the number of its outputs, which is the method's.
      rows, length: of a micro-batch, and tokens of a row, which no comparison may exceed.
      accumulate: micro-batches of an optimizer step.
      optimizer: its rate is given with each training.
      train: all parameters, LoRA and the head, or the head alone; of those, what the method trains.
      lora: with `train="lora"`.
      compute: dtype and rematerialisation; what does not train is kept in its dtype.
      mesh: devices; one without it.
      shape: of batches, by the bench, the method and the trees: `of_length` or `fitted`.
      chat_template: a file, for a base that brings none.
      day: that the template writes, if it writes one.
    """

    base: Path
    head: HeadConfig = HeadConfig()
    rows: int = 8
    length: int = 160
    accumulate: int = 1
    optimizer: OptimizerConfig = OptimizerConfig(warmup=0.03, clip=5.0)
    train: Literal["all", "lora", "head"] = "all"
    lora: LoraConfig = LoraConfig()
    compute: Compute = Compute()
    mesh: Mesh | None = None
    rules: ShardingRules = ShardingRules()
    shape: Callable[[Bench, Method, Sequence[TokenTree]], PackShape] = of_length
    chat_template: Path | None = None
    day: date | None = None

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The base's."""
        return _tokenizer(self.base, self.chat_template, self.day)

    @property
    def config(self) -> ModelConfig:
        """The base's."""
        return hub.read_config(self.base)

    @property
    def devices(self) -> Mesh:
        """What models lie on."""
        return one_device() if self.mesh is None else self.mesh

    def load(self, seed: int, outputs: int = 1) -> RewardModel:
        """The base on the devices, with a head and LoRA drawn from `seed`."""
        return hub.load(
            self.base,
            dataclasses.replace(self.head, outputs=outputs),
            self.lora if self.train == "lora" else None,
            compute=self.compute,
            mesh=self.devices,
            rules=self.rules,
            seed=seed,
            # Whatever trains is float32.
            dtype="float32" if self.train == "all" else self.compute.dtype,
        )

    def start(self, seed: int, outputs: int = 1) -> Params:
        """The parameters before training, in the host's memory, which stay as they are."""
        return _start(self, seed, outputs)[2]

    def structure(self, outputs: int = 1) -> nnx.GraphDef:
        """That of models with so many outputs."""
        return _start(self, 0, outputs)[0]

    def trains(self, method: Method, path: str) -> bool:
        """Whether the parameter at a path trains."""
        prefixes = {"all": ("",), "lora": ("reward_head", "lora"), "head": ("reward_head",)}
        return path.startswith(prefixes[self.train]) and method.trains(path)

    # Data

    def trees(self, comparisons: Sequence[Comparison]) -> list[TokenTree]:
        """Comparisons as tokens."""
        return chat.tokenize(comparisons, self.tokenizer)

    def texts(self, comparisons: Sequence[Comparison]) -> list[TokenTree]:
        """Text as tokens, in parts that a row holds."""
        return [
            part for tree in self.trees(comparisons) for part in packing.split(tree, self.length)
        ]

    def fitting(self, trees: Sequence[TokenTree]) -> list[TokenTree]:
        """The trees that a row of training holds."""
        return [tree for tree in trees if packing.tree_length(tree) <= self.length]

    def pack(self, comparisons: Sequence[Comparison], ask: Ask = "none") -> Packed:
        """Comparisons packed to be read by many models."""
        return self.pack_trees(comparisons, self.trees(comparisons), ask)

    def pack_trees(
        self,
        comparisons: Sequence[Comparison],
        trees: Sequence[TokenTree],
        ask: Ask = "none",
        steps: int = 0,
    ) -> Packed:
        """`pack` of comparisons that are tokens already, with so many steps in a row."""
        options = {"rows": self.rows, "row_length": self.length, "ask": ask, "steps": steps}
        return packed.pack(comparisons, trees, self.config, mesh=self.devices, **options)

    def filled(self, data: Packed, fills: Sequence[Fill]) -> Packed:
        """The same comparisons with the columns that the base fills in."""
        for fill in fills:
            data = _filled(self, data, fill)
        return data

    # Training

    def points(
        self,
        method: Method,
        trees: Sequence[TokenTree],
        *,
        rate: float,
        strength: float | None = None,
        epochs: int = 1,
        steps: int | None = None,
        seed: int = 0,
        head_seed: int | None = None,
        params: Params | None = None,
        texts: Sequence[TokenTree] = (),
        count: int = 1,
    ) -> Iterator[Point]:
        """The model at each of `count` equal parts of its training in memory.

        Args:
          trees: to train on, with all columns that the method reads.
          rate: the peak learning rate.
          strength: of the method.
          steps: in place of `epochs`.
          seed: of the order, of dropout, and of the head's draw where `head_seed` is not given.
          params: where training begins in place of the base and that draw, all groups of
            parameters or some.
          texts: what a method with text has beside the comparisons.

        Raises:
          ValueError: a tree does not fit an empty row.
          DataError: a tree lacks what the method reads.
        """
        loader = self.loader(method, trees, seed)
        both = Together(loader, self._text(texts, seed)) if method.text else loader
        rates = self.rates(rate, loader.steps(epochs) if steps is None else steps)
        start = self.start(seed if head_seed is None else head_seed, method.outputs)
        start = start | (params or {})
        trainer = _trainer(self, of_training(method), strength, loader.shape)
        with jax.set_mesh(self.devices):
            yield from loop.points(trainer, start, both.batches(0), rates, count=count, seed=seed)

    def fit(self, method: Method, trees: Sequence[TokenTree], **options: Any) -> Fitted:
        """The model at the end of its training in memory; `options` as for `points`."""
        (point,) = self.points(method, trees, **options)
        params, structure = jax.device_get(point.params), self.structure(method.outputs)
        return Fitted(structure, params, point.step, point.tokens, point.seconds)

    def fit_in(
        self,
        run_dir: Path,
        method: Method,
        loader: Loader,
        *,
        rate: float,
        strength: float | None,
        steps: int,
        seed: int,
        head_seed: int | None = None,
        params: Params | None = None,
        texts: Sequence[TokenTree] = (),
        **kept: Any,
    ) -> Fitted:
        """The model at the end of a training that is kept in a directory, and resumed.

        Args:
          loader: as `loader` makes it.
          rate, strength, seed, head_seed, params, texts: as for `points`.
          kept: further options of `jaxrm.train.loop.fit`.
        """
        model = self.load(seed if head_seed is None else head_seed, method.outputs)
        if params:
            structure, fresh = transformer.split(model)
            replaced = {group: fresh[group] for group in params}
            placed = jax.tree.map(
                lambda new, old: jax.device_put(new, old.sharding), dict(params), replaced
            )
            model = transformer.merge(structure, fresh | placed)
        model = loop.fit(
            model,
            method.loss(strength),
            Together(loader, self._text(texts, seed)) if method.text else loader,
            self.optimizer_at(method, strength),
            self.rates(rate, steps),
            run_dir=run_dir,
            mesh=self.devices,
            rules=self.rules,
            trainable=functools.partial(self.trains, method),
            seed=seed,
            **kept,
        )
        return Fitted(*transformer.split(model), steps)

    def _text(self, texts: Sequence[TokenTree], seed: int) -> Loader:
        shape = reading_shape(TEXT_ROWS, self.length, "all")
        return Loader(texts, shape, mesh=self.devices, seed=seed, accumulate=self.accumulate)

    def loader(
        self, method: Method, trees: Sequence[TokenTree], seed: int, **options: Any
    ) -> Loader:
        """The batches that a method trains on; `options` as for `Loader`."""
        shape = self.shape(self, method, trees)
        options |= {"accumulate": self.accumulate}
        return Loader(trees, shape, mesh=self.devices, seed=seed, **options)

    def rates(self, peak: float, steps: int) -> Float[np.ndarray, " steps"]:
        """The learning rate of each step of a training."""
        return learning_rates(dataclasses.replace(self.optimizer, learning_rate=peak), steps)

    def optimizer_at(self, method: Method, strength: float | None) -> AtRate:
        """The optimizer of a method."""
        return make_optimizer(self.optimizer, *method.pulls(strength))

    def flops(self, method: Method, trees: Sequence[TokenTree]) -> float:
        """Useful floating-point operations of one epoch, without the text beside it.

        Where the trunk is frozen there is no backward pass to speak of.
        """
        layers = transformer.declare(self.config, None)["layers"]
        trunk = any(self.trains(method, f"layers/{name}") for name in layers)
        passes = 3 if trunk or self.train == "lora" else 1
        return passes * forward_flops_of(self.config, trees, method.ask)

    # Reading

    def read(
        self,
        params: Params,
        data: Packed,
        readings: Mapping[str, Reading],
        structure: nnx.GraphDef | None = None,
    ) -> dict[str, Float[np.ndarray, "n K ..."]]:
        """Float32 [n, K, ...] for each of the readings (see `jaxrm.read`), in order.

        Args:
          structure: of a model with another head than one output.
        """
        with jax.set_mesh(self.devices):
            return packed.read(structure or self.structure(), params, data, readings)


def of_training(method: Method) -> Method:
    """The method with only what its train step is made of, so that others share its compilation."""
    return Method(
        "",
        loss=method.loss,
        outputs=method.outputs,
        text=method.text,
        trains=method.trains,
        pulls=method.pulls,
    )


@functools.cache
def one_device() -> Mesh:
    """One device: a run of a study has a process to itself, and is too small for two."""
    return parallel.make_mesh(devices=jax.devices()[:1])


@functools.cache
def _tokenizer(base: Path, chat_template: Path | None, day: date | None) -> ChatTokenizer:
    return load_tokenizer(base, chat_template, day=day)


@functools.lru_cache(maxsize=8)
def _start(bench: Bench, seed: int, outputs: int) -> tuple[nnx.GraphDef, Params, Params]:
    """Structure, axes, and parameters in the host's memory."""
    logging.getLogger(hub.__name__).setLevel(logging.WARNING)  # that a head is fresh is no news
    model = bench.load(seed, outputs)
    structure, params = transformer.split(model)
    return structure, transformer.axes(model), jax.tree.map(np.array, params)


@functools.cache
def _trainer(bench: Bench, method: Method, strength: float | None, shape: PackShape) -> Trainer:
    """One compilation for all learning rates, data of a shape, lengths of run and seeds."""
    structure, axes, params = _start(bench, 0, method.outputs)
    return Trainer(
        structure,
        axes,
        params,
        method.loss(strength),
        bench.optimizer_at(method, strength),
        mesh=bench.devices,
        rules=bench.rules,
        trainable=functools.partial(bench.trains, method),
    )


@functools.lru_cache(maxsize=32)
def _filled(bench: Bench, data: Packed, fill: Fill) -> Packed:
    whole = bench.pack_trees(data.comparisons, data.trees, fill.ask)
    values = bench.read(bench.start(0), whole, {fill.name: fill.reading})[fill.name]
    trees = with_columns(data.trees, {fill.name: values})
    return bench.pack_trees(data.comparisons, trees, fill.ask)
