"""GRM's losses on real pairs by torch, after the official recipe: the oracle of
tests/test_grm_losses.py.

    python -m tests.grm_oracle pairs_64.jsonl

writes tests/fixtures/grm/values.npz (numbers only) from the small Gemma of tests/fixtures/messages.
It batches as the recipe does, right-padded with the chosen and the rejected response of a pair one
after the other, labels as the recipe does where it is not told otherwise, and shares no code with
jaxrm.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from tests.messages_oracle import FOLDER

VALUES = Path(__file__).parent / "fixtures" / "grm" / "values.npz"
ALPHA, BETA, SMOOTHING, NEURONS = 0.01, 0.1, 0.1, 16
REGULARIZERS = ("sft", "nll", "dpo", "dpo_reference_free")
DIFFERENCES = ("newline", "user_turns", "two_bos", "dropout")
"""What the recipe does and jaxrm does not; tests/test_grm_losses.py says what and why."""

IDS = (
    "gsm8k/test/1189/0",
    "qa_feedback/201/12",
    "truthfulqa/21/0",
    "truthfulqa/398/0",
    "tarm/wikisearch/agent_wikisearch_test_obs/156",
    "hh/helpful-base/test/777",
    "hh/helpful-base/test/677",
    "hh/helpful-base/test/2135",
)
SEVERAL_TURNS = IDS[-2:]
"""Pairs whose first exchange counts as part of both responses, as in the recipe's loader of
Unified-Feedback, which takes the first message for the prompt."""


def rows(pairs: Path) -> list[dict[str, Any]]:
    """The chosen pairs as messages, each with a margin, which the file does not have."""
    by_id = {row["id"]: row for row in map(json.loads, pairs.read_text("utf-8").splitlines())}
    made = []
    for i, row in enumerate(by_id[name] for name in IDS):
        cut = 1 if row["id"] in SEVERAL_TURNS else len(row["prompt"])
        shared = row["prompt"][cut:]
        answers = {
            kind: [*shared, {"role": "assistant", "content": row[kind]}]
            for kind in ("chosen", "rejected")
        }
        made.append({"id": row["id"], "prompt": row["prompt"][:cut], "margin": 0.25 * i} | answers)
    return made


def head_weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight [inputs, outputs], bias) of both layers of a value head on the small Gemma."""
    rng = np.random.default_rng(3)
    hidden = json.loads((FOLDER / "config.json").read_text())["hidden_size"]
    sizes = ((hidden, NEURONS), (NEURONS, 1))
    return [
        tuple(rng.normal(0, 0.3, shape).astype(np.float32) for shape in (size, size[1:]))
        for size in sizes
    ]


def answers(pairs: Path) -> dict[str, np.ndarray]:
    """Every term and total, and the SFT total under each of the recipe's own choices.

    `rewards`, `logps`, `reference_logps` and `labels` (how many tokens are labels) are [pairs, 2],
    chosen first; a term or total is one number.
    """
    import torch
    from torch.nn.functional import logsigmoid

    found = _read(rows(pairs), recipes_own=())
    rewards, logps, reference = (found[name] for name in ("rewards", "logps", "reference_logps"))
    margin = torch.tensor([row["margin"] for row in rows(pairs)])
    lead, contrast = rewards[:, 0] - rewards[:, 1], logps[:, 0] - logps[:, 1]
    tied = contrast - (reference[:, 0] - reference[:, 1])
    terms = {
        "baseline": -logsigmoid(lead).mean(),
        "sft": -logsigmoid(BETA * logps[:, 0]).mean(),
        "nll": -logps[:, 0].mean(),
        "dpo": -logsigmoid(BETA * tied).mean(),
        "dpo_reference_free": -logsigmoid(BETA * contrast).mean(),
        "margin": -logsigmoid(lead - margin).mean(),
        "label_smoothed": -(
            (1 - SMOOTHING) * logsigmoid(lead) + SMOOTHING * logsigmoid(-lead)
        ).mean(),
    }
    found |= terms
    for name in REGULARIZERS:
        found[f"total/{name}"] = (1 - ALPHA) * terms["baseline"] + ALPHA * terms[name]
    for name in DIFFERENCES:
        other = _read(rows(pairs), recipes_own=(name,))
        reward = -logsigmoid(other["rewards"][:, 0] - other["rewards"][:, 1]).mean()
        text = -logsigmoid(BETA * other["logps"][:, 0]).mean()
        found[f"as_the_recipe/{name}"] = (1 - ALPHA) * reward + ALPHA * text
    return {name: value.numpy() for name, value in found.items()}


def _read(rows: list[dict[str, Any]], recipes_own: Container[str]) -> dict[str, Any]:
    """Rewards and summed log-probs [pairs, 2] of one right-padded batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER, padding_side="right")
    policy = AutoModelForCausalLM.from_pretrained(FOLDER).eval()
    reference = copy.deepcopy(policy)
    reference.model.norm.weight.data.zero_()  # some other model, and easily made

    linear = [torch.nn.Linear(*weight.shape) for weight, _ in head_weights()]
    for layer, (weight, bias) in zip(linear, head_weights(), strict=True):
        layer.weight.data, layer.bias.data = torch.tensor(weight.T), torch.tensor(bias)
    head = torch.nn.Sequential(torch.nn.Dropout(0.1), linear[0], torch.nn.ReLU(), linear[1])
    head.train("dropout" in recipes_own)

    texts = [
        _labelled(tokenizer, row["prompt"], row[kind], recipes_own)
        for row in rows
        for kind in ("chosen", "rejected")
    ]
    batch = tokenizer.pad({"input_ids": [ids for ids, _ in texts]}, return_tensors="pt")
    labels = torch.full_like(batch["input_ids"], -100)
    for row, (_, of_row) in zip(labels, texts, strict=True):
        row[: len(of_row)] = torch.tensor(of_row)

    def summed(model):
        logits = model(**batch).logits[:, :-1].transpose(1, 2)
        lost = torch.nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none")
        return -lost.sum(1).reshape(-1, 2)

    torch.manual_seed(0)
    with torch.no_grad():
        hidden = policy.model(**batch).last_hidden_state
        last = hidden[torch.arange(len(hidden)), batch["attention_mask"].sum(1) - 1]
        return {
            "rewards": head(last).reshape(-1, 2),
            "logps": summed(policy),
            "reference_logps": summed(reference),
            "labels": (labels[:, 1:] >= 0).sum(1).reshape(-1, 2),
        }


def _labelled(
    tokenizer, prompt: list[dict], response: list[dict], recipes_own: Container[str]
) -> tuple[list[int], list[int]]:
    """(ids, labels) of a text; labels are -100 wherever nothing is to be learned."""

    def ids_of(messages, opened=False):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
        return tokenizer(text, add_special_tokens="two_bos" in recipes_own)["input_ids"]

    ids = ids_of(prompt + response)
    # Per turn that is to be learned, the tokens before it and those up to its end.
    turns = [
        (ids_of(prompt + response[:i], opened=True), ids_of(prompt + response[: i + 1]))
        for i, message in enumerate(response)
        if message["role"] == "assistant"
    ]
    if "user_turns" in recipes_own:
        turns = [(ids_of(prompt, opened=True), ids)]
    labels = [-100] * len(ids)
    for before, upto in turns:
        end = len(upto) if "newline" in recipes_own else len(upto) - 1
        labels[len(before) : end] = ids[len(before) : end]
    return ids, labels


def main(pairs: str) -> None:
    """Writes the values."""
    VALUES.parent.mkdir(exist_ok=True)
    np.savez_compressed(VALUES, **answers(Path(pairs)))


if __name__ == "__main__":
    main(*sys.argv[1:])
