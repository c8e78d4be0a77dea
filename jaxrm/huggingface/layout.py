"""Where Hugging Face's files keep each of our parameters: names, and the order of axes.

This is the one table of names, and what must hold of a directory before it is read or written by
it. `hub` does so with model directories, `adapter` with the low-rank updates beside them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from jaxrm.errors import ModelFileError
from jaxrm.files import replacing
from jaxrm.models.heads import HeadConfig
from jaxrm.models.parameters import Parameter, Tree

Tensors = Mapping[str, np.ndarray]
"""Memory-mapped tensors by their names in the files."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where files keep one of our parameters.

    `name` has {} for the layer's number. `dims` gives each stored dimension as the axes of ours
    (not counting the layers) that it runs over: torch's linear layers are [out, in], with the
    heads flattened.
    """

    name: str
    dims: tuple[tuple[int, ...], ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Our axes in the order in which the file runs through them."""
        return sum(self.dims, ())

    def names(self, parameter: Parameter) -> list[str]:
        """The stored tensors that make up the parameter."""
        if parameter.axes[0] != "layers":
            return [self.name]
        return [self.name.format(layer) for layer in range(parameter.shape[0])]

    def shape(self, parameter: Parameter) -> tuple[int, ...]:
        """The shape of each of them."""
        ours = one_layer(parameter).shape
        return tuple(math.prod(ours[axis] for axis in dim) for dim in self.dims)


_VECTOR, _SAME, _TRANSPOSED = ((0,),), ((0,), (1,)), ((1,), (0,))
_INTO_HEADS, _OUT_OF_HEADS, _FLAT = ((1, 2), (0,)), ((2,), (0, 1)), ((0, 1),)

_NAMES = {
    "embedding": Stored("model.embed_tokens.weight", _SAME),
    "layers/attention_norm": Stored("model.layers.{}.input_layernorm.weight", _VECTOR),
    "layers/query": Stored("model.layers.{}.self_attn.q_proj.weight", _INTO_HEADS),
    "layers/key": Stored("model.layers.{}.self_attn.k_proj.weight", _INTO_HEADS),
    "layers/value": Stored("model.layers.{}.self_attn.v_proj.weight", _INTO_HEADS),
    "layers/query_bias": Stored("model.layers.{}.self_attn.q_proj.bias", _FLAT),
    "layers/key_bias": Stored("model.layers.{}.self_attn.k_proj.bias", _FLAT),
    "layers/value_bias": Stored("model.layers.{}.self_attn.v_proj.bias", _FLAT),
    "layers/query_norm": Stored("model.layers.{}.self_attn.q_norm.weight", _VECTOR),
    "layers/key_norm": Stored("model.layers.{}.self_attn.k_norm.weight", _VECTOR),
    "layers/output": Stored("model.layers.{}.self_attn.o_proj.weight", _OUT_OF_HEADS),
    "layers/mlp_norm": Stored("model.layers.{}.post_attention_layernorm.weight", _VECTOR),
    "layers/gate": Stored("model.layers.{}.mlp.gate_proj.weight", _TRANSPOSED),
    "layers/up": Stored("model.layers.{}.mlp.up_proj.weight", _TRANSPOSED),
    "layers/down": Stored("model.layers.{}.mlp.down_proj.weight", _TRANSPOSED),
    "final_norm": Stored("model.norm.weight", _VECTOR),
    "lm_head": Stored("lm_head.weight", _SAME),
}

# With norms on both sides, the name that others use for the norm before the MLP means the one after
# attention.
_POST_NORMS = {
    "layers/attention_post_norm": Stored(
        "model.layers.{}.post_attention_layernorm.weight", _VECTOR
    ),
    "layers/mlp_norm": Stored("model.layers.{}.pre_feedforward_layernorm.weight", _VECTOR),
    "layers/mlp_post_norm": Stored("model.layers.{}.post_feedforward_layernorm.weight", _VECTOR),
}

EMBEDDING, LM_HEAD = _NAMES["embedding"].name, _NAMES["lm_head"].name


Layout = dict[str, tuple[Stored, Parameter]]
"""By the path of each parameter in a model: where a file keeps it."""


def stored_layout(declared: Tree, head: HeadConfig | None) -> Layout:
    """For every declared parameter, by path, where the files keep it."""
    flat = traverse_util.flatten_dict(declared, sep="/")
    names = _NAMES | (_POST_NORMS if "layers/mlp_post_norm" in flat else {})
    if head is not None and head.kind == "linear":
        names["reward_head/weight"] = Stored("score.weight", _TRANSPOSED)
    elif head is not None:
        for i in range(head.layers + 1):
            # A torch Sequential counts the activations between its linear layers.
            name = f"v_head.summary.{2 * i}" if head.layers else "v_head.summary"
            names[f"reward_head/weight_{i}"] = Stored(f"{name}.weight", _TRANSPOSED)
            names[f"reward_head/bias_{i}"] = Stored(f"{name}.bias", _VECTOR)
    return {path: (names[path], parameter) for path, parameter in flat.items()}


def stored_head(tensors: Tensors) -> HeadConfig | None:
    """The reward head that the directory holds."""

    def outputs(name: str) -> int:
        if tensors[name].ndim != 2:
            raise ModelFileError(f"{name} has shape {tensors[name].shape}, not [outputs, inputs]")
        return tensors[name].shape[0]

    if "score.weight" in tensors:
        return HeadConfig("linear", outputs=outputs("score.weight"))
    if "v_head.summary.weight" in tensors:
        return HeadConfig("mlp", layers=0, outputs=outputs("v_head.summary.weight"))
    matches = [re.fullmatch(r"v_head\.summary\.(\d+)\.weight", name) for name in tensors]
    sizes = {int(match[1]): outputs(match[0]) for match in matches if match}
    if not sizes:
        return None
    first, last = sizes[min(sizes)], sizes[max(sizes)]
    return HeadConfig("mlp", hidden=first, layers=len(sizes) - 1, outputs=last)


VALUE_HEADS = ("value_head.safetensors", "value_head.bin")
"""Where LLaMA-Factory leaves a reward head, in the layout of TRL's models with a value head."""


def check_value_head(directory: Path, file: str, prefix: str = "") -> None:
    """Raises ModelFileError where a reward head lies beside the weights, in a file of its own.

    Args:
      file, prefix: what holds the directory's weights, and what names begin with there.
    """
    for name in VALUE_HEADS:
        if (directory / name).exists():
            safe = name.endswith(".safetensors")
            load = "safetensors.torch.load_file" if safe else "torch.load(..., weights_only=True)"
            raise ModelFileError(
                f"{directory / name} holds the reward head, v_head.summary of TRL's value-head "
                f"models as LLaMA-Factory saves it, and is not read: add its tensors to {file}, "
                f"named {prefix}v_head.summary.weight and .bias, with {load} and "
                "safetensors.torch.save_file; or remove it to have a model without that head"
            )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a configuration file; raises ModelFileError where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} is not a JSON object")
    return content


MIXTURE = "jaxrm_mixture"
"""The model type of a directory of several models (`jaxrm.huggingface.mixture`)."""


def is_mixture(directory: Path) -> bool:
    """Whether a directory's `config.json`, if it has one, says that it holds several models."""
    try:
        return read_json(directory / "config.json").get("model_type") == MIXTURE
    except ModelFileError:
        return False


def check_replaceable(directory: Path, signs: Sequence[str], kind: str) -> None:
    """Raises ModelFileError where something else than a `kind` would be replaced.

    Args:
      signs: patterns of files, each of which a directory of that kind has.
    """
    taken = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    if taken and not all(any(directory.glob(sign)) for sign in signs):
        raise ModelFileError(f"{directory} exists and is no {kind}: name another one")


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path | None]:
    """Yields a directory to write in, which takes its place if nothing raises.

    In a run of several processes each must call this. The first one writes; the others get None,
    and go on when it is there.

    Raises ModelFileError where it cannot be written; what was in its place is then still there.
    """
    if jax.process_index() != 0:
        yield None
    else:
        try:
            with replacing(directory) as draft:
                draft.mkdir()
                yield draft
        except OSError as error:
            raise ModelFileError(f"{directory} cannot be written: {error}") from error
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"saved {directory}")


def check_tensors(
    where: Path, tensors: Tensors, layout: Layout, ignored: Set[str] = frozenset()
) -> None:
    """Raises ModelFileError unless the tensors are exactly those that the layout names."""
    expected = {
        name: stored.shape(parameter)
        for stored, parameter in layout.values()
        for name in stored.names(parameter)
    }
    misshapen = [
        f"{name} {tensors[name].shape} for {shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems = [
        f"{what} {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}"
        for what, names in (
            ("missing", sorted(expected.keys() - tensors.keys())),
            ("unexpected", sorted(tensors.keys() - expected.keys() - ignored)),
            ("of another shape than the configuration says", misshapen),
        )
        if names
    ]
    if problems:
        raise ModelFileError(f"{where}: tensors {'; tensors '.join(problems)}")


def one_layer(parameter: Parameter) -> Parameter:
    """The parameter without its layer axis."""
    if parameter.axes[0] != "layers":
        return parameter
    return dataclasses.replace(parameter, shape=parameter.shape[1:], axes=parameter.axes[1:])
