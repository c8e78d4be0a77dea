"""What a version of transformers makes of model directories, for tests/test_round_trip.py.

    python tests/transformers_reader.py CALLS.json ANSWERS.json

answers a list of calls, [function below, arguments], with a list. It imports nothing but torch and
transformers, so that a Python with another version of these can run it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

Conversation = list[dict[str, str]]


@torch.no_grad()
def scores_of_chats(
    directory: str, chats: list[Conversation], dtype: str = "float32"
) -> dict[str, list[list[float]]]:
    """Rewards [chats, labels] of a batch by the side on which it is padded."""
    model = _model(AutoModelForSequenceClassification, directory, dtype)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    found = {}
    for side in ("right", "left"):
        tokenizer.padding_side = side
        batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        assert not batch["attention_mask"].all()
        found[side] = model(**batch).logits.float().tolist()
    return found


@torch.no_grad()
def scores_of_ids(directory: str, texts: list[list[int]]) -> list[list[float]]:
    """Rewards [texts, labels], each text by itself."""
    model = _model(AutoModelForSequenceClassification, directory)
    return [_logits(model, ids)[0].tolist() for ids in texts]


@torch.no_grad()
def logps_of_ids(directory: str, texts: list[list[int]]) -> list[list[float]]:
    """Log-probs of every token of a text but the first, given those before it."""
    model = _model(AutoModelForCausalLM, directory)
    found = []
    for ids in texts:
        logps = _logits(model, ids)[0].log_softmax(-1)
        found.append([logps[i, token].item() for i, token in enumerate(ids[1:])])
    return found


@torch.no_grad()
def make(
    directory: str, config: dict[str, Any], tokenizer: str, chats: list[Conversation]
) -> dict[str, list[list[float]]]:
    """Saves a random classifier with the tokenizer of a directory, and scores chats with it."""
    torch.manual_seed(0)
    reader = AutoTokenizer.from_pretrained(tokenizer)
    ids = {
        f"{name}_token_id": getattr(reader, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(**config | ids | {"num_labels": 1})
    )
    for name, parameter in model.named_parameters():
        parameter.normal_("norm" in name, 0.4)
    model.save_pretrained(directory)
    reader.save_pretrained(directory)
    return scores_of_chats(directory, chats)


def _model(kind: Any, directory: str, dtype: str = "float32") -> Any:
    # Of torch's implementations of attention only the eager one knows soft caps, which transformers
    # 4 takes for Gemma 2 when asked.
    options = {"attn_implementation": "eager", "dtype": getattr(torch, dtype)}
    return kind.from_pretrained(directory, **options).eval()


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    # Dynamic frequencies are kept from longer texts before this one, unless made anew.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model(torch.tensor([ids])).logits


def answer(calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """What each call returns."""
    return [globals()[function](**arguments) for function, arguments in calls]


if __name__ == "__main__":
    calls_file, answers_file = map(Path, sys.argv[1:])
    answers_file.write_text(json.dumps(answer(json.loads(calls_file.read_text("utf-8")))))
