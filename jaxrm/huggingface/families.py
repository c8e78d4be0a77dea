"""The families of decoders: each one's Hugging Face ``config.json``, read and written.

transformers 4 and 5 say some things differently, and each silently ignores the other's words, so
both are read, must agree, and are both written. A field that would change what is computed and is
not implemented is an error that names it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxrm.errors import ModelFileError
from jaxrm.huggingface.fields import Fields
from jaxrm.models.config import ModelConfig
from jaxrm.models.rotary import Dynamic, Linear, Llama3, Rope

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family's ``config.json`` is read, and what it says beyond the common words.

    Attributes:
      classifier, language_model: Hugging Face's classes with a linear reward head and with a
        language-model head.
    """

    classifier: str
    language_model: str
    read: Callable[[Fields], ModelConfig]
    write: Callable[[ModelConfig], dict[str, Any]]


def read(raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Reads the contents of a ``config.json``; `where` names the file in error messages.

    Fields that neither this nor the family's class in transformers knows are kept, and logged once
    per file and process, but for those that are known to say nothing of the computation: `SILENT`,
    and transformers' own, which begin with "_".

    Raises:
      ModelFileError: an unknown ``model_type``, a missing or malformed field, or a field that
        changes the computation in a way that is not implemented.
    """
    fields = Fields(raw, where)
    config = _parse(fields)
    said = {name for name, value in raw.items() if value not in (None, False, [], {})}
    unknown = sorted(name for name in said - fields.seen - SILENT if not name.startswith("_"))
    if unknown:
        _report_once(where, tuple(unknown))
    return config


@functools.cache
def _report_once(where: str, unknown: tuple[str, ...]) -> None:
    log.warning("%s: not used, because not known: %s", where, ", ".join(unknown))


def write(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """The contents of a ``config.json`` for weights of `dtype`, in both dialects of the format.

    transformers 4 reads ``rope_theta``, ``rope_scaling`` and ``torch_dtype`` and ignores
    ``rope_parameters`` and ``dtype``, silently; transformers 5 writes only the latter.

    Raises:
      ModelFileError: the family's ``config.json`` has no words for this computation.
    """
    eos, rope = config.eos_token_id, config.rope
    written = {
        **config.extra,
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": config.activation,
        "rms_norm_eps": config.rms_norm_eps,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": config.pad_token_id,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(eos) if isinstance(eos, tuple) else eos,
        "rope_theta": rope.theta,
        "rope_scaling": _scaling_words(rope),
        "rope_parameters": _rope_words(rope),
        "torch_dtype": dtype,
        "dtype": dtype,
        **FAMILIES[config.model_type].write(config),
    }
    if isinstance(rope.scaling, Dynamic):
        written["max_position_embeddings"] = rope.scaling.original_length
    read_back = _parse(Fields(written, "config.json"))
    read_back = dataclasses.replace(read_back, language_head=config.language_head)
    if read_back != config:
        differing = ", ".join(
            f"{field.name}={getattr(config, field.name)!r}"
            for field in dataclasses.fields(config)
            if field.compare and getattr(config, field.name) != getattr(read_back, field.name)
        )
        raise ModelFileError(
            f"a config.json of model_type {config.model_type!r} cannot say {differing}"
        )
    return written


def _parse(fields: Fields) -> ModelConfig:
    raw, family = fields.raw, fields.value("model_type")
    if any(raw.get(name) for name in ("vision_config", "audio_config", "text_config")):
        problem = "is a model of images or sound: only decoders of text can be read"
        raise fields.error("model_type", problem)
    if any(raw.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        problem = "is a mixture of experts: only dense decoders can be read"
        raise fields.error("model_type", problem)
    if family not in FAMILIES:
        raise fields.error("model_type", f"is not one of {', '.join(FAMILIES)}")
    try:
        return FAMILIES[family].read(fields)
    except ValueError as error:
        raise ModelFileError(f"{fields.where}: {error}") from error


# Fields with which some decoder or training recipe changes what a plain one computes, and the
# values with which they do not. A family leaves out what it implements.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "attention_dropout": (0.0, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "layer_types": (None,),
    "mlp_bias": (False, None),
    "original_max_position_embeddings": (None,),
    "partial_rotary_factor": (None, 1.0),
    "quantization_config": (None,),
    "query_pre_attn_scalar": (None,),
    "rope_local_base_freq": (None,),
    "sliding_window": (None,),
    "use_bidirectional_attention": (False, None),
}

# What says nothing of what a decoder computes: of the dtype, the head, sampling, files.
SILENT = {
    "architectures", "cache_implementation", "chunk_size_feed_forward", "do_sample", "dtype",
    "finetuning_task", "id2label", "jaxrm_gate", "label2id", "max_length",
    "max_position_embeddings", "num_labels", "output_attentions", "output_hidden_states",
    "pretraining_tp", "problem_type", "return_dict", "reward_offset", "reward_reference",
    "reward_responses", "reward_scale", "temperature", "tokenizer_class", "top_k", "top_p",
    "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "unk_token_id",
    "unsloth_fixed", "unsloth_version", "use_cache", "vhead_layer_type", "vhead_num_layers",
    "vhead_num_neurons", "vhead_num_output",
}  # fmt: skip


def _common(
    fields: Fields, implemented: tuple[str, ...] = (), *, rope: Rope | None = None, tied: bool
) -> dict[str, Any]:
    """What every family says in the same words.

    Args:
      implemented: fields that the family's own reader understands.
      rope: where the family says it in words of its own.
      tied: whether the embedding is the language-model head where the file does not say.
    """
    fields.refuse({name: values for name, values in _NEUTRAL.items() if name not in implemented})
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    return {
        "model_type": fields.value("model_type"),
        "vocab_size": fields.count("vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": fields.count("intermediate_size"),
        "num_layers": fields.count("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": fields.count("num_key_value_heads"),
        "head_dim": fields.count("head_dim"),
        "rope": rope or _rope(fields),
        "rms_norm_eps": fields.number("rms_norm_eps", 1e-6),
        "tie_embeddings": fields.flag("tie_word_embeddings", tied),
        "initializer_range": fields.number("initializer_range", 0.02),
        "pad_token_id": fields.token_id("pad_token_id"),
        "bos_token_id": fields.token_id("bos_token_id"),
        "eos_token_id": fields.token_ids("eos_token_id"),
        "extra": dict(fields.raw),
    }


def _silu(fields: Fields, implemented: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the families with a SiLU and plain norms have in common."""
    common = _common(fields, implemented, tied=False)
    common["activation"] = fields.value("hidden_act", "silu")
    return common | {"query_scale": common["head_dim"] ** -0.5}


def _llama(fields: Fields) -> ModelConfig:
    """Llama 2 and 3 (arXiv 2307.09288, 2407.21783)."""
    filled = _with_defaults(fields, num_key_value_heads=fields.value("num_attention_heads"))
    return ModelConfig(**_silu(_with_head_dim(filled)))


def _mistral(fields: Fields) -> ModelConfig:
    """Mistral (arXiv 2310.06825): Llama, with a window on all layers or none."""
    common = _silu(_with_head_dim(fields), ("sliding_window",))
    # A file that is silent means the class's own default.
    window = fields.cap("sliding_window", 4096)
    windows = () if window is None else (fields.count("sliding_window", 4096),)
    return ModelConfig(**common, windows=windows * common["num_layers"])


def _qwen2(fields: Fields) -> ModelConfig:
    """Qwen 2 and 2.5 (arXiv 2407.10671): Llama with attention biases, and windows if asked for."""
    common = _silu(_with_head_dim(fields), ("sliding_window", "layer_types"))
    return ModelConfig(**common, windows=_qwen_windows(fields, common["num_layers"]), qkv_bias=True)


def _qwen3(fields: Fields) -> ModelConfig:
    """Qwen 3 (arXiv 2505.09388): norms on queries and keys in the biases' place."""
    common = _silu(fields, ("sliding_window", "layer_types"))
    return ModelConfig(**common, windows=_qwen_windows(fields, common["num_layers"]), qk_norms=True)


def _gemma(fields: Fields) -> ModelConfig:
    """Gemma 1 (arXiv 2403.08295)."""
    common = _gemmas(fields)
    return ModelConfig(**common, query_scale=common["head_dim"] ** -0.5)


def _gemma2(fields: Fields) -> ModelConfig:
    """Gemma 2 (arXiv 2408.00118): soft-caps, every other layer local, norms on both sides."""
    own = ("attn_logit_softcapping", "final_logit_softcapping", "layer_types")
    common = _gemmas(fields, (*own, "query_pre_attn_scalar", "sliding_window"))
    return ModelConfig(
        **common,
        query_scale=fields.number("query_pre_attn_scalar", 256.0) ** -0.5,
        post_norms=True,
        # The first releases say nothing of their layers and mean this.
        windows=_windows(fields, common["num_layers"], lambda layer: layer % 2 == 0),
        attention_softcap=fields.cap("attn_logit_softcapping", 50.0),
        logit_softcap=fields.cap("final_logit_softcapping", 30.0),
    )


def _gemma3(fields: Fields) -> ModelConfig:
    """Gemma 3, the text models (arXiv 2503.19786): Gemma 2 with norms on queries and keys in the
    soft-caps' place, and another rotary embedding in local layers."""
    # A soft-cap on attention is refused: transformers knows the word here and does not apply it.
    own = ("final_logit_softcapping", "layer_types", "query_pre_attn_scalar")
    own += ("sliding_window", "rope_local_base_freq")
    rope, local_rope = _gemma3_ropes(fields)
    common = _gemmas(fields, own, rope=rope)
    every = fields.count("sliding_window_pattern", 6)
    return ModelConfig(
        **common,
        query_scale=fields.number("query_pre_attn_scalar", 256.0) ** -0.5,
        post_norms=True,
        qk_norms=True,
        windows=_windows(fields, common["num_layers"], lambda layer: (layer + 1) % every != 0),
        local_rope=local_rope,
        logit_softcap=fields.cap("final_logit_softcapping"),
    )


def _gemmas(
    fields: Fields, implemented: tuple[str, ...] = (), rope: Rope | None = None
) -> dict[str, Any]:
    """What all Gemmas have in common."""
    # The first releases say "gelu" and mean the tanh form; `hidden_activation` came to correct that
    # and transformers 5 dropped it again for Gemma 1.
    said = {fields.value(name) for name in ("hidden_act", "hidden_activation")} - {None}
    said = {"gelu_pytorch_tanh" if name == "gelu" else name for name in said}
    if len(said) > 1:
        raise fields.error("hidden_activation", "contradicts hidden_act")
    return {
        **_common(fields, implemented, rope=rope, tied=True),
        "activation": said.pop() if said else "gelu_pytorch_tanh",
        "embedding_scale": math.sqrt(fields.count("hidden_size")),
        "norm_offset": 1.0,
    }


def _with_defaults(fields: Fields, **defaults: Any) -> Fields:
    """The same fields, with values for those that are missing or null."""
    missing = {name: value for name, value in defaults.items() if fields.value(name) is None}
    filled = Fields({**fields.raw, **missing}, fields.where)
    filled.seen = fields.seen
    return filled


def _with_head_dim(fields: Fields) -> Fields:
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    if fields.value("head_dim") is None and hidden % heads:
        raise fields.error("hidden_size", f"is no multiple of num_attention_heads ({heads})")
    return _with_defaults(fields, head_dim=hidden // heads)


def _windows(
    fields: Fields, layers: int, is_local: Callable[[int], bool]
) -> tuple[int | None, ...]:
    """Each layer's window; `is_local` says which have one where the file does not."""
    kinds = fields.value("layer_types")
    if kinds is None:
        kinds = [("full_attention", "sliding_attention")[is_local(i)] for i in range(layers)]
    valid = isinstance(kinds, list) and set(kinds) <= {"sliding_attention", "full_attention"}
    if not valid or len(kinds) != layers:
        problem = f"must name sliding_attention or full_attention for each of {layers} layers"
        raise fields.error("layer_types", problem)
    if "sliding_attention" not in kinds:
        fields.seen.add("sliding_window")
        return ()
    window = fields.count("sliding_window")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _qwen_windows(fields: Fields, layers: int) -> tuple[int | None, ...]:
    """Windows of the layers from `max_window_layers` on, if `use_sliding_window`."""
    first = fields.value("max_window_layers", 28)
    if type(first) is not int or first < 0:
        raise fields.error("max_window_layers", "must be a whole number")
    used = fields.flag("use_sliding_window", False) and fields.value("sliding_window") is not None
    windows = _windows(fields, layers, lambda layer: used and layer >= first)
    if windows and not used:
        raise fields.error("layer_types", "contradicts use_sliding_window and sliding_window")
    return windows


def _rope(fields: Fields, theta: float = 10_000.0) -> Rope:
    """Rotary embedding, from either dialect or from both; `theta` is what silence means."""
    length = functools.partial(fields.count, "max_position_embeddings")
    old, new = fields.inner("rope_scaling"), fields.inner("rope_parameters")
    saying = [part for part in (fields, old, new) if part and part.value("rope_theta") is not None]
    thetas = [part.number("rope_theta") for part in saying] or [theta]
    if len(set(thetas)) > 1:
        said = ", ".join(map(str, thetas))
        raise fields.error("rope_theta", f"contradicts rope_scaling or rope_parameters ({said})")
    by_old, by_new = (_scaling(part, length) if part else None for part in (old, new))
    if old and new and by_old != by_new:
        raise fields.error("rope_scaling", f"contradicts rope_parameters ({dict(new.raw)})")
    return Rope(thetas[0], by_new if new else by_old)


def _gemma3_ropes(fields: Fields) -> tuple[Rope, Rope]:
    """(global, local) rotary embedding: transformers 5 gives each kind of layer its own object."""
    both = fields.inner("rope_parameters")
    theta = fields.value("rope_local_base_freq")
    local_theta = 10_000.0 if theta is None else fields.number("rope_local_base_freq")
    if both is None:
        return _rope(fields, theta=1e6), Rope(local_theta)
    kinds = {"full_attention": {}, "sliding_attention": {}} | dict(both.raw)
    unknown = sorted(kinds.keys() - {"full_attention", "sliding_attention"})
    if unknown:
        problem = f"must have full_attention and sliding_attention, not {', '.join(unknown)}"
        raise fields.error("rope_parameters", problem)
    # In the words of one object for all layers, the rest is as for others.
    flat = {**fields.raw, "rope_parameters": kinds["full_attention"]}
    local = Fields(
        {"rope_parameters": kinds["sliding_attention"], "rope_theta": theta}, fields.where
    )
    rope, local_rope = _rope(Fields(flat, fields.where), theta=1e6), _rope(local)
    if local_rope.scaling is not None:
        raise both.error("sliding_attention", "is scaled, which transformers 4 cannot say")
    fields.seen.update({"rope_theta", "rope_scaling"})
    return rope, local_rope


def _scaling(fields: Fields, length: Callable[[], int]) -> Linear | Dynamic | Llama3 | None:
    """What a rope object says beyond theta; `length` is the model's `max_position_embeddings`."""
    kind = fields.value("rope_type", fields.value("type", "default"))
    fields.refuse({"partial_rotary_factor": (None, 1.0)})
    fields.value("rope_theta")
    match kind:
        case "default":
            scaling = None
        case "linear":
            scaling = Linear(fields.number("factor"))
        case "dynamic":
            # transformers goes by the model's length whatever is said here.
            scaling = Dynamic(fields.number("factor"), length())
            if fields.count("original_max_position_embeddings", length()) != length():
                problem = f"is not max_position_embeddings ({length()}), by which it is scaled"
                raise fields.error("original_max_position_embeddings", problem)
        case "llama3":
            low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
            if low >= high:
                raise fields.error("low_freq_factor", f"must be below high_freq_factor ({high})")
            original = fields.value("original_max_position_embeddings")
            original = (
                length() if original is None else fields.count("original_max_position_embeddings")
            )
            scaling = Llama3(fields.number("factor"), low, high, original)
        case _:
            problem = "is not understood: default, linear, dynamic and llama3 are"
            raise fields.error("rope_type" if "rope_type" in fields.raw else "type", problem)
    unknown = sorted(fields.raw.keys() - fields.seen)
    if unknown:
        raise fields.error(unknown[0], f"is not understood beside rope_type {kind!r}")
    return scaling


def _scaling_words(rope: Rope) -> dict[str, Any] | None:
    match rope.scaling:
        case None:
            return None
        case Linear(factor):
            return {"rope_type": "linear", "factor": factor}
        case Dynamic(factor):
            return {"rope_type": "dynamic", "factor": factor}
        case Llama3(factor, low, high, original):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }


def _rope_words(rope: Rope) -> dict[str, Any]:
    return (_scaling_words(rope) or {"rope_type": "default"}) | {"rope_theta": rope.theta}


def _write_nothing(config: ModelConfig) -> dict[str, Any]:
    return {}


def _write_mistral(config: ModelConfig) -> dict[str, Any]:
    return {"sliding_window": config.windows[0] if config.windows else None}


def _write_windows(config: ModelConfig) -> dict[str, Any]:
    local = [window is not None for window in config.windows or (None,) * config.num_layers]
    return {
        "layer_types": [("full_attention", "sliding_attention")[is_local] for is_local in local],
        "sliding_window": max((w for w in config.windows if w is not None), default=4096),
    }


def _write_qwen(config: ModelConfig) -> dict[str, Any]:
    return _write_windows(config) | {"use_sliding_window": any(config.windows)}


def _write_gemma2(config: ModelConfig) -> dict[str, Any]:
    # Rounded, so that 144 comes back as 144, and whole, because transformers refuses 144.0.
    scalar = float(f"{config.query_scale**-2:.12g}")
    return _write_windows(config) | {
        "hidden_activation": config.activation,
        "query_pre_attn_scalar": int(scalar) if scalar.is_integer() else scalar,
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
    }


def _write_gemma3(config: ModelConfig) -> dict[str, Any]:
    local = config.local_rope or config.rope
    both = {"full_attention": _rope_words(config.rope), "sliding_attention": _rope_words(local)}
    return _write_gemma2(config) | {
        "rope_parameters": both,
        "rope_local_base_freq": local.theta,
    }


def _family(
    prefix: str,
    read: Callable[[Fields], ModelConfig],
    write: Callable[[ModelConfig], dict[str, Any]],
    classifier: str | None = None,
) -> Family:
    classifier = classifier or f"{prefix}ForSequenceClassification"
    return Family(classifier, f"{prefix}ForCausalLM", read, write)


FAMILIES = {
    "gemma": _family("Gemma", _gemma, _write_nothing),
    "gemma2": _family("Gemma2", _gemma2, _write_gemma2),
    "gemma3_text": _family(
        "Gemma3", _gemma3, _write_gemma3, classifier="Gemma3TextForSequenceClassification"
    ),
    "llama": _family("Llama", _llama, _write_nothing),
    "mistral": _family("Mistral", _mistral, _write_mistral),
    "qwen2": _family("Qwen2", _qwen2, _write_qwen),
    "qwen3": _family("Qwen3", _qwen3, _write_qwen),
}
