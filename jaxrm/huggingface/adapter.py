"""LoRA adapters in the directories of PEFT and of GRM: read into arrays, and written.

Both describe the update in `adapter_config.json` and hold it in safetensors, without the base
model. PEFT's (github.com/huggingface/peft) names tensors as its wrapped model does; an MLP reward
head does not exist there, and GRM's recipe (YangRui2015/Generalizable-Reward-Model) saves what it
trained under its own model's names. Neither way needs torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import NamedSharding

from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.errors import ModelFileError
from jaxrm.huggingface import tensorfile
from jaxrm.huggingface.layout import (
    Layout,
    Stored,
    Tensors,
    check_replaceable,
    check_tensors,
    check_value_head,
    new_directory,
    one_layer,
    read_json,
    stored_head,
    stored_layout,
)
from jaxrm.models import transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import INPUT_AXES, LoraConfig, Projection
from jaxrm.models.parameters import Parameter
from jaxrm.models.transformer import RewardModel
from jaxrm.parallel import replicated

CONFIG = "adapter_config.json"


class Adapter(NamedTuple):
    """What a directory adds to a base model.

    Attributes:
      lora: the update's configuration.
      update: its arrays as `RewardModel.lora` names them, float32, stacked over layers.
      head: the reward head that was trained with it; None where the base's own serves.
      head_arrays: its arrays as `RewardModel.reward_head` names them, float32.
    """

    lora: LoraConfig
    update: dict[str, np.ndarray]
    head: HeadConfig | None
    head_arrays: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Dialect:
    """A file and its way of naming tensors: around our base's names, and after lora_A or lora_B."""

    file: str
    prefix: str
    adapter: str


_PEFT = _Dialect("adapter_model.safetensors", prefix="base_model.model.", adapter="")
_GRM = _Dialect("model.safetensors", prefix="", adapter=".default")


def read(directory: str | Path, config: ModelConfig) -> Adapter:
    """Reads the adapter in a directory of PEFT's or GRM's layout.

    Args:
      config: of the base model that it belongs to.

    Raises:
      ModelFileError: something is missing, extra, misshapen, truncated or in a pickle, or
        `adapter_config.json` says what would compute something else than `LoraConfig` can say.
    """
    directory = Path(directory)
    dialect, tensors = _open(directory)
    where, file = directory / CONFIG, directory / dialect.file
    _check_modules(file, tensors)
    said = read_json(where)
    lora = _lora(said, where, _held(tensors, config, dialect), file)
    try:
        head = stored_head({name.removeprefix(dialect.prefix): t for name, t in tensors.items()})
    except ModelFileError as error:
        raise ModelFileError(f"{file}: {error}") from error
    if head is None:
        check_value_head(directory, dialect.file, dialect.prefix)
    if head is None and "score" in (said.get("modules_to_save") or ()):
        raise ModelFileError(f"{where}: modules_to_save names score, but {file} does not hold it")
    layout = _layout(config, lora, head, dialect)
    try:
        check_tensors(file, tensors, layout)
    except ModelFileError as error:
        made_for = said.get("base_model_name_or_path")
        problem = f"the adapter was made for {made_for}: is this base another one?"
        raise ModelFileError(f"{error}; {problem}") from error
    trees = traverse_util.unflatten_dict(
        {path: _from_file(tensors, *place) for path, place in layout.items()}, sep="/"
    )
    return Adapter(lora, trees["lora"], head, trees.get("reward_head", {}))


def save(
    model: RewardModel, directory: str | Path, base: str, tokenizer: ChatTokenizer | None = None
) -> None:
    """Writes the model's update and reward head as a directory that `read` reads.

    With a linear head or none, PEFT reads it too; with an MLP head it is in GRM's layout. The
    directory appears whole or not at all, in the place of an adapter that may be there. In a run of
    several processes each must call this; the first one writes.

    Args:
      base: the base model's directory or public name, for PEFT to find it.

    Raises:
      ModelFileError: there is something else than an adapter at `directory`, or it cannot be
        written.
      ValueError: the model has no LoRA.
    """
    directory, lora, head = Path(directory), model.lora_config, model.head_config
    if lora is None:
        raise ValueError("this model has no LoRA to save: use hub.save")
    check_replaceable(directory, (CONFIG,), "adapter")
    dialect = _GRM if head is not None and head.kind == "mlp" else _PEFT
    params = traverse_util.flatten_dict(transformer.split(model)[1], sep="/")
    tensors: dict[str, np.ndarray] = {}
    for path, place in _layout(model.config, lora, head, dialect).items():
        # Gathering is collective: every process takes part, the first one writes.
        tensors |= _to_file(_whole(params[path]), *place)
    with new_directory(directory) as draft:
        if draft is not None:
            text = json.dumps(_adapter_config(model, base), indent=2, sort_keys=True)
            (draft / CONFIG).write_text(text + "\n")
            shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
            tensorfile.write(draft / dialect.file, shapes, tensors.values())
            if tokenizer is not None:
                tokenizer.save_pretrained(str(draft))


def _open(directory: Path) -> tuple[_Dialect, Tensors]:
    """The directory's tensors, and whose names they have."""
    for dialect in (_PEFT, _GRM):
        if (directory / dialect.file).exists():
            return dialect, tensorfile.read(directory / dialect.file)
    pickles = [n for n in ("adapter_model.bin", "pytorch_model.bin") if (directory / n).exists()]
    if pickles:
        raise ModelFileError(
            f"{directory / pickles[0]} is a pickle, which can run any code when it is read: save "
            "the adapter again as safetensors"
        )
    raise ModelFileError(f"{directory} holds no {_PEFT.file}, so it is no adapter")


_MERGE = (
    "merge the adapter into its base with PEFT, PeftModel.from_pretrained(BASE, "
    "ADAPTER).merge_and_unload().save_pretrained(DIR), and give DIR as a model without an adapter"
)

# What adapters may hold of modules other than those whose updates are read.
_OTHERS = {
    r"embed_tokens\.lora": "LoRA of the embedding",
    r"embed_tokens\.": "the whole embedding, which PEFT keeps when tokens were added to it",
    r"lm_head\.lora": "LoRA of the language-model head",
    r"lm_head\.": "the whole language-model head",
    r"(score|classifier|v_head)\b.*\.lora": "LoRA of the reward head, whose weight is the base's",
}


def _check_modules(file: Path, tensors: Tensors) -> None:
    """Raises ModelFileError for what belongs to the embedding or to a head, by what it is."""
    for name in sorted(tensors):
        for pattern, what in _OTHERS.items():
            if re.search(rf"(^|\.){pattern}", name):
                also = f"only updates of {', '.join(_MODULES)} and a whole reward head are read"
                raise ModelFileError(f"{file}: {name} is {what}, and {also}: {_MERGE}")


# What `_lora` reads; what says nothing of the computation; and where something else than null,
# false or empty changes nothing, what. Every other field, known or to come, must be null, false or
# empty: DoRA, ranks by layer and the like compute something else.
_READ = {"r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "modules_to_save"}
_SILENT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    # Other initialisations (PiSSA, OLoRA, ...) put the update beside a changed base.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
    "peft_type": ("LORA",),
}


def _lora(
    said: Mapping[str, Any], where: Path, held: tuple[Projection, ...], file: Path
) -> LoraConfig:
    """The configuration that `adapter_config.json` gives to the projections that `file` holds."""

    def error(name: str, problem: str) -> ModelFileError:
        shown = repr(said[name]) if name in said else "missing"
        return ModelFileError(f"{where}: {name} ({shown}) {problem}")

    def number(name: str, words: str, accepts: Callable[[float], bool]) -> float:
        value = said.get(name)
        if type(value) not in (int, float) or not accepts(value):
            raise error(name, f"must be {words}")
        return value

    if "peft_type" not in said:
        raise error("peft_type", "must be LORA")
    for name, value in said.items():
        neutral = value in _NEUTRAL[name] if name in _NEUTRAL else not value
        if name not in _READ | _SILENT and not neutral:
            raise error(name, "may change the computation and is not implemented")
    saved = said.get("modules_to_save") or []
    # PEFT adds both names of a classifier's head to whatever was asked for.
    heads = ("score", "classifier", "v_head")
    if not isinstance(saved, list) or any(name not in heads for name in saved):
        raise error("modules_to_save", f"must name the reward head alone, score: {_MERGE}")
    stabilised = said.get("use_rslora", False)
    if type(stabilised) is not bool:
        raise error("use_rslora", "must be true or false")

    if not held:
        raise ModelFileError(f"{file} holds a LoRA update of none of {', '.join(_MODULES)}")
    targets = said.get("target_modules")
    if not isinstance(targets, (str, list)) or not all(isinstance(name, str) for name in targets):
        raise error("target_modules", "must be a list of names, or a pattern")
    # What a pattern selects, the file shows; a list says it too.
    listed = _MODULES if isinstance(targets, str) else {n.rsplit(".", 1)[-1] for n in targets}
    for module, projection in _MODULES.items():
        if projection in held and module not in listed:
            raise error("target_modules", f"does not list {module}, of which {file} holds updates")
        if projection not in held and module in listed and isinstance(targets, list):
            raise error("target_modules", f"lists {module}, of which {file} holds no updates")
    return LoraConfig(
        rank=int(number("r", "a positive whole number", lambda r: r > 0 and r % 1 == 0)),
        alpha=float(number("lora_alpha", "a positive number", lambda alpha: 0 < alpha < math.inf)),
        dropout=float(number("lora_dropout", "a share below 1", lambda share: 0 <= share < 1)),
        targets=held,
        rank_stabilised=stabilised,
    )


_MODULES: dict[str, Projection] = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "o_proj": "output",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
}
"""Our projections by the last part of their modules' names."""


def _layout(
    config: ModelConfig, lora: LoraConfig, head: HeadConfig | None, dialect: _Dialect
) -> Layout:
    """Where a dialect's file keeps the update and the head."""
    declared = transformer.declare(config, head, lora)
    layers = stored_layout({"layers": declared["layers"]}, None)
    places: Layout = {}
    for name in lora.targets:
        module = dialect.prefix + layers[f"layers/{name}"][0].name.removesuffix(".weight")
        a, b = (declared["lora"][f"{name}_{half}"] for half in "ab")
        # As torch stores linear layers, [out, in]: a from the inputs to the rank, b on from there.
        rank, outputs = INPUT_AXES[name], tuple(range(1, len(b.shape) - 1))
        stored_a = Stored(f"{module}.lora_A{dialect.adapter}.weight", ((rank,), tuple(range(rank))))
        stored_b = Stored(f"{module}.lora_B{dialect.adapter}.weight", (outputs, (0,)))
        places |= {f"lora/{name}_a": (stored_a, a), f"lora/{name}_b": (stored_b, b)}
    if head is not None:
        kept = stored_layout({"reward_head": declared["reward_head"]}, head)
        for path, (stored, parameter) in kept.items():
            named = dataclasses.replace(stored, name=dialect.prefix + stored.name)
            places[path] = (named, parameter)
    return places


def _held(tensors: Tensors, config: ModelConfig, dialect: _Dialect) -> tuple[Projection, ...]:
    """The projections of which the file holds anything."""
    every = LoraConfig(rank=1, targets=tuple(_MODULES.values()))
    layout = _layout(config, every, None, dialect)

    def holds(name: Projection) -> bool:
        places = (layout[f"lora/{name}_{half}"] for half in "ab")
        return any(n in tensors for stored, parameter in places for n in stored.names(parameter))

    return tuple(name for name in every.targets if holds(name))


def _from_file(tensors: Tensors, stored: Stored, parameter: Parameter) -> np.ndarray:
    """One parameter in float32, its layers stacked."""
    shape, order = one_layer(parameter).shape, stored.order
    back = np.argsort(order)
    layers = [
        tensors[name].reshape([shape[axis] for axis in order]).transpose(back)
        for name in stored.names(parameter)
    ]
    whole = layers[0] if parameter.axes[0] != "layers" else np.stack(layers)
    return whole.astype(np.float32)


def _to_file(values: np.ndarray, stored: Stored, parameter: Parameter) -> dict[str, np.ndarray]:
    """The float32 tensors that make up the parameter, by name."""
    layers = values if parameter.axes[0] == "layers" else values[None]
    shape = stored.shape(parameter)
    return {
        name: layer.transpose(stored.order).reshape(shape).astype(np.float32)
        for name, layer in zip(stored.names(parameter), layers, strict=True)
    }


def _whole(values: jax.Array) -> np.ndarray:
    """The array made whole from the devices that share it."""
    if isinstance(values.sharding, NamedSharding):
        gather = jax.jit(lambda x: x, out_shardings=replicated(values.sharding.mesh))
        values = gather(values)
    return np.asarray(values)


def _adapter_config(model: RewardModel, base: str) -> dict[str, Any]:
    """The model's `adapter_config.json`; what is left out has PEFT's default, which is neutral."""
    lora, head = model.lora_config, model.head_config
    modules = [module for module, projection in _MODULES.items() if projection in lora.targets]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if head is None else "SEQ_CLS",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilised,
        "target_modules": modules,
        "modules_to_save": ["score"] if head is not None and head.kind == "linear" else None,
        "bias": "none",
        "fan_in_fan_out": False,
    }
