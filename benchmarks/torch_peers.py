"""A training step as torch users take it, after GRM's reference code.

It reads what ours reads, token by token, from the same weights and the same head.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

from benchmarks.recipe import Peers, Recipe, Taken
from jaxrm.data.packing import TokenTree, longest_branch

IGNORED = -100
"""A label that is none."""


def steps(base: Path, trees: Sequence[TokenTree], recipe: Recipe, head: np.ndarray) -> Peers:
    """The peers' steps on the same pairs, by name.

    Args:
      base: a directory in Hugging Face's layout.
      trees: pairs, the chosen response first, in the order that they come.
      head: float32 [d].
    """
    by_length = sorted(trees, key=longest_branch)
    return {
        "torch, as GRM's code": GrmStep(base, trees, recipe, head),
        "torch, sorted by length": GrmStep(base, by_length, recipe, head),
    }


class GrmStep:
    """Micro-batches padded to their longest, chosen and rejected in one forward pass, logits of
    every token, a live reference for DPO, gradients accumulated, AdamW."""

    def __init__(self, base: Path, trees: Sequence[TokenTree], recipe: Recipe, head: np.ndarray):
        self.recipe = recipe
        self.model = _causal(base)
        self.reference = None
        if recipe.adapter is not None:
            self.model = _with_lora(self.model, recipe.adapter)
        elif recipe.loss == "dpo":
            self.reference = _causal(base).requires_grad_(False)
        self.head = torch.nn.Parameter(torch.tensor(head, device=self.model.device))
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.trained = [*trained, self.head]
        rates = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=rates.learning_rate,
            betas=(rates.b1, rates.b2),
            eps=rates.eps,
            weight_decay=rates.weight_decay,
        )
        parts = range(0, len(trees), recipe.micro_batch)
        self.micro_batches = [
            _padded(trees[i : i + recipe.micro_batch], self.model.device) for i in parts
        ]
        self.pairs = len(trees)

    def __call__(self) -> Taken:
        """One optimizer step."""
        self.optimizer.zero_grad()
        total = 0.0
        for ids, attention, labels in self.micro_batches:
            loss = self._loss(ids, attention, labels) / self.pairs
            loss.backward()
            total += float(loss.detach())
        clip = self.recipe.optimizer.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, clip))
        self.optimizer.step()
        return Taken(total, norm)

    def _loss(
        self, ids: torch.Tensor, attention: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The sum over a micro-batch's pairs."""
        recipe, last = self.recipe, attention.sum(dim=1) - 1
        inputs = {"input_ids": ids, "attention_mask": attention, "use_cache": False}
        if recipe.loss == "bt":
            states = self._trunk(**inputs).last_hidden_state
            return _bradley_terry(self._rewards(states, last))
        output = self.model(**inputs, output_hidden_states=True)
        reward = _bradley_terry(self._rewards(output.hidden_states[-1], last))
        chosen, rejected = _logps(output.logits, labels).chunk(2)
        if recipe.loss == "sft":
            text = -torch.nn.functional.logsigmoid(recipe.beta * chosen).sum()
        else:
            with torch.no_grad(), self._as_reference() as reference:
                logits = reference(**inputs).logits
            ref_chosen, ref_rejected = _logps(logits, labels).chunk(2)
            gain = (chosen - rejected) - (ref_chosen - ref_rejected)
            text = -torch.nn.functional.logsigmoid(recipe.beta * gain).sum()
        return (1 - recipe.alpha) * reward + recipe.alpha * text

    @property
    def _trunk(self) -> torch.nn.Module:
        model = self.model if self.recipe.adapter is None else self.model.get_base_model()
        return model.model

    def _rewards(self, states: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return states[torch.arange(len(last)), last] @ self.head

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[torch.nn.Module]:
        if self.reference is not None:
            yield self.reference
        else:
            with self.model.disable_adapter():
                yield self.model


def _causal(base: Path) -> torch.nn.Module:
    auto = transformers.AutoModelForCausalLM
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = auto.from_pretrained(base, dtype=torch.float32).to(device)
    # torch gives the padding token's embedding no gradient, which some models' turns end with.
    model.get_input_embeddings().padding_idx = None
    return model


def _with_lora(model: torch.nn.Module, directory: Path) -> torch.nn.Module:
    """The model with the adapter in a directory, whose head is another's."""
    import peft

    saved = json.loads((directory / "adapter_config.json").read_text())
    names = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora")
    config = peft.LoraConfig(**{name: saved[name] for name in names if name in saved})
    adapted = peft.get_peft_model(model, config)
    tensors = load_file(directory / "adapter_model.safetensors")
    lora = {
        name.replace(".weight", ".default.weight"): value
        for name, value in tensors.items()
        if ".lora_" in name
    }
    unknown = adapted.load_state_dict(lora, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"{directory}: {unknown[0]} is no part of the model")
    return adapted


def _padded(
    trees: Sequence[TokenTree], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and labels, int64 [2 pairs, longest]: chosen, then rejected."""
    texts = [(tree.prompt, tree.branches[side]) for side in (0, 1) for tree in trees]
    longest = max(len(prompt) + len(branch.tokens) for prompt, branch in texts)
    ids, attention = np.zeros((2, len(texts), longest), np.int64)
    labels = np.full((len(texts), longest), IGNORED, np.int64)
    for row, (prompt, branch) in enumerate(texts):
        end = len(prompt) + len(branch.tokens)
        ids[row, :end] = np.concatenate([prompt, branch.tokens])
        attention[row, :end] = 1
        labels[row, len(prompt) : end] = np.where(branch.targets, branch.tokens, IGNORED)
    return tuple(torch.tensor(part, device=device) for part in (ids, attention, labels))


def _bradley_terry(rewards: torch.Tensor) -> torch.Tensor:
    chosen, rejected = rewards.chunk(2)
    return -torch.nn.functional.logsigmoid(chosen - rejected).sum()


def _logps(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The log-prob of each text's labels, float32 [texts]."""
    labels = labels[:, 1:]
    every = logits[:, :-1].float().log_softmax(dim=-1)
    of_labels = every.gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return (of_labels * (labels != IGNORED)).sum(dim=1)
