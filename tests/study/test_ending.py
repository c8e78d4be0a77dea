"""What a run says at its end, for each kind of export."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxrm import toy
from jaxrm.huggingface import families, tensorfile
from jaxrm.huggingface.card import Kind
from jaxrm.huggingface.mixture import Member
from jaxrm.models.heads import HeadConfig
from jaxrm.study import ending

CONFIG = families.read(json.loads((toy.TOKENIZER / "config.json").read_text("utf-8")))


@pytest.fixture
def folder(tmp_path):
    for part, size in (("export", 1000), ("adapter", 10)):
        (tmp_path / part).mkdir()
        arrays = {"trunk": np.zeros((size, 100), np.float32), "head": np.zeros(1, np.float16)}
        layout = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        tensorfile.write(tmp_path / part / "model.safetensors", layout, arrays.values())
    return tmp_path


def test_it_says_where_the_model_lies_how_large_it_is_and_how_to_score(folder):
    lines = ending.of_model("grm", folder, Kind(CONFIG, HeadConfig())).splitlines()
    assert lines[0] == f"grm: {folder}/export (0.4 MB, float32)"
    assert lines[1] == "  read by transformers, vLLM, TRL, RewardBench, OpenRLHF, jaxrm"
    assert (
        lines[2] == f"  the adapter alone, which needs the base: {folder}/adapter (0.0 MB, float32)"
    )
    assert lines[3].endswith(f" -m jaxrm.score --model {folder}/export IN.jsonl OUT.jsonl")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind(CONFIG, HeadConfig("mlp")), "READ BY jaxrm AND GRM'S OWN CODE ALONE"),
        (Kind(CONFIG, HeadConfig(outputs=3), gated=True), "the 3 attributes that its gate weighs"),
        (Kind(CONFIG, None, members=(Member("a"), Member("b"))), "READ BY jaxrm ALONE"),
    ],
)
def test_what_not_everybody_reads_is_said_loudly(kind, words):
    assert words in ending.read_by(kind)
