"""A random base of one small layer with the toy world's tokenizer, for tests of studies."""

from __future__ import annotations

import json
from pathlib import Path

from jaxrm import toy
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.huggingface import families, hub
from jaxrm.models import transformer


def small_base(directory: Path) -> Path:
    """Writes the base as a Hugging Face directory, and returns where."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    config = json.loads((toy.TOKENIZER / "config.json").read_text()) | sizes
    model = transformer.create(families.read(config), None, seed=0)
    hub.save(model, directory / "export", load_tokenizer(toy.TOKENIZER))
    return directory / "export"
