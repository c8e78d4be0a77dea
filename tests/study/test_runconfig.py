"""Presets, and which of them a base gets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from jaxrm import toy
from jaxrm.huggingface import hub, tensorfile
from jaxrm.study.runconfig import PRESETS, RunConfig, parameters, starts, suited

LARGE = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
    "tie_word_embeddings": False, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "head_dim": 64, "rope_theta": 10000.0,
}  # fmt: skip


@pytest.fixture
def large(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LARGE))
    return tmp_path


def test_parameters_are_those_of_the_files():
    stored = tensorfile.read(toy.shipped_base() / "model.safetensors")
    assert parameters(hub.read_config(toy.shipped_base())) == sum(t.size for t in stored.values())


def test_a_llama_is_counted_by_hand(large):
    per_layer = 4 * 2048 * 2048 + 3 * 2048 * 8192 + 2 * 2048
    assert parameters(hub.read_config(large)) == 24 * per_layer + 2 * 32000 * 2048 + 2048


def test_the_size_chooses_and_says_so(large, capsys):
    assert suited(None) == "toy"
    assert suited(toy.shipped_base()) == "small-lora"
    assert suited(large) == "gemma-2b-it-lora"
    said = capsys.readouterr().out.splitlines()
    assert "parameters: --preset small-lora, as none is named" in said[0]
    assert f"{large} has 1.74B parameters: --preset gemma-2b-it-lora" in said[1]


@pytest.mark.parametrize(
    ("arguments", "preset"),
    [
        ([], "toy"),
        (["--base", "BASE"], "small-lora"),
        (["--base=BASE", "--seed", "1"], "small-lora"),
        (["--base", "nowhere/at-all/here"], "gemma-2b-it-lora"),
    ],
)
def test_options_start_from_the_preset_that_suits(arguments, preset, monkeypatch):
    base = str(toy.shipped_base())
    given = [argument.replace("BASE", base) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["train", *given])
    presets = {name: RunConfig(preset=name, **options) for name, options in PRESETS.items()}
    assert starts(presets)[None] == presets[preset]


def test_a_preset_that_is_named_wins(monkeypatch):
    command = ["train", "--preset", "small-full", "--base", str(Path("nowhere"))]
    monkeypatch.setattr(sys, "argv", command)
    assert None not in starts({"small-full": RunConfig(preset="small-full")})


def test_every_small_preset_leaves_what_every_program_reads():
    for name in ("small-lora", "small-full"):
        cfg = RunConfig(preset=name, **PRESETS[name])
        assert (cfg.head.kind, cfg.dtype) == ("linear", "float32")
        assert cfg.max_length <= cfg.row_length
