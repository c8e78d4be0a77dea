"""Writes the parity fixtures with torch: small Gemma 1 and 2 reward models and what they compute.

    python -m tests.models.make_fixtures

For each variant: a directory as transformers saves it (`config.json`,
`model.safetensors`) and `expected.npz` with hidden states, rewards, summed log-probs and the
gradients of one combined loss, all from running every response by itself with its own prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrm.data.packing import TokenTree
from tests.models.support import GEMMA, GEMMA2, random_tree

FIXTURES = Path(__file__).parent / "fixtures"
VARIANTS = {
    "mqa": GEMMA | {"num_key_value_heads": 1},
    "gqa": GEMMA | {"num_key_value_heads": 2},
    "mha": GEMMA | {"num_key_value_heads": 4},
    "gemma2": GEMMA2,
}


def trees() -> list[TokenTree]:
    """Three pairs of prompts and responses of various lengths."""
    rng = np.random.default_rng(7)
    shapes = [(6, (4, 7)), (3, (9, 2)), (8, (5, 5))]
    return [random_tree(rng, prompt, branches) for prompt, branches in shapes]


def torch_model(raw: Mapping[str, Any], seed: int):
    """A small ...ForSequenceClassification in which no parameter is at its neutral value."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    config = AutoConfig.for_model(**raw, num_labels=1, initializer_range=0.2)
    # Of torch's implementations of attention only the eager one knows soft caps.
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(0, 0.3)
            if "score" in name:
                parameter.normal_(0, 0.2)
    return model


def expectations(model, trees: list[TokenTree]) -> dict[str, np.ndarray]:
    """What torch computes: `hidden_<i>`, `rewards`, `logps`, `loss`, `gradient:<name>`."""
    import torch
    from transformers import AutoModelForCausalLM

    language_model = AutoModelForCausalLM.from_config(model.config)
    language_model.model = model.model
    language_model.tie_weights()
    found: dict[str, np.ndarray] = {}
    rewards, logps = [], []
    for tree in trees:
        for branch in tree.branches:
            start = len(tree.prompt)
            ids = torch.tensor(np.concatenate([tree.prompt, branch.tokens]))[None].long()
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
        np.savez_compressed(FIXTURES / name / "expected.npz", **expectations(model, trees()))
        print(f"wrote {FIXTURES / name}")


if __name__ == "__main__":
    main()
