"""A tokenizer that knows every text: bytes and four special tokens."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxrm.data.tokenizer import ChatTokenizer

SPECIALS = ("<bos>", "<eos>", "<turn>", "<end>")

TOOLS = (
    "{% if tools %}<turn>tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<end>\n"
    "{% endif %}{% for m in messages %}<turn>{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}\n"
    "{% if m.reasoning_content %}({{ m.reasoning_content }}) {% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<end>\n"
    "{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
"""A template that writes all that a message holds."""


def byte_level(template: str | None = TOOLS) -> ChatTokenizer:
    """The tokenizer with this chat template. It begins text with <bos>, unless that is rendered."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 0)]
    )
    hf = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", chat_template=template
    )
    return ChatTokenizer(hf, "byte_level")
