"""Writes the parity fixtures with torch: small models of every family and what they compute.

    python -m tests.models.make_fixtures

For each variant: a directory as transformers saves it (`config.json`,
`model.safetensors`) and `expected.npz` with hidden states, rewards, summed log-probs and, for some,
the gradients of one combined loss, all from running every response by itself with its own prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrm.data.packing import TokenTree
from tests.models.support import FAMILIES, GEMMA, GEMMA2, random_tree

FIXTURES = Path(__file__).parent / "fixtures"
LLAMA, MISTRAL, QWEN2 = FAMILIES["llama"], FAMILIES["mistral"], FAMILIES["qwen2"]
# The texts are longer than every window and original length here, but for some of the dynamic one.
VARIANTS: dict[str, dict[str, Any]] = {
    "mqa": GEMMA | {"num_key_value_heads": 1},
    "gqa": GEMMA | {"num_key_value_heads": 2},
    "mha": GEMMA | {"num_key_value_heads": 4},
    "gemma2": GEMMA2,
    "gemma3": FAMILIES["gemma3_text"],
    "gemma3_capped": FAMILIES["gemma3_text"]
    | {"final_logit_softcapping": 2.0, "rope_scaling": None},
    "llama": LLAMA,
    "llama_linear": LLAMA
    | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}, "tie_word_embeddings": True},
    "llama_dynamic": LLAMA
    | {
        "rope_scaling": {"rope_type": "dynamic", "factor": 4.0},
        "max_position_embeddings": 11,
        "tie_word_embeddings": True,
    },
    # With these, one frequency is kept, two are smoothed and two are divided.
    "llama_3": LLAMA
    | {
        "rope_theta": 20.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 0.25,
            "high_freq_factor": 1.0,
            "original_max_position_embeddings": 8,
        },
    },
    "mistral": MISTRAL,
    "mistral_no_window": MISTRAL
    | {"sliding_window": None, "head_dim": 10, "num_key_value_heads": 4},
    "qwen2": QWEN2,
    "qwen2_window": QWEN2
    | {
        "num_hidden_layers": 3,
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "qwen3": FAMILIES["qwen3"],
}
# Between them they have every kind of parameter.
WITH_GRADIENTS = ("gemma2", "gemma3_capped", "qwen2")


def trees() -> list[TokenTree]:
    """Three pairs of prompts and responses of various lengths."""
    rng = np.random.default_rng(7)
    shapes = [(6, (4, 7)), (3, (9, 2)), (8, (5, 5))]
    return [random_tree(rng, prompt, branches) for prompt, branches in shapes]


def torch_model(raw: Mapping[str, Any], seed: int):
    """A small ...ForSequenceClassification in which no parameter is at its neutral value.

    Where the embedding does not serve as language-model head, it has one as `lm_head`, so that one
    file holds both heads.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    config = AutoConfig.for_model(**raw, num_labels=1, initializer_range=0.2)
    # Of torch's implementations of attention only the eager one knows soft caps.
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    if not config.tie_word_embeddings:
        model.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter += torch.empty_like(parameter).normal_(0, 0.3)
            if "bias" in name:
                parameter.normal_(0, 0.5)
            if "score" in name or "lm_head" in name:
                parameter.normal_(0, 0.2)
    return model


def expectations(model, trees: list[TokenTree]) -> dict[str, np.ndarray]:
    """What torch computes: `hidden_<i>`, `rewards`, `logps`, `loss`, `gradient:<name>`."""
    import torch
    from transformers import AutoModelForCausalLM

    language_model = AutoModelForCausalLM.from_config(model.config)
    language_model.model = model.model
    if model.config.tie_word_embeddings:
        language_model.tie_weights()
    else:
        language_model.lm_head = model.lm_head
    found: dict[str, np.ndarray] = {}
    rewards, logps = [], []
    for tree in trees:
        for branch in tree.branches:
            start = len(tree.prompt)
            ids = torch.tensor(np.concatenate([tree.prompt, branch.tokens]))[None].long()
            # Dynamic frequencies are kept from longer texts before this one, unless made anew.
            model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
            hidden = model.model(ids).last_hidden_state[0]
            found[f"hidden_{len(rewards)}"] = hidden.detach().numpy()
            rewards.append(model(ids).logits[0, 0])
            predicted = torch.log_softmax(language_model(ids).logits[0, start - 1 : -1], -1)
            of_tokens = predicted[torch.arange(len(branch.tokens)), ids[0, start:]]
            logps.append(of_tokens[torch.tensor(branch.targets)].sum())
    rewards, logps = torch.stack(rewards), torch.stack(logps)
    loss = -torch.nn.functional.logsigmoid(rewards[0::2] - rewards[1::2]).sum() - 0.01 * logps.sum()
    model.zero_grad()
    loss.backward()
    found |= {
        f"gradient:{name}": parameter.grad.numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return found | {
        "rewards": rewards.detach().numpy(),
        "logps": logps.detach().numpy(),
        "loss": loss.detach().numpy(),
    }


def main() -> None:
    """Writes every variant below `fixtures/`."""
    for seed, (name, raw) in enumerate(VARIANTS.items()):
        model = torch_model(raw, seed)
        model.save_pretrained(FIXTURES / name)
        found = expectations(model, trees())
        if name not in WITH_GRADIENTS:
            found = {key: value for key, value in found.items() if "gradient" not in key}
        np.savez_compressed(FIXTURES / name / "expected.npz", **found)
        print(f"wrote {FIXTURES / name}")


if __name__ == "__main__":
    main()
