"""Small tokenizers of the kinds that AutoTokenizer of transformers 5 builds anew, each otherwise.

`write` leaves one in a directory as their models have it: a `tokenizer.json`, and beside it the
name of a class that normalises and divides text in another manner.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

SPECIAL = ("<s>", "</s>", "<unk>", "<|end|>")
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def byte_level() -> Tokenizer:
    """As Llama 3's: a byte-level BPE, under a class that knows pieces with "▁"."""
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ċ", "Ċ"), ("1", "2"), ("12", "3")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(_vocabulary(alphabet, merges), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def metaspace() -> Tokenizer:
    """As SentencePiece makes them: pieces with "▁" and bytes, here with none before a text."""
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    pieces = [*"▁abcehnostT123.,", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = _vocabulary(pieces, merges)
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def digits() -> Tokenizer:
    """A byte-level BPE that divides numbers into digits, which GPT-2's class does not."""
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), tokenizer.pre_tokenizer]
    )
    return tokenizer


KINDS = {
    "byte-level": (byte_level, "LlamaTokenizerFast"),
    "metaspace": (metaspace, "LlamaTokenizerFast"),
    "digits": (digits, "GPT2TokenizerFast"),
}
"""By name, a tokenizer and the class that is on record for it."""


def write(kind: str, directory: Path, **config: Any) -> Tokenizer:
    """The tokenizer of a kind, written with `config` on record beside it."""
    make, family = KINDS[kind]
    tokenizer = make()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": CHAT}
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": family} | names | config
    (directory / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return tokenizer


def _vocabulary(pieces: list[str], merges: list[tuple[str, str]]) -> dict[str, int]:
    words = [*SPECIAL, *pieces, *(left + right for left, right in merges)]
    return {word: i for i, word in enumerate(words)}
