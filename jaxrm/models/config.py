"""What a decoder computes, without a family's name for any of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jaxrm.models.rotary import Rope

Activation = Literal["gelu_pytorch_tanh", "gelu", "silu"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder's computation; `jaxrm.huggingface.families` reads it from a `config.json`.

    Attributes:
      model_type: Hugging Face's name of the family, which decides how the rest is written.
      embedding_scale: factor on the token embeddings.
      norm_offset: RMS norms multiply by ``norm_offset + weight``.
      query_scale: factor on query-key products.
      post_norms: norms also after attention and after the MLP, before each is added.
      qkv_bias: the query, key and value projections add a bias.
      qk_norms: queries and keys pass an RMS norm over head_dim, before rotary embedding.
      windows: per layer, how many positions back a token sees (None: all). Empty: all, everywhere.
      local_rope: rotary embedding of the layers that have a window (None: `rope`, as everywhere).
      attention_softcap, logit_softcap: ``cap * tanh(x / cap)`` on attention or vocabulary logits.
      language_head: whether there is a language-model head. A `config.json` does not say: files of
        a sequence classifier leave out one that is not the embedding, and then nothing has
        log-probs.
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
    rope: Rope = Rope()
    rms_norm_eps: float = 1e-6
    activation: Activation = "silu"
    tie_embeddings: bool = False
    embedding_scale: float = 1.0
    norm_offset: float = 0.0
    post_norms: bool = False
    qkv_bias: bool = False
    qk_norms: bool = False
    windows: tuple[int | None, ...] = ()
    local_rope: Rope | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    language_head: bool = True
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
