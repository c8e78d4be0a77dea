"""The command on real pairs, with a real tokenizer and chat template, from a Gemma directory."""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.huggingface import families, hub
from jaxrm.models import transformer
from tests.shared_data import shared

ROOT = Path(__file__).parents[1]
STEPS = 200


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small Gemma with random weights behind Mistral's tokenizer, as a downloaded model lies."""
    hf = PreTrainedTokenizerFast(
        tokenizer_file=str(shared("tokenizers", "mistral_v1", "tokenizer.json")),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )
    hf.chat_template = shared("tokenizers", "chat_templates", "mistral-instruct.jinja").read_text()
    hf.chat_template = "".join(line.strip() for line in hf.chat_template.splitlines())
    config = families.read(
        {
            "model_type": "gemma",
            "vocab_size": len(hf),
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "pad_token_id": hf.pad_token_id,
            "bos_token_id": hf.bos_token_id,
            "eos_token_id": hf.eos_token_id,
        }
    )
    directory = tmp_path_factory.mktemp("models") / "gemma-tiny"
    hub.save(transformer.create(config, None, seed=0), directory, ChatTokenizer(hf, "mistral"))
    return directory


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """400 pairs of the permissive training sources that training does not hold."""
    with gzip.open(shared("eval", "id_eval.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["license"] != "CC-BY-NC-4.0" and len(str(row)) < 2000]
    path = tmp_path_factory.mktemp("data") / "held_out.jsonl"
    chosen = random.Random(0).sample(rows, 400)
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    return path


@pytest.mark.slow
def test_real_pairs_train_and_hhh_is_scored(base, held_out, tmp_path):
    run, hhh = tmp_path / "run", shared("eval", "hhh_alignment.jsonl.gz")
    command = [
        sys.executable, "-m", "experiments.grm_gemma", "--run-dir", run, "--base", base,
        "--preset", "gemma-2b-it-full", "--head.kind", "linear", "--head.dropout", 0,
        "--dtype", "float32", "--remat", "none", "--accumulate", 1,
        "--data", shared("train", "train_permissive.jsonl.gz"), "--eval", held_out, hhh,
        "--steps", STEPS, "--rows", 8, "--row-length", 512, "--max-length", 384,
        "--learning-rate", 5e-4, "--eval-sample", 400, "--eval-every", 50,
    ]  # fmt: skip
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    results = json.loads((run / "results.json").read_text())
    untrained = results["base"]["held_out"]["loss"]
    for name in ("baseline", "grm"):
        lines = (run / name / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        assert metrics[-1]["step"] == STEPS
        curve = [line["eval/held_out/loss"] for line in metrics if "eval/held_out/loss" in line]
        assert len(curve) == 4
        assert max(curve) < untrained
        assert results["models"][name]["held_out"]["loss"] < untrained
        assert results["models"][name]["held_out"]["accuracy"] > 0.55

    out = tmp_path / "hhh.jsonl"
    score = [sys.executable, "-m", "jaxrm.score", "--model", run / "grm" / "export", hhh, out]
    subprocess.run(list(map(str, score)), cwd=ROOT, check=True)
    rewards = np.array([json.loads(line)["rewards"] for line in out.read_text().splitlines()])
    assert len(rewards) == 221
    strict = (rewards[:, 0] > rewards[:, 1]).mean()
    assert strict == pytest.approx(results["models"]["grm"]["hhh_alignment"]["accuracy"], abs=0.005)
