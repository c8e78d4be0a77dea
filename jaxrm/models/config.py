"""What a decoder computes, read from and written to a Hugging Face ``config.json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from jaxrm.errors import ModelFileError

Activation = Literal["gelu_pytorch_tanh", "gelu", "silu"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder's computation, without a family's name for any of it.

    Attributes:
      model_type: Hugging Face's name of the family, which decides how the rest is read and written.
      embedding_scale: factor on the token embeddings.
      norm_offset: RMS norms multiply by ``norm_offset + weight``.
      query_scale: factor on query-key products.
      post_norms: norms also after attention and after the MLP, before each is added.
      windows: per layer, how many positions back a token sees (None: all). Empty: all, everywhere.
      attention_softcap, logit_softcap: ``cap * tanh(x / cap)`` on attention or vocabulary logits.
      initializer_range: standard deviation of fresh weight matrices.
      extra: the ``config.json`` that this was read from, kept so that saving loses nothing.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    query_scale: float
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    activation: Activation = "silu"
    tie_embeddings: bool = False
    embedding_scale: float = 1.0
    norm_offset: float = 0.0
    post_norms: bool = False
    windows: tuple[int | None, ...] = ()
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    initializer_range: float = 0.02
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_attention_heads {self.num_heads} is no multiple of "
                f"num_key_value_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd, and rotary embedding turns halves")
        if self.activation not in get_args(Activation):
            raise ValueError(
                f"hidden_act {self.activation!r} is not one of {', '.join(get_args(Activation))}"
            )
        if self.windows and len(self.windows) != self.num_layers:
            raise ValueError(f"{len(self.windows)} windows for {self.num_layers} layers")

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
        """Reads the contents of a ``config.json``; `where` names the file in error messages.

        Raises:
          ModelFileError: an unknown ``model_type``, a missing or malformed field, or a field that
            changes the computation in a way that is not implemented.
        """
        fields = _Fields(raw, where)
        family = raw.get("model_type")
        if family not in _FAMILIES:
            raise fields.error("model_type", f"is not one of {', '.join(_FAMILIES)}")
        try:
            return _FAMILIES[family].read(fields)
        except ValueError as error:
            raise ModelFileError(f"{where}: {error}") from error

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """The contents of a ``config.json`` for weights of `dtype`, in both dialects of the format.

        transformers 4 reads ``rope_theta`` and ``torch_dtype`` and ignores ``rope_parameters`` and
        ``dtype``, silently; transformers 5 writes only the latter. So both are written.

        Raises:
          ModelFileError: the family's ``config.json`` has no words for this computation.
        """
        eos = self.eos_token_id
        written = {
            **self.extra,
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": self.activation,
            "rms_norm_eps": self.rms_norm_eps,
            "initializer_range": self.initializer_range,
            "tie_word_embeddings": self.tie_embeddings,
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(eos) if isinstance(eos, tuple) else eos,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "torch_dtype": dtype,
            "dtype": dtype,
            **_FAMILIES[self.model_type].write(self),
        }
        read_back = ModelConfig.from_hf(written)
        if read_back != self:
            differing = ", ".join(
                f"{field.name}={getattr(self, field.name)!r}"
                for field in dataclasses.fields(self)
                if field.compare and getattr(self, field.name) != getattr(read_back, field.name)
            )
            raise ModelFileError(
                f"a config.json of model_type {self.model_type!r} cannot say {differing}"
            )
        return written


class _Fields:
    """Typed reading of a ``config.json``, with errors that name the file and the field."""

    def __init__(self, raw: Mapping[str, Any], where: str):
        self.raw, self.where = raw, where

    def error(self, name: str, problem: str) -> ModelFileError:
        found = repr(self.raw[name]) if name in self.raw else "missing"
        return ModelFileError(f"{self.where}: {name} ({found}) {problem}")

    def count(self, name: str) -> int:
        value = self.raw.get(name)
        if type(value) is not int or value < 1:
            raise self.error(name, "must be a positive integer")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.raw.get(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.error(name, "must be a positive number")
        return float(value)

    def cap(self, name: str, default: float) -> float | None:
        """A bound, where null means none."""
        return None if self.raw.get(name, default) is None else self.number(name, default)

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw.get(name, default)
        if type(value) is not bool:
            raise self.error(name, "must be true or false")
        return value

    def token_id(self, name: str) -> int | None:
        value = self.raw.get(name)
        if value is not None and type(value) is not int:
            raise self.error(name, "must be a token id or null")
        return value

    def token_ids(self, name: str) -> int | tuple[int, ...] | None:
        value = self.raw.get(name)
        if not isinstance(value, list):
            return self.token_id(name)
        if not all(type(item) is int for item in value):
            raise self.error(name, "must be token ids")
        return tuple(value)

    def rope_theta(self) -> float:
        """The base of the rotary frequencies, from either dialect of the format."""
        for name in ("rope_scaling", "rope_parameters"):
            rope = self.raw.get(name) or {}
            known = isinstance(rope, dict) and set(rope) <= {"rope_type", "type", "rope_theta"}
            if not known or rope.get("rope_type", rope.get("type", "default")) != "default":
                raise self.error(name, "is not understood: only default rotary embedding is")
        theta = self.number("rope_theta", 10_000.0)
        parameters = _Fields(self.raw.get("rope_parameters") or {}, self.where)
        in_parameters = parameters.number("rope_theta", theta)
        if "rope_theta" in self.raw and in_parameters != theta:
            raise self.error("rope_theta", f"contradicts rope_parameters ({in_parameters})")
        return in_parameters

    def refuse(self, neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuses every field whose value is not one of those that change nothing."""
        for name, values in neutral.items():
            if self.raw.get(name, values[0]) not in values:
                raise self.error(name, "changes the computation and is not implemented")

    def common(self) -> dict[str, Any]:
        """What every family of decoders says in the same words."""
        return {
            "model_type": self.raw["model_type"],
            "vocab_size": self.count("vocab_size"),
            "hidden_size": self.count("hidden_size"),
            "intermediate_size": self.count("intermediate_size"),
            "num_layers": self.count("num_hidden_layers"),
            "num_heads": self.count("num_attention_heads"),
            "num_kv_heads": self.count("num_key_value_heads"),
            "head_dim": self.count("head_dim"),
            "rope_theta": self.rope_theta(),
            "rms_norm_eps": self.number("rms_norm_eps", 1e-6),
            "initializer_range": self.number("initializer_range", 0.02),
            "pad_token_id": self.token_id("pad_token_id"),
            "bos_token_id": self.token_id("bos_token_id"),
            "eos_token_id": self.token_ids("eos_token_id"),
            "extra": dict(self.raw),
        }


# Fields with which some decoder or training recipe changes what a plain one computes, and the
# values with which they do not. A family leaves out what it implements.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "attention_dropout": (0.0, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "layer_types": (None,),
    "mlp_bias": (False, None),
    "num_experts": (None,),
    "num_local_experts": (None,),
    "partial_rotary_factor": (None, 1.0),
    "quantization_config": (None,),
    "query_pre_attn_scalar": (None,),
    "sliding_window": (None,),
    "use_bidirectional_attention": (False, None),
}


def _gemma(fields: _Fields) -> ModelConfig:
    """Gemma 1 (arXiv 2403.08295)."""
    fields.refuse(_NEUTRAL)
    common = fields.common()
    return ModelConfig(**common, **_gemmas(fields), query_scale=common["head_dim"] ** -0.5)


def _gemma2(fields: _Fields) -> ModelConfig:
    """Gemma 2 (arXiv 2408.00118): soft-caps, every other layer local, norms on both sides."""
    own = ("attn_logit_softcapping", "final_logit_softcapping", "layer_types")
    own += ("query_pre_attn_scalar", "sliding_window")
    fields.refuse({name: values for name, values in _NEUTRAL.items() if name not in own})
    common = fields.common()
    layers, kinds = common["num_layers"], fields.raw.get("layer_types")
    if kinds is None:  # the first releases say nothing and mean this
        kinds = [("sliding_attention", "full_attention")[i % 2] for i in range(layers)]
    known = isinstance(kinds, list) and set(kinds) <= {"sliding_attention", "full_attention"}
    if not known or len(kinds) != layers:
        problem = f"must name sliding_attention or full_attention for each of {layers} layers"
        raise fields.error("layer_types", problem)
    windows: tuple[int | None, ...] = ()
    if "sliding_attention" in kinds:
        window = fields.count("sliding_window")
        windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return ModelConfig(
        **common,
        **_gemmas(fields),
        query_scale=fields.number("query_pre_attn_scalar", 256.0) ** -0.5,
        post_norms=True,
        windows=windows,
        attention_softcap=fields.cap("attn_logit_softcapping", 50.0),
        logit_softcap=fields.cap("final_logit_softcapping", 30.0),
    )


def _gemmas(fields: _Fields) -> dict[str, Any]:
    """What both Gemmas have in common."""
    # The first releases say "gelu" and mean the tanh form; `hidden_activation` came to correct that
    # and transformers 5 dropped it again for Gemma 1.
    said = {fields.raw.get(name) for name in ("hidden_act", "hidden_activation")} - {None}
    said = {"gelu_pytorch_tanh" if name == "gelu" else name for name in said}
    if len(said) > 1:
        raise fields.error("hidden_activation", "contradicts hidden_act")
    return {
        "activation": said.pop() if said else "gelu_pytorch_tanh",
        "tie_embeddings": fields.flag("tie_word_embeddings", True),
        "embedding_scale": math.sqrt(fields.count("hidden_size")),
        "norm_offset": 1.0,
    }


def _write_gemma2(config: ModelConfig) -> dict[str, Any]:
    local = [window is not None for window in config.windows or (None,) * config.num_layers]
    window = max((window for window in config.windows if window is not None), default=4096)
    # Rounded, so that 144 comes back as 144, and whole, because transformers refuses 144.0.
    scalar = float(f"{config.query_scale**-2:.12g}")
    return {
        "hidden_activation": config.activation,
        "query_pre_attn_scalar": int(scalar) if scalar.is_integer() else scalar,
        "layer_types": [("full_attention", "sliding_attention")[is_local] for is_local in local],
        "sliding_window": window,
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
    }


@dataclasses.dataclass(frozen=True)
class _Family:
    """How a family's ``config.json`` is read, and what it says beyond the common words."""

    read: Callable[[_Fields], ModelConfig]
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}


_FAMILIES = {"gemma": _Family(_gemma), "gemma2": _Family(_gemma2, _write_gemma2)}
