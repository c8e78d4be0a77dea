"""Model directories in Hugging Face's layout: read straight into sharded arrays, and written.

Neither way needs torch. Weights are transposed on the devices, where it is nearly free, and the
host never holds more than one tensor of the file at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from jaxrm.errors import ModelFileError
from jaxrm.files import replacing
from jaxrm.models import heads, tensorfile, transformer
from jaxrm.models.adapter import CONFIG as ADAPTER_CONFIG
from jaxrm.models.adapter import read as read_adapter
from jaxrm.models.config import ModelConfig
from jaxrm.models.heads import HeadConfig
from jaxrm.models.layout import (
    CLASS_PREFIX,
    EMBEDDING,
    LM_HEAD,
    Layout,
    Stored,
    Tensors,
    check_replaceable,
    check_tensors,
    one_layer,
    read_json,
    stored_head,
    stored_layout,
)
from jaxrm.models.lora import LoraConfig
from jaxrm.models.parameters import Parameter, Tree, initialise, shapes
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.parallel import ShardingRules, replicated, shard_spec

log = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """Whatever writes itself into a directory."""

    def save_pretrained(self, directory: str) -> Any:
        """Writes the tokenizer's files."""


def load(
    directory: str | Path,
    head: HeadConfig | None,
    lora: LoraConfig | None = None,
    *,
    adapter: str | Path | None = None,
    compute: Compute | None = None,
    mesh: Mesh | None = None,
    rules: ShardingRules | None = None,
    seed: int = 0,
    dtype: str = "float32",
) -> RewardModel:
    """Reads a model from `config.json` and safetensors, one file or several with an index.

    A directory with a reward head (`score.weight`, or GRM's `v_head.summary.*`) brings its own; one
    without gets a fresh head drawn from `seed`, and the log says so.

    Args:
      head: the reward head; None takes the one in the directory.
      lora: low-rank updates to train beside the weights, fresh from `seed`.
      adapter: a directory with such updates, in PEFT's or GRM's layout, and perhaps a reward head
        that was trained with them and takes the place of the directory's own.
      mesh, rules: where parameters live; each device reads its own part of the files.
      dtype: of the parameters, apart from the reward head and LoRA, which are float32.

    Raises:
      ModelFileError: something is missing, extra, misshapen, truncated, in a pickle, of an
        architecture that is not implemented, or the stored head is another one than `head`.
      ValueError: both `lora` and `adapter` are given.
    """
    if adapter is not None and lora is not None:
        raise ValueError("an adapter brings its own LoRA: give one of the two")
    directory, rules = Path(directory), rules or ShardingRules()
    config_file = directory / "config.json"
    if not config_file.exists() and (directory / ADAPTER_CONFIG).exists():
        raise ModelFileError(
            f"{directory} is a LoRA adapter: give its base model's directory here, and this one as "
            "the adapter"
        )
    if not config_file.exists():
        raise ModelFileError(
            f"{config_file} does not exist: give a directory in Hugging Face's layout, downloaded "
            "before"
        )
    config = ModelConfig.from_hf(read_json(config_file), str(config_file))
    tensors = _open(directory)
    base_head = stored_head(tensors)
    in_base = stored_layout(transformer.declare(config, base_head), base_head)
    check_tensors(directory, tensors, in_base, ignored=_second_copy(tensors, in_base))

    brought: Tree = {}
    held_head, head_from = base_head, directory
    if adapter is not None:
        read_from = read_adapter(adapter, config)
        lora, brought["lora"] = read_from.lora, read_from.update
        if read_from.head is not None:
            held_head, head_from = read_from.head, Path(adapter)
            brought["reward_head"] = read_from.head_arrays
    head = _choose_head(head_from, config, head, held_head)
    declared = transformer.declare(config, head, lora)
    fresh: Tree = {}
    if held_head is None:
        log.warning("%s holds no reward head: a fresh one is drawn from seed %d", directory, seed)
        fresh["reward_head"] = declared["reward_head"]
    if lora is not None and adapter is None:
        fresh["lora"] = declared["lora"]

    read = functools.partial(_read, tensors, mesh=mesh, rules=rules)
    params = traverse_util.unflatten_dict(
        {
            path: read(stored, parameter, "float32" if path.startswith("reward_head") else dtype)
            for path, (stored, parameter) in in_base.items()
            if path.split("/")[0] not in brought
        },
        sep="/",
    )
    if fresh:
        placement = transformer.placements(fresh, mesh, rules)
        params |= jax.jit(functools.partial(initialise, fresh), out_shardings=placement)(seed)
    if brought:
        of_brought = {name: declared[name] for name in brought}
        params |= jax.device_put(brought, transformer.placements(of_brought, mesh, rules))
    return RewardModel(config, head, lora, compute=compute or Compute(), params=params)


def save(
    model: RewardModel,
    directory: str | Path,
    tokenizer: Tokenizer | None = None,
    dtype: str | None = None,
) -> None:
    """Writes the model as a directory that `load` and Hugging Face's classes read.

    A linear head makes a `...ForSequenceClassification`, an MLP head GRM's layout, no head a
    `...ForCausalLM`. LoRA is merged into the weights. The directory appears whole or not at all, in
    the place of a model directory that may be there. In a run of several processes each must call
    this; the first one writes.

    Args:
      dtype: of the stored trunk, by default the parameters' own. A reward head stays float32.

    Raises:
      ModelFileError: there is something else than a model directory at `directory`, or its
        `config.json` cannot express the model.
    """
    directory, model = Path(directory), model.merged()
    check_replaceable(directory, "config.json", "model directory")
    dtype = dtype or str(model.embedding[...].dtype)
    config = _config_json(model, dtype)
    tensors = _tensors_to_write(model, dtype)
    arrays = _gather(model, tensors)
    if jax.process_index() == 0:
        with replacing(directory) as draft:
            draft.mkdir()
            (draft / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
            layout = {name: (jnp.dtype(t.dtype), t.shape) for name, t in tensors.items()}
            tensorfile.write(draft / "model.safetensors", layout, arrays)
            if tokenizer is not None:
                tokenizer.save_pretrained(str(draft))
    else:
        # Gathering is collective: every process takes part, the first one writes.
        for _ in arrays:
            pass
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"saved {directory}")


def _open(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor of the directory's safetensors by name, memory-mapped."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.exists():
        return tensorfile.read(single)
    if not index.exists():
        pickles = [p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth")]
        if pickles:
            raise ModelFileError(
                f"{directory} holds its weights in a pickle ({', '.join(sorted(pickles))}), which "
                "can run any code when it is read: save the model again as safetensors"
            )
        raise ModelFileError(f"{directory} holds no model.safetensors, nor an index of several")
    weight_map = read_json(index).get("weight_map")
    named = isinstance(weight_map, dict) and all(isinstance(f, str) for f in weight_map.values())
    if not named:
        raise ModelFileError(f"{index}: weight_map is missing or does not map names to files")
    files = {name: tensorfile.read(directory / name) for name in sorted(set(weight_map.values()))}
    for name, file in weight_map.items():
        if name not in files[file]:
            raise ModelFileError(f"{index}: {file} should hold {name}, but does not")
    return {name: tensor for tensors in files.values() for name, tensor in tensors.items()}


def _choose_head(
    directory: Path, config: ModelConfig, asked: HeadConfig | None, stored: HeadConfig | None
) -> HeadConfig:
    if asked is None and stored is None:
        raise ModelFileError(
            f"{directory} holds no reward head (score.weight or v_head.summary.*): it is "
            "a language model, from which a reward model can be trained, but not one yet"
        )
    if asked is None or stored is None:
        return asked or stored
    sizes = [shapes(heads.declare(head, config.hidden_size)) for head in (asked, stored)]
    if sizes[0] != sizes[1]:
        raise ModelFileError(
            f"{directory} holds the reward head of {stored}, but one of {asked} was asked for: ask "
            "for the same, or start from a directory without one"
        )
    return asked


def _second_copy(tensors: Tensors, layout: Layout) -> set[str]:
    """The language-model head of a file, where it is the embedding once more."""
    tied = [tensors.get(name) for name in (EMBEDDING, LM_HEAD)]
    twice = "lm_head" not in layout and all(tensor is not None for tensor in tied)
    return {LM_HEAD} if twice and _equal(*tied) else set()


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two tensors are the same bytes, compared in place."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.reshape(-1).view(np.uint8).data == right.reshape(-1).view(np.uint8).data


def _read(
    tensors: Tensors,
    stored: Stored,
    parameter: Parameter,
    dtype: str,
    *,
    mesh: Mesh | None,
    rules: ShardingRules,
) -> jax.Array:
    """One parameter: its tensors put on the devices in pieces, stacked and transposed there."""
    one = one_layer(parameter)
    shape = tuple(one.shape[axis] for axis in stored.order)
    if mesh is None:
        target = None
        put: Callable[[np.ndarray], jax.Array] = jnp.asarray
    else:
        target = NamedSharding(mesh, shard_spec(parameter.axes, parameter.shape, mesh, rules))
        axes = tuple(one.axes[axis] for axis in stored.order)
        source = NamedSharding(mesh, shard_spec(axes, shape, mesh, rules))

        def put(tensor: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(
                shape, source, lambda index: np.ascontiguousarray(tensor[index])
            )

    def assemble(pieces: list[jax.Array]) -> jax.Array:
        return (pieces[0] if one is parameter else jnp.stack(pieces)).astype(dtype)

    inverse = tuple(stored.order.index(axis) for axis in range(len(shape)))
    names = stored.names(parameter)
    pieces = [_transpose(put(tensors[name].reshape(shape)), inverse) for name in names]
    # JAX may have taken over the memory map itself; what a jitted function returns is its own.
    return jax.jit(assemble, out_shardings=target)(pieces)


@functools.partial(jax.jit, static_argnums=1)
def _transpose(x: jax.Array, order: tuple[int, ...]) -> jax.Array:
    """By itself, because on a CPU XLA runs it several times slower fused with its neighbours."""
    return x.transpose(order)


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """One tensor to be written: a layer (None: all) of the parameter at `path`, axes in `order`."""

    path: str
    layer: int | None
    order: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str


def _tensors_to_write(model: RewardModel, dtype: str) -> dict[str, _Tensor]:
    """By name, and wider types first, which keeps every tensor of the file aligned."""
    head = model.head_config
    tensors: dict[str, _Tensor] = {}
    for path, (stored, parameter) in stored_layout(
        transformer.declare(model.config, head), head
    ).items():
        stacked = parameter.axes[0] == "layers"
        kind = "float32" if path.startswith("reward_head") else dtype
        for i, name in enumerate(stored.names(parameter)):
            layer = i if stacked else None
            tensors[name] = _Tensor(path, layer, stored.order, stored.shape(parameter), kind)
    widest_first = sorted(tensors.items(), key=lambda item: -jnp.dtype(item[1].dtype).itemsize)
    return dict(widest_first)


def _gather(model: RewardModel, tensors: Mapping[str, _Tensor]) -> Iterator[np.ndarray]:
    """The tensors one by one, each made whole from the devices that share it."""
    params = traverse_util.flatten_dict(transformer.split(model)[1], sep="/")

    take_layer = jax.jit(lambda values, layer: values[layer])

    @functools.partial(jax.jit, static_argnums=(1, 2, 3))
    def whole(
        values: jax.Array, shape: tuple[int, ...], dtype: str, everywhere: NamedSharding | None
    ) -> jax.Array:
        values = values.reshape(shape).astype(dtype)
        if everywhere is None:
            return values
        return jax.lax.with_sharding_constraint(values, everywhere)

    for tensor in tensors.values():
        values = params[tensor.path]
        sharded = isinstance(values.sharding, NamedSharding)
        everywhere = replicated(values.sharding.mesh) if sharded else None
        one = values if tensor.layer is None else take_layer(values, tensor.layer)
        yield np.asarray(
            whole(_transpose(one, tensor.order), tensor.shape, tensor.dtype, everywhere)
        )


def _config_json(model: RewardModel, dtype: str) -> dict[str, Any]:
    """The model's `config.json`, with what tells a reader which head to expect."""
    head, prefix = model.head_config, CLASS_PREFIX[model.config.model_type]
    config = model.config.to_hf(dtype)
    for name in ("id2label", "label2id", "num_labels", "problem_type"):
        config.pop(name, None)
    for name in ("vhead_layer_type", "vhead_num_neurons", "vhead_num_layers"):
        config.pop(name, None)
    if head is None:
        return config | {"architectures": [f"{prefix}ForCausalLM"]}
    if head.kind == "mlp":
        return config | {
            "architectures": [f"{prefix}ForCausalLM"],
            "vhead_layer_type": "mlp" if head.layers else "linear",
            "vhead_num_neurons": head.hidden,
            "vhead_num_layers": head.layers,
        }
    pad, eos = model.config.pad_token_id, model.config.eos_token_id
    if pad is None or pad in (eos if isinstance(eos, tuple) else (eos,)):
        log.warning(
            "pad_token_id is %s and eos_token_id %s: transformers reads a reward at the last token "
            "that is not padding, so give the tokenizer a padding token of its own",
            pad,
            eos,
        )
    labels = [f"LABEL_{i}" for i in range(head.outputs)]
    return config | {
        "architectures": [f"{prefix}ForSequenceClassification"],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "num_labels": head.outputs,
        # Servers put a sigmoid on a one-label classifier unless told that it is a regression.
        "problem_type": "regression",
    }
