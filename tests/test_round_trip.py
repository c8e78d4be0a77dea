"""Between our files and transformers, 5 and 4: the same scores on both sides, in both directions.

transformers 5 is the one installed. JAXRM_TRANSFORMERS4_PYTHON names a Python that has transformers
4 and torch; without it what needs them is skipped.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm import score as scoring
from jaxrm.data import chat, sources
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.huggingface import families, hub, tensorfile
from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel, split
from jaxrm.read.reading import read
from tests.messages_oracle import CHATS, FOLDER, family_config, family_tokenizer
from tests.models.make_fixtures import FIXTURES, VARIANTS, trees
from tests.models.support import FAMILIES, assert_close, small_model

ROWS = FOLDER / "rows.jsonl"
CONVERSATIONS = [
    [*row["prompt"], {"role": "assistant", "content": row[kind]}]
    for row in map(json.loads, ROWS.read_text("utf-8").splitlines())
    for kind in ("chosen", "rejected")
]
TEXTS = [
    [*map(int, tree.prompt), *map(int, branch.tokens)]
    for tree in trees()
    for branch in tree.branches
]


def small(family: str, labels: int = 1) -> RewardModel:
    """A random model with the family's norms near their neutral values, so that scores differ."""
    config = families.read(family_config(family))
    model = small_model(config, HeadConfig("linear", outputs=labels))
    params = split(model)[1]
    near = 1.0 - config.norm_offset
    params["layers"] = {
        name: array + near if name.endswith("norm") else array
        for name, array in params["layers"].items()
    }
    params["final_norm"] = params["final_norm"] + near
    return RewardModel(config, model.head_config, params=params)


def padded_with_its_end() -> ChatTokenizer:
    """Mistral's tokenizer, as it is often set up because it comes without a token for padding."""
    tokenizer = family_tokenizer("mistral")
    tokenizer.pad_token = tokenizer.eos_token
    return ChatTokenizer(tokenizer)


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[RewardModel, ChatTokenizer]]:
    """What is exported, by name."""
    tokenizers = {family: ChatTokenizer(family_tokenizer(family)) for family in CHATS}
    tokenizers["mistral"] = padded_with_its_end()
    made = {family: (small(family), tokenizers[family]) for family in CHATS}
    return made | {"three_labels": (small("llama", labels=3), tokenizers["llama"])}


@pytest.fixture(scope="module")
def exports(models, tmp_path_factory) -> Path:
    """A folder with what we wrote of each model, and of one in bfloat16 as well."""
    folder = tmp_path_factory.mktemp("exports")
    for name, (model, tokenizer) in models.items():
        hub.save(model, folder / name, tokenizer)
    model, tokenizer = models["qwen3"]
    hub.save(model, folder / "bfloat16", tokenizer, dtype="bfloat16")
    return folder


@pytest.fixture(scope="module")
def rewards(models) -> dict[str, np.ndarray]:
    """Our rewards [8, labels] of `ROWS`, by each model before it was exported."""
    mesh, found = parallel.make_mesh(devices=jax.devices()[:1]), {}
    for name, (model, tokenizer) in models.items():
        texts = chat.tokenize(sources.read(ROWS), tokenizer)
        options = {"mesh": mesh, "rows": 2, "row_length": 512}
        scores = read(model, texts, {"scores": heads.outputs}, **options)["scores"]
        found[name] = np.concatenate(scores)
        assert found[name].std(axis=0).min() > 0.1
    return found | {"bfloat16": found["qwen3"]}


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> Path:
    """A folder with <variant>/rewards and <variant>/language, the parity fixtures saved by us."""
    folder = tmp_path_factory.mktemp("variants")
    for name in VARIANTS:
        model = hub.load(FIXTURES / name, None)
        hub.save(model, folder / name / "rewards")
        hub.save(model.language_model(), folder / name / "language")
    return folder


Calls = dict[str, tuple[str, dict[str, Any]]]
"""By a name of ours: a function of `transformers_reader` and its arguments."""


def ask_installed(calls: Calls, scratch: Path) -> dict[str, Any]:
    pytest.importorskip("torch")
    from tests import transformers_reader

    return dict(zip(calls, transformers_reader.answer(calls.values()), strict=True))


def ask_transformers_4(calls: Calls, scratch: Path) -> dict[str, Any]:
    python = os.environ.get("JAXRM_TRANSFORMERS4_PYTHON")
    if not python:
        pytest.skip("JAXRM_TRANSFORMERS4_PYTHON names no Python with transformers 4 and torch")
    script = Path(__file__).with_name("transformers_reader.py")
    asked, answers = scratch / "calls.json", scratch / "answers.json"
    asked.write_text(json.dumps(list(calls.values())))
    subprocess.run([python, script, asked, answers], check=True)
    return dict(zip(calls, json.loads(answers.read_text()), strict=True))


@dataclasses.dataclass(frozen=True)
class Theirs:
    """What a version of transformers answered, and the folder of the models that it made."""

    answers: dict[str, Any]
    made: Path


@pytest.fixture(scope="module", params=[ask_installed, ask_transformers_4], ids=["5", "4"])
def theirs(request, exports, variants, tmp_path_factory) -> Theirs:
    folder = tmp_path_factory.mktemp("made")
    calls: Calls = {}
    for name in EXPORTS:
        dtype = "bfloat16" if name == "bfloat16" else "float32"
        given = {"directory": str(exports / name), "chats": CONVERSATIONS, "dtype": dtype}
        calls[f"chats/{name}"] = ("scores_of_chats", given)
    for name in VARIANTS:
        for kind, function in (("rewards", "scores_of_ids"), ("language", "logps_of_ids")):
            given = {"directory": str(variants / name / kind), "texts": TEXTS}
            calls[f"{kind}/{name}"] = (function, given)
    for family in CHATS:
        given = {"directory": str(folder / family), "tokenizer": str(exports / family)}
        given |= {"config": family_config(family), "chats": CONVERSATIONS}
        calls[f"make/{family}"] = ("make", given)
    return Theirs(request.param(calls, folder), folder)


EXPORTS = (*CHATS, "three_labels", "bfloat16")


@pytest.mark.torch
@pytest.mark.parametrize("name", EXPORTS)
def test_transformers_scores_chats_with_our_files_as_we_do(name, theirs, rewards):
    tolerance = 0.05 if name == "bfloat16" else 1e-4
    for side, scores in theirs.answers[f"chats/{name}"].items():
        assert_close(np.array(scores), rewards[name], tolerance, f"{name}, padded on the {side}")


@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_computes_with_our_files_what_torch_recorded(variant, theirs):
    rewards = np.array(theirs.answers[f"rewards/{variant}"])[:, 0]
    logps = theirs.answers[f"language/{variant}"]
    branches = [(len(tree.prompt), branch) for tree in trees() for branch in tree.branches]
    of_targets = [
        np.array(of_text[start - 1 :])[branch.targets].sum()
        for of_text, (start, branch) in zip(logps, branches, strict=True)
    ]
    with np.load(FIXTURES / variant / "expected.npz") as expected:
        assert_close(rewards, expected["rewards"], 1e-4, "rewards")
        assert_close(np.array(of_targets), expected["logps"], 1e-4, "logps")


@pytest.mark.torch
@pytest.mark.parametrize("family", CHATS)
def test_we_score_with_transformers_files_as_it_does(family, theirs, tmp_path):
    out = tmp_path / "out.jsonl"
    scoring.main(scoring.Config(str(ROWS), out, theirs.made / family, row_length=512, rows=1))
    ours = [json.loads(line)["rewards"] for line in out.read_text("utf-8").splitlines()]
    for side, scores in theirs.answers[f"make/{family}"].items():
        expected = np.array(scores).reshape(4, 2)
        assert expected.std() > 0.1
        assert_close(np.array(ours), expected, 1e-4, f"{family}, padded on the {side}")


@pytest.mark.torch
@pytest.mark.parametrize("theirs", [ask_installed], ids=["5"], indirect=True)
def test_the_command_scores_with_transformers_files_as_it_does(theirs, tmp_path):
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "jaxrm.score", "--model", theirs.made / "llama", ROWS, out]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    ours = [json.loads(line)["rewards"] for line in out.read_text("utf-8").splitlines()]
    expected = np.array(theirs.answers["make/llama"]["right"]).reshape(4, 2)
    assert_close(np.array(ours), expected, 1e-4, "rewards")


@pytest.mark.parametrize("family", CHATS)
def test_what_we_write_is_said_in_both_dialects(family, exports):
    said = json.loads((exports / family / "config.json").read_text())
    theta = FAMILIES[family]["rope_theta"]
    rope = said["rope_parameters"]
    assert said["rope_theta"] == rope.get("full_attention", rope)["rope_theta"] == theta
    assert said["torch_dtype"] == said["dtype"] == "float32"
    (architecture,) = said["architectures"]
    assert architecture.endswith("ForSequenceClassification")
    assert said["num_labels"] == len(said["id2label"]) == 1

    tokenizer = load_tokenizer(exports / family).hf
    assert said["pad_token_id"] == tokenizer.pad_token_id is not None
    assert said["pad_token_id"] not in (said["eos_token_id"], tokenizer.eos_token_id)
    held = tensorfile.read(exports / family / "model.safetensors")
    assert held["score.weight"].shape == (1, said["hidden_size"])
    assert "lm_head.weight" not in held
