"""Makes the toy world's tokenizer, in Hugging Face layout with Gemma's chat conventions.

    python -m jaxrm.toy.tokenizer [DIRECTORY]

A byte-level BPE: any text round-trips, and the words of both lexicons are mostly single tokens. The
files depend on nothing but the world's own text, so that building them again changes no byte.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from jaxrm.toy import TOKENIZER, World
from jaxrm.toy.lexicons import LEXICONS

VOCABULARY = 1100
SPECIAL = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")

# Gemma's template; a system message joins the first user turn, which Gemma leaves to the caller.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- set system = '' -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'] | trim + '\\n\\n' -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Roles must alternate user/assistant/...') -}}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else 'user' -%}
    {{- '<start_of_turn>' + role + '\\n' + (system if loop.first else '') -}}
    {{- message['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""


def build(directory: Path) -> None:
    """Writes the toy world's tokenizer."""
    train_tokenizer(_text(), VOCABULARY, directory)


def train_tokenizer(texts: Iterable[str], vocabulary: int, directory: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja of so many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = ("<bos>", tokenizer.token_to_id("<bos>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[bos]
    )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")


def _text() -> Iterator[str]:
    """What is said in both lexicons, turn by turn, without the template's marks."""
    for lexicon in LEXICONS:
        for document in World(0, lexicon).pretraining_text(2000):
            for turn in "".join((document.prompt, *document.responses)).split("<end_of_turn>\n"):
                yield turn.removeprefix("<start_of_turn>")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else TOKENIZER)
