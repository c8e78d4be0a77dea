"""Shapes of public models and of small ones, and models of them with random weights.

    python -m benchmarks.shapes DIR --shapes medium --tokenizer DIR

What is written is a language model as any other, for whatever takes a base.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from jaxrm import cli, toy
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import require
from jaxrm.huggingface import families, hub, names
from jaxrm.models import transformer

LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "max_position_embeddings": 2**17}
SHAPES: dict[str, dict[str, Any]] = {
    "gemma-2b": {
        "model_type": "gemma",
        "vocab_size": 256_000,
        "hidden_size": 2048,
        "intermediate_size": 16_384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
    },
    "gemma-2-2b": {
        "model_type": "gemma2",
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
    },
    "small": LLAMA
    | {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
    "medium": LLAMA
    | {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
    "tiny": {
        "model_type": "gemma",
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    },
}
"""Of decoders, as a `config.json` has them; small and medium have about 4 and 80 million weights
beside those of the tokenizer's vocabulary."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to write, and where."""

    out: tyro.conf.Positional[Path]
    """A directory that does not exist yet."""
    shapes: Literal["gemma-2b", "gemma-2-2b", "small", "medium", "tiny"] = "medium"
    tokenizer: Path = toy.TOKENIZER
    """A model with a tokenizer, as a directory or by its name on the Hub; the toy world's cuts real
    words into many tokens. The vocabulary is as large as the tokenizer's at least."""
    dtype: Literal["float32", "bfloat16"] = "float32"


def main(cfg: Config) -> None:
    """Draws the weights and writes the model."""
    require(not cfg.out.exists(), "OUT", "a directory that does not exist yet", cfg.out)
    tokenizer = load_tokenizer(names.local(cfg.tokenizer, files=names.TOKENIZER).directory)
    hf, shapes = tokenizer.hf, SHAPES[cfg.shapes]
    ids = {name: getattr(hf, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    vocabulary = max(len(hf), shapes.get("vocab_size", 0))
    config = families.read({**shapes, **ids, "vocab_size": vocabulary})
    hub.save(transformer.create(config, None, seed=0), cfg.out, tokenizer, dtype=cfg.dtype)
    print(cfg.out)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
