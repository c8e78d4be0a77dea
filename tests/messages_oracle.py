"""What Hugging Face's torch models say of conversations: the oracle of tests/test_messages.py.

    python -m tests.messages_oracle [FAMILY ...]

writes tests/fixtures/messages: for every response of rows.jsonl its hidden states, reward and
log-prob. It runs each response by itself, unpadded, and shares no code with jaxrm.

Gemma's is a whole directory, a small random GemmaForSequenceClassification with the toy world's
tokenizer, and has the gradients of one GRM loss as well; other tests use it as a small model. The
other families' directories are written anew wherever they are needed (`write`): the toy tokenizer
with the family's special tokens, its manner of rendering a chat, and weights drawn by name.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.support import FAMILIES

FOLDER = Path(__file__).parent / "fixtures" / "messages"
TOKENIZER = Path(__file__).parents[1] / "jaxrm" / "toy" / "assets"
ALPHA, BETA = 0.1, 0.1


@dataclasses.dataclass(frozen=True)
class Chat:
    """How a family's chats are written.

    Attributes:
      begin: the token that begins every text (BOS), if one does.
      eos, pad: the tokenizer's; Llama's and Mistral's come without padding.
      end_of_turn: what ends an answer.
      special, plain: further tokens of the template, declared special and not.
      words: what a text is cut into before its bytes are merged, if not as in the toy world.
      template: the folder of its chat_template.jinja, from `FOLDER`.
    """

    begin: str | None
    eos: str
    pad: str | None
    end_of_turn: str
    special: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    words: str | None = None
    template: str = ""


# Qwen's own, which transformers 5 puts into the place of any other in a model of type qwen2.
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GEMMA = Chat("<bos>", "<eos>", "<pad>", "<end_of_turn>", ("<start_of_turn>",))
_CHATML = Chat(
    None, "<|im_end|>", "<|endoftext|>", "<|im_end|>", ("<|im_start|>",), words=_QWEN_WORDS
)
CHATS = {
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "llama": Chat(
        "<|begin_of_text|>",
        "<|eot_id|>",
        None,
        "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"),
        template="llama",
    ),
    "mistral": Chat("<s>", "</s>", None, "</s>", ("[INST]", "[/INST]"), template="mistral"),
    "qwen2": dataclasses.replace(_CHATML, template="qwen2"),
    "qwen3": dataclasses.replace(_CHATML, plain=("<think>", "</think>"), template="qwen3"),
}


def family_tokenizer(family: str):
    """The toy world's tokenizer with a family's special tokens and chat template."""
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    chat = CHATS[family]
    made = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
    named = [token for token in (chat.begin, chat.eos, chat.pad) if token is not None]
    special = [*named, chat.end_of_turn, *chat.special]
    made.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    made.add_tokens([AddedToken(token, normalized=False) for token in chat.plain])
    if chat.words:
        words = pre_tokenizers.Split(Regex(chat.words), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.normalizer = normalizers.NFC()
        made.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    made.post_processor = TemplateProcessing(
        single=f"{chat.begin} $A" if chat.begin else "$A",
        special_tokens=[(chat.begin, made.token_to_id(chat.begin))] if chat.begin else [],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=chat.begin,
        eos_token=chat.eos,
        pad_token=chat.pad,
        extra_special_tokens=list(chat.special),
        chat_template=(FOLDER / chat.template / "chat_template.jinja").read_text("utf-8"),
    )


def family_config(family: str) -> dict[str, Any]:
    """The `config.json` of a small model of the family, with the ids of its tokenizer."""
    tokenizer = family_tokenizer(family)
    named = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in named}
    own = {"vocab_size": len(tokenizer), "num_labels": 1, "dtype": "float32"}
    return FAMILIES[family] | ids | own


def write(family: str, shapes: Mapping[str, tuple[int, ...]], directory: Path) -> None:
    """Writes a small model of the family, of tensors with these names and shapes."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    family_tokenizer(family).save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(family_config(family)))
    # Drawn by name, so that neither the order of the names nor who asks makes a difference.
    tensors = {
        name: np.random.default_rng(zlib.crc32(name.encode()))
        .normal("norm" in name, 0.4, shape)
        .astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(tensors, directory / "model.safetensors")


def torch_shapes(family: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the family's tensors, with both heads, as torch has them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**family_config(family))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    named = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return named | {"score.weight": (1, config.hidden_size)}


def answers(
    directory: Path = FOLDER, end_of_turn: str = "<end_of_turn>"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(values, gradients) by torch, in float32: values keyed "<row>/<response>/<what>"."""
    import torch
    from torch.nn.functional import logsigmoid
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    tokenizer = AutoTokenizer.from_pretrained(directory)
    # Of torch's implementations of attention only the eager one knows soft caps.
    eager = {"attn_implementation": "eager"}
    model = AutoModelForSequenceClassification.from_pretrained(directory, **eager).eval()
    language_model = AutoModelForCausalLM.from_pretrained(directory, **eager).eval()
    language_model.model = model.model
    language_model.tie_weights()
    rows = [json.loads(line) for line in (FOLDER / "rows.jsonl").read_text("utf-8").splitlines()]
    values: dict[str, np.ndarray] = {}
    losses = []
    for r, row in enumerate(rows):
        rewards, logps = [], []
        opened = tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        for k, answer in enumerate((row["chosen"], row["rejected"])):
            messages = [*row["prompt"], {"role": "assistant", "content": answer}]
            ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
            # The response is what follows the opened turn, up to its end-of-turn.
            end = len(ids) - ids[::-1].index(tokenizer.convert_tokens_to_ids(end_of_turn))
            start = len(tokenizer(opened, add_special_tokens=False)["input_ids"])
            hidden = model.model(torch.tensor([ids])).last_hidden_state[0]
            reward = model.score(hidden[-1])[0]
            everything = language_model(torch.tensor([ids])).logits[0].log_softmax(-1)
            targets = torch.arange(start, end)
            logp = everything[targets - 1, torch.tensor(ids)[targets]].sum()
            rewards.append(reward)
            logps.append(logp)
            values |= {
                f"{r}/{k}/ids": np.array(ids),
                f"{r}/{k}/hidden": hidden.detach().numpy(),
                f"{r}/{k}/reward": reward.detach().numpy(),
                f"{r}/{k}/logp": logp.detach().numpy(),
            }
        text = -logsigmoid(BETA * logps[0])
        losses.append(-(1 - ALPHA) * logsigmoid(rewards[0] - rewards[1]) + ALPHA * text)
    loss = torch.stack(losses).mean()
    loss.backward()
    values["loss"] = loss.detach().numpy()
    parameters = {**dict(language_model.named_parameters()), **dict(model.named_parameters())}
    return values, {name: p.grad.numpy() for name, p in parameters.items()}


def write_gemma() -> None:
    """Writes Gemma's fixture: the directory, values and gradients."""
    import torch
    from safetensors.numpy import save_file
    from transformers import AutoTokenizer, GemmaConfig, GemmaForSequenceClassification

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    config = GemmaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        num_labels=1,
        initializer_range=0.3,
    )
    model = GemmaForSequenceClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(0.0, 0.3)
    model.save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)
    values, gradients = answers()
    np.savez_compressed(FOLDER / "values.npz", **values)
    save_file(gradients, FOLDER / "gradients.safetensors")


def main(families: list[str]) -> None:
    """Writes the fixtures of the families named, or of all."""
    for family in families or CHATS:
        if family == "gemma":
            write_gemma()
            continue
        with tempfile.TemporaryDirectory() as scratch:
            write(family, torch_shapes(family), Path(scratch))
            values, _ = answers(Path(scratch), CHATS[family].end_of_turn)
        (FOLDER / family).mkdir(exist_ok=True)
        np.savez_compressed(FOLDER / family / "values.npz", **values)


if __name__ == "__main__":
    main(sys.argv[1:])
