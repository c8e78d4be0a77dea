"""Writes the LoRA fixtures with peft: adapters beside the base model fixtures/gqa.

    python -m tests.models.make_adapter_fixtures

For each adapter: a directory as peft saves it (`adapter_config.json`, `adapter_model.safetensors`)
and `expected.npz` with what `make_fixtures.expectations` names, gradients of what the adapter
holds alone and by their names in its file, and `merged:<name>`, the base's weights that
`merge_and_unload` changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.models.make_fixtures import FIXTURES, expectations, trees

BASE, ADAPTERS = FIXTURES / "gqa", FIXTURES / "lora"
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Every projection and the reward head; and two projections beside the base's own head.
VARIANTS: dict[str, dict[str, Any]] = {
    "every": {
        "target_modules": EVERY,
        "r": 3,
        "lora_alpha": 5,
        "lora_dropout": 0.05,
        "task_type": "SEQ_CLS",
        "modules_to_save": ["score"],
    },
    "stabilised": {
        "target_modules": ["q_proj", "v_proj"],
        "r": 2,
        "lora_alpha": 3,
        "use_rslora": True,
    },
}


def torch_adapter(config: dict[str, Any], seed: int):
    """A peft model on the base in which the adapter changes everything that it can."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(BASE, attn_implementation="eager")
    base.name_or_path = "gqa"  # recorded in the adapter, where a path of this machine says nothing
    model = get_peft_model(base, LoraConfig(**config)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    return model


def adapter_expectations(model) -> dict[str, np.ndarray]:
    """What torch computes with the adapter, and with its update merged into the base."""
    found = {}
    for name, value in expectations(model.base_model.model, trees()).items():
        for of_peft in (".default", ".modules_to_save"):  # not in the names that it saves
            name = name.replace(of_peft, "")
        found[name.replace("gradient:", "gradient:base_model.model.")] = value
    before = {name: p.detach().numpy().copy() for name, p in _base(model).items()}
    merged = model.merge_and_unload().state_dict()
    changed = {
        f"merged:{name}": value.numpy()
        for name, value in merged.items()
        if not np.array_equal(before[name], value.numpy())
    }
    return found | changed


def _base(model) -> dict[str, Any]:
    """The base's own parameters below their own names."""
    return {
        name.replace(".base_layer", "").replace(".original_module", ""): parameter
        for name, parameter in model.base_model.model.named_parameters()
        if not parameter.requires_grad
    }


def save(model, directory: Path) -> None:
    """As peft saves it, without the model card."""
    # Left to itself, it would look the base up on the network to see whether its vocabulary grew.
    model.save_pretrained(directory, save_embedding_layers=False)
    (directory / "README.md").unlink()


def main() -> None:
    """Writes every adapter below `fixtures/lora/`."""
    for seed, (name, config) in enumerate(VARIANTS.items()):
        model = torch_adapter(config, seed)
        save(model, ADAPTERS / name)
        np.savez_compressed(ADAPTERS / name / "expected.npz", **adapter_expectations(model))
        print(f"wrote {ADAPTERS / name}")


if __name__ == "__main__":
    main()
