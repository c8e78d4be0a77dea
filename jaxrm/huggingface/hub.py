"""Model directories in Hugging Face's layout: read straight into sharded arrays, and written.

Neither way needs torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.errors import ModelFileError
from jaxrm.huggingface import families, gatefile, vocabulary, weights
from jaxrm.huggingface.adapter import CONFIG as ADAPTER_CONFIG
from jaxrm.huggingface.adapter import read as read_adapter
from jaxrm.huggingface.layout import (
    EMBEDDING,
    LM_HEAD,
    MIXTURE,
    Layout,
    Tensors,
    check_replaceable,
    check_tensors,
    check_value_head,
    is_mixture,
    new_directory,
    read_json,
    stored_head,
    stored_layout,
)
from jaxrm.models import heads, transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.gate import Gated
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.parameters import Tree, initialise, shapes
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.models.uncertainty import RewardScale
from jaxrm.parallel import ShardingRules

log = logging.getLogger(__name__)

SIGNS = ("config.json", "*.safetensors")
"""What tells a model directory from others that hold a `config.json`, such as a run's."""


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
    of a language model gets a fresh head drawn from `seed`, and the log says so.

    Args:
      head: the reward head; None takes the one in the directory.
      lora: low-rank updates to train beside the weights, fresh from `seed`.
      adapter: a directory with such updates, in PEFT's or GRM's layout, and perhaps a reward head
        that was trained with them and takes the place of the directory's own.
      mesh, rules: where parameters live; each device reads its own part of the files.
      dtype: of the parameters, apart from the reward head and LoRA, which are float32.

    Raises:
      ModelFileError: something is missing (a reward head too, where `config.json` promises one, or
        one lies in a file of its own), extra, misshapen, truncated, in a pickle, of an architecture
        that is not implemented, the stored head is another one than `head`, or an adapter is to go
        beside a gate.
      ValueError: both `lora` and `adapter` are given.
    """
    if adapter is not None and lora is not None:
        raise ValueError("an adapter brings its own LoRA: give one of the two")
    directory, rules = Path(directory), rules or ShardingRules()
    config, base_head, tensors, in_base = _open(directory)
    if adapter is not None and gatefile.FIELD in config.extra:
        raise ModelFileError(f"{directory}: its gate was fitted without an adapter: give none")
    brought: Tree = {}
    held_head, head_from = base_head, directory
    if adapter is not None:
        read_from = read_adapter(adapter, config)
        lora, brought["lora"] = read_from.lora, read_from.update
        if read_from.head is not None:
            held_head, head_from = read_from.head, Path(adapter)
            brought["reward_head"] = read_from.head_arrays
    if held_head is None:
        _check_promise(config, directory)
    head = _choose_head(head_from, config, head, held_head)
    declared = transformer.declare(config, head, lora)
    fresh: Tree = {}
    if held_head is None:
        log.info("%s holds no reward head: a fresh one is drawn from seed %d", directory, seed)
        fresh["reward_head"] = declared["reward_head"]
    if lora is not None and adapter is None:
        fresh["lora"] = declared["lora"]

    wanted = {path: place for path, place in in_base.items() if path.split("/")[0] not in brought}
    kinds = functools.partial(_kind, dtype=dtype)
    params = weights.read(tensors, wanted, kinds, mesh=mesh, rules=rules)
    if fresh:
        placement = transformer.placements(fresh, mesh, rules)
        params |= jax.jit(functools.partial(initialise, fresh), out_shardings=placement)(seed)
    if brought:
        of_brought = {name: declared[name] for name in brought}
        params |= jax.device_put(brought, transformer.placements(of_brought, mesh, rules))
    return RewardModel(config, head, lora, compute=compute or Compute(), params=params)


def load_language_model(
    directory: str | Path,
    *,
    compute: Compute | None = None,
    mesh: Mesh | None = None,
    rules: ShardingRules | None = None,
    dtype: str = "float32",
) -> RewardModel:
    """Reads a model without its reward head, if it has one. Arguments and errors as for `load`."""
    config, head, tensors, layout = _open(Path(directory))
    if head is None:
        _check_promise(config, Path(directory))
    wanted = {path: place for path, place in layout.items() if not path.startswith("reward_head")}
    kinds = functools.partial(_kind, dtype=dtype)
    params = weights.read(tensors, wanted, kinds, mesh=mesh, rules=rules or ShardingRules())
    return RewardModel(config, None, compute=compute or Compute(), params=params)


def fingerprint(directory: str | Path) -> str:
    """SHA-256 over a model directory's weights and what says how to read them.

    That is `config.json`, an adapter's configuration, and every safetensors file, a mixture's
    members' too: their names and contents. A directory that moves, or gets another tokenizer, keeps
    its fingerprint.

    Raises:
      ModelFileError: there is no configuration, or no safetensors file.
    """
    directory = Path(directory)
    configs = [directory / name for name in ("config.json", "adapter_config.json")]
    configs = [path for path in configs if path.is_file()]
    weights = sorted(directory.glob("*.safetensors"))
    if is_mixture(directory):
        configs += sorted(directory.glob("*/config.json"))
        weights += sorted(directory.glob("*/*.safetensors"))
    if not configs or not weights:
        missing = "safetensors file" if configs else "config.json"
        raise ModelFileError(f"{directory} holds no {missing}: give a model directory")
    content = hashlib.sha256()
    for path in (*configs, *weights):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        content.update(f"{path.relative_to(directory)} {digest}\n".encode())
    return content.hexdigest()


def read_config(directory: str | Path) -> ModelConfig:
    """What the model in a directory computes; raises ModelFileError as `load` does."""
    path = Path(directory, "config.json")
    if not path.exists() and Path(directory, ADAPTER_CONFIG).exists():
        raise ModelFileError(
            f"{directory} is a LoRA adapter: give its base model's directory here, and this one as "
            "the adapter"
        )
    if not path.exists():
        raise ModelFileError(f"{path} does not exist: give a directory in Hugging Face's layout")
    if is_mixture(path.parent):
        raise ModelFileError(
            f"{path}: model_type {MIXTURE} is no model but several whose rewards are added: "
            "jaxrm.score and jaxrm.evaluate read it, and what needs one model reads a member"
        )
    return families.read(read_json(path), str(path))


def read_scale(config: ModelConfig) -> RewardScale | None:
    """The scale that `save` recorded beside this configuration, if it did."""
    names = [field.name for field in dataclasses.fields(RewardScale)]
    said = [config.extra.get(f"reward_{name}") for name in names]
    return None if None in said else RewardScale(*said)


def save(
    model: RewardModel,
    directory: str | Path,
    tokenizer: ChatTokenizer | None = None,
    *,
    dtype: str | None = None,
    shard_bytes: int = 5_000_000_000,
    scale: RewardScale | None = None,
    gate: Gated | None = None,
    card: str | None = None,
) -> None:
    """Writes the model as a directory that `load` and Hugging Face's classes read.

    A linear head makes a `...ForSequenceClassification`, which has no language-model head but the
    embedding; an MLP head makes GRM's layout; no head (`model.language_model()`) a
    `...ForCausalLM`. LoRA is merged into the weights. The directory appears whole or not at all, in
    the place of a model directory that may be there. In a run of several processes each must call
    this; the first one writes.

    Args:
      tokenizer: written beside the model, with its chat template. Where it has no padding token
        other than an end of sequence it gets one, which may enlarge the vocabulary.
      dtype: of the stored trunk, by default the parameters' own. A reward head stays float32.
      shard_bytes: what a file of several may hold.
      scale: recorded in `config.json`; the weights are those of the raw reward.
      gate: what makes one reward of the outputs of a linear head; `gatefile.read` reads it.
      card: the directory's README.md.

    Raises:
      ModelFileError: there is something else than a model directory at `directory`, it cannot be
        written, or its `config.json` cannot express the model.
      ValueError: the gate does not fit the head.
    """
    directory = Path(directory)
    check_place(directory)
    if tokenizer is not None:
        model, tokenizer = vocabulary.padded(model, tokenizer)
    with new_directory(directory) as draft:
        write(model, draft, dtype=dtype, shard_bytes=shard_bytes, scale=scale, gate=gate)
        if draft is not None:
            write_beside(draft, tokenizer, card)


def check_place(directory: Path) -> None:
    """Raises ModelFileError where something else than a directory of one or several models would be
    replaced."""
    if not is_mixture(directory):
        check_replaceable(directory, SIGNS, "model directory")


def write(
    model: RewardModel,
    directory: Path | None,
    *,
    dtype: str | None,
    shard_bytes: int,
    scale: RewardScale | None = None,
    gate: Gated | None = None,
) -> None:
    """What `save` writes of a model into a directory that is there.

    In a run of several processes each must call this: without a directory it takes its part in
    gathering the weights.
    """
    model = model.merged()
    dtype = dtype or str(model.embedding[...].dtype)
    config = _config_json(model, dtype, scale)
    layout = stored_layout(transformer.declare(model.config, model.head_config), model.head_config)
    if _is_classifier(model):
        layout.pop("lm_head", None)
    shards = weights.plan(layout, functools.partial(_kind, dtype=dtype), shard_bytes)
    params = transformer.split(model)[1]
    if directory is None:
        for shard in shards:
            for _ in weights.gather(params, shard):
                pass
        return
    weights.write(directory, params, shards, beside_others=gate is not None)
    if gate is not None:
        config |= gatefile.write(directory, model, gate)
    text = json.dumps(config, indent=2, sort_keys=True)
    (directory / "config.json").write_text(text + "\n")


def write_beside(directory: Path, tokenizer: ChatTokenizer | None, card: str | None) -> None:
    """What `save` writes beside a model, or several."""
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    if card is not None:
        (directory / "README.md").write_text(card, encoding="utf-8")


def _open(directory: Path) -> tuple[ModelConfig, HeadConfig | None, Tensors, Layout]:
    """A directory's model, its reward head, its tensors, and where among them each parameter is."""
    config = read_config(directory)
    tensors = weights.open_directory(directory)
    head = stored_head(tensors)
    if head is not None and LM_HEAD not in tensors:
        config = dataclasses.replace(config, language_head=config.tie_embeddings)
    layout = stored_layout(transformer.declare(config, head), head)
    check_tensors(directory, tensors, layout, ignored=_superfluous(tensors, layout))
    return config, head, tensors, layout


def _kind(path: str, dtype: str) -> str:
    """What a parameter is kept in, in memory or in a file, where the trunk is kept in `dtype`."""
    return "float32" if path.startswith("reward_head") else dtype


def _is_classifier(model: RewardModel) -> bool:
    return model.head_config is not None and model.head_config.kind == "linear"


def _check_promise(config: ModelConfig, directory: Path) -> None:
    """Raises ModelFileError where a `config.json` without a reward head beside it promises one, or
    one lies in a file that is not read."""
    check_value_head(directory, weights.SINGLE)
    classes = [str(name) for name in config.extra.get("architectures") or []]
    promises = [name for name in classes if name.endswith("ForSequenceClassification")]
    if config.extra.get("vhead_layer_type"):
        promises.append("vhead_layer_type")
    if promises:
        raise ModelFileError(
            f"{directory / 'config.json'}: {promises[0]} promises a reward head, but the weights "
            "hold neither score.weight nor v_head.summary.*: a fresh one would be noise where a "
            "trained one is expected"
        )


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


def _superfluous(tensors: Tensors, layout: Layout) -> set[str]:
    """What some files hold that says nothing: frequencies, which follow from the configuration, and
    the language-model head where it is the embedding once more."""
    ignored = {name for name in tensors if name.endswith("rotary_emb.inv_freq")}
    if "lm_head" not in layout and {EMBEDDING, LM_HEAD} <= tensors.keys():
        ignored |= {LM_HEAD} if _equal(tensors[EMBEDDING], tensors[LM_HEAD]) else set()
    return ignored


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two tensors are the same bytes, compared in place."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.reshape(-1).view(np.uint8).data == right.reshape(-1).view(np.uint8).data


def _config_json(model: RewardModel, dtype: str, scale: RewardScale | None) -> dict[str, Any]:
    """The model's `config.json`, with what tells a reader which head to expect."""
    head, family = model.head_config, families.FAMILIES[model.config.model_type]
    config = families.write(model.config, dtype)
    for name in ("id2label", "label2id", "num_labels", "problem_type"):
        config.pop(name, None)
    for part in ("layer_type", "num_neurons", "num_layers", "num_output"):
        config.pop(f"vhead_{part}", None)
    for name in ("offset", "scale", "reference", "responses"):
        config.pop(f"reward_{name}", None)
    config.pop(gatefile.FIELD, None)
    if head is None:
        return config | {"architectures": [family.language_model]}
    if scale is not None:
        config |= {
            "reward_offset": scale.offset,
            "reward_scale": scale.scale,
            "reward_reference": scale.reference,
            "reward_responses": scale.responses,
        }
    if head.kind == "mlp":
        return config | {
            "architectures": [family.language_model],
            "vhead_layer_type": "mlp" if head.layers else "linear",
            "vhead_num_neurons": head.hidden,
            "vhead_num_layers": head.layers,
            "vhead_num_output": head.outputs,
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
        "architectures": [family.classifier],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "num_labels": head.outputs,
        # Servers put a sigmoid on a one-label classifier unless told that it is a regression.
        "problem_type": "regression",
    }
