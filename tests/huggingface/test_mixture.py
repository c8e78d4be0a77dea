"""A mixture says what it is made of, is converted whole, and what makes no sense is named."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrm import convert
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import ModelFileError, OptionError, TokenizerError
from jaxrm.huggingface import gatefile, hub, mixture, verify, weights
from jaxrm.huggingface.mixture import Member
from jaxrm.models.gate import ConstantGate, Gated
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import split
from jaxrm.models.uncertainty import RewardScale
from tests.messages_oracle import FOLDER
from tests.models.support import CONFIG, small_model

UNTIED = dataclasses.replace(CONFIG, tie_embeddings=False)
HEADS = {"member_0": HeadConfig(), "member_1": HeadConfig("mlp", hidden=8)}
ENSEMBLE = (
    Member("member_0", "rewards", 0.25, -1.5),
    Member("member_1", "rewards", 0.125, 2.0),
)
DPO = (Member("policy", "logps", 0.5), Member("reference", "logps", -0.5))


def models():
    return [small_model(CONFIG, head, seed) for seed, head in enumerate(HEADS.values())]


def said(directory):
    return json.loads((directory / "config.json").read_text())


def tensors(directory):
    return dict(weights.open_directory(directory))


def assert_same_tensors(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("mixture") / "ensemble"
    mixture.save(directory, list(zip(models(), ENSEMBLE, strict=True)))
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "in")


def test_what_was_saved_is_read_back(saved):
    assert mixture.read(saved) == ENSEMBLE
    assert {path.name for path in saved.iterdir()} == {"config.json", *HEADS}
    for model, member in zip(models(), ENSEMBLE, strict=True):
        loaded = hub.load(saved / member.directory, None)
        jax.tree.map(np.testing.assert_array_equal, split(loaded)[1], split(model)[1])


def test_a_scale_is_kept_and_need_not_be_there(saved, tmp_path):
    scale = RewardScale(1.5, 2.0, "the split id", 600)
    [model, *_] = models()
    mixture.save(tmp_path / "scaled", [(model, Member("one"))], scale=scale)
    assert said(tmp_path / "scaled")["scale"] == {
        "offset": 1.5, "scale": 2.0, "reference": "the split id", "responses": 600
    }  # fmt: skip
    assert mixture.read_scale(tmp_path / "scaled") == scale
    assert mixture.read(tmp_path / "scaled") == (Member("one"),)
    assert mixture.read_scale(saved) is None
    assert mixture.read_scale(saved / ENSEMBLE[0].directory) is None


@pytest.mark.parametrize(
    ("scale", "problem"),
    [
        (7, r"scale \(7\) must be an object"),
        ({"offset": 1.0}, r"scale: scale \(missing\) must be a number"),
        (
            {"offset": 0.0, "scale": 0.0, "reference": "", "responses": 1},
            "scale: a reward scale must be a number above 0",
        ),
    ],
)
def test_a_scale_that_makes_no_sense_is_named(copy, scale, problem):
    (copy / "config.json").write_text(json.dumps(said(copy) | {"scale": scale}))
    with pytest.raises(ModelFileError, match=f"in/config.json: {problem}"):
        mixture.read_scale(copy)


def test_a_plain_directory_is_no_mixture(tmp_path):
    assert mixture.read(FOLDER) is None
    assert mixture.read(tmp_path / "nowhere") is None
    (tmp_path / "config.json").write_text("{")
    assert mixture.read(tmp_path) is None


def test_models_may_be_made_one_by_one_and_their_head_is_left_out_for_log_probs(tmp_path):
    made = []

    def make(seed):
        assert len(list(tmp_path.glob(".*.draft/*/model.safetensors"))) == len(made)
        made.append(seed)
        return small_model(UNTIED, HeadConfig(), seed)

    parts = [(lambda seed=seed: make(seed), member) for seed, member in enumerate(DPO)]
    mixture.save(tmp_path / "dpo", parts, card="# A card")
    assert made == [0, 1]
    assert mixture.read(tmp_path / "dpo") == DPO
    policy = tmp_path / "dpo" / "policy"
    assert said(policy)["architectures"] == ["GemmaForCausalLM"]
    assert "lm_head.weight" in tensors(policy)
    assert "score.weight" not in tensors(policy)
    assert (tmp_path / "dpo" / "README.md").read_text() == "# A card"


def test_the_tokenizer_lies_at_the_top_as_it_is(tmp_path):
    tokenizer, model = load_tokenizer(FOLDER), hub.load(FOLDER, None)
    mixture.save(tmp_path / "mixture", [(model, Member("one"))], tokenizer)
    again = load_tokenizer(tmp_path / "mixture")
    assert again.hf.get_vocab() == tokenizer.hf.get_vocab()
    assert again.hf.chat_template == tokenizer.hf.chat_template
    assert not (tmp_path / "mixture" / "one" / "tokenizer.json").exists()
    with pytest.raises(TokenizerError, match="two: the embedding has 61 rows"):
        mixture.save(tmp_path / "other", [(models()[0], Member("two"))], tokenizer)


@pytest.mark.parametrize(
    ("head", "config", "reads", "problem"),
    [
        (None, CONFIG, "rewards", "one: a model with None for a reward"),
        (HeadConfig(outputs=3), CONFIG, "rewards", "3 outputs for a reward"),
        (
            HeadConfig(),
            dataclasses.replace(CONFIG, language_head=False, tie_embeddings=False),
            "logps",
            "one: a model without a language-model head",
        ),
    ],
)
def test_a_model_without_what_it_is_read_for_is_not_saved(tmp_path, head, config, reads, problem):
    parts = [(small_model(config, head), Member("one", reads))]
    with pytest.raises(ModelFileError, match=problem):
        mixture.save(tmp_path / "mixture", parts)
    assert list(tmp_path.iterdir()) == []


def test_members_need_names_of_their_own(tmp_path):
    for parts in ([], [(models()[0], Member("same")), (models()[1], Member("same"))]):
        with pytest.raises(ValueError, match="directories of their own"):
            mixture.save(tmp_path / "mixture", parts)
    with pytest.raises(OptionError, match="weight must be a finite number, not inf"):
        Member("one", weight=math.inf)
    for name in ("", ".", "..", "a/b", "/a"):
        with pytest.raises(OptionError, match="directory must be a name without /"):
            Member(name)


# What stands in config.json

ONE = {"directory": "member_0", "reads": "rewards", "weight": 1.0, "offset": 0}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"members": None}, r"members \(None\) must be a list of objects"),
        ({"members": []}, "members .* must be a list of objects, one or more"),
        ({"members": ["member_0"]}, "members .* must be a list of objects"),
        ({"weights": [1]}, r"weights \(\[1\]\) is not known"),
        ({"members": [ONE, ONE]}, "members .* must have directories of their own"),
        ({"members": [ONE | {"scale": 1}]}, r"members\[0\]: scale \(1\) is not known"),
        ({"members": [ONE | {"weight": "1"}]}, r"members\[0\]: weight \('1'\) must be a number"),
        ({"members": [ONE | {"weight": True}]}, r"weight \(True\) must be a number"),
        ({"members": [ONE | {"offset": math.nan}]}, "offset must be a finite number, not nan"),
        ({"members": [ONE | {"reads": "scores"}]}, "reads must be rewards or logps, not 'scores'"),
        ({"members": [ONE | {"reads": 1}]}, r"reads \(1\) must be text"),
        ({"members": [ONE | {"directory": "../in"}]}, "directory must be a name without /"),
        ({"members": [ONE | {"directory": "other"}]}, "other/config.json cannot be read"),
    ],
)
def test_what_makes_no_sense_is_named_by_file_and_field(copy, change, problem):
    (copy / "config.json").write_text(json.dumps(said(copy) | change))
    with pytest.raises(ModelFileError, match=f"in/.*{problem}"):
        mixture.read(copy)


@pytest.mark.parametrize("name", ["directory", "reads", "weight", "offset"])
def test_nothing_of_a_member_may_be_missing(copy, name):
    one = {field: value for field, value in ONE.items() if field != name}
    (copy / "config.json").write_text(json.dumps(said(copy) | {"members": [one]}))
    with pytest.raises(ModelFileError, match=rf"config.json: members\[0\]: {name} \(missing\)"):
        mixture.read(copy)


def test_a_member_is_one_model_without_a_gate(copy, saved, tmp_path):
    gate = ConstantGate()
    gated = Gated(gate, gate.init(jax.random.key(0), 24, 3))
    hub.save(small_model(CONFIG, HeadConfig(outputs=3)), copy / "member_1", gate=gated)
    with pytest.raises(ModelFileError, match="member_1 must be one model without a gate"):
        mixture.read(copy)
    shutil.rmtree(copy / "member_1")
    shutil.copytree(saved, copy / "member_1")
    with pytest.raises(ModelFileError, match="member_1 must be one model without a gate"):
        mixture.read(copy)


def test_what_needs_one_model_says_that_these_are_several(saved):
    with pytest.raises(ModelFileError, match="jaxrm_mixture is no model but several"):
        hub.load(saved, None)


# Whole, or not at all


def test_a_mixture_appears_whole_or_not_at_all(tmp_path):
    hub.save(models()[0], tmp_path / "model")  # a model's directory may become a mixture's
    before = tensors(tmp_path / "model")
    parts = list(zip(models(), ENSEMBLE, strict=True))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ModelFileError, match=r"model cannot be written: .*File too large"):
            mixture.save(tmp_path / "model", parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_same_tensors(tensors(tmp_path / "model"), before)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    mixture.save(tmp_path / "model", parts)
    assert mixture.read(tmp_path / "model") == ENSEMBLE
    mixture.save(tmp_path / "model", parts[:1])
    assert mixture.read(tmp_path / "model") == ENSEMBLE[:1]
    hub.save(models()[0], tmp_path / "model")  # and the other way round
    assert_same_tensors(tensors(tmp_path / "model"), before)
    (tmp_path / "config.json").write_text("{}")  # as in the directory of a run
    with pytest.raises(ModelFileError, match="exists and is no model directory"):
        mixture.save(tmp_path, parts)


@pytest.mark.slow
def test_of_several_processes_the_first_one_writes(tmp_path):
    model, several = (small_model(CONFIG, HeadConfig(outputs=count)) for count in (1, 3))
    for name, saved in (("one", model), ("three", several)):
        hub.save(saved, tmp_path / "in" / name)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    announced = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    command = [sys.executable, "-m", "tests.huggingface.save_of_process"]
    processes = [
        subprocess.Popen(
            [*command, tmp_path / "in", tmp_path / "out"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **announced, "JAX_PLATFORMS": "cpu", "JAX_PROCESS_ID": str(index)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        problem = process.communicate(timeout=120)[1]
        assert process.returncode == 0, problem
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["adapter", "gated", "mixture"]
    for place, name in (("mixture/a", "one"), ("mixture/b", "one"), ("gated", "three")):
        assert_same_tensors(tensors(out / place), tensors(tmp_path / "in" / name))
    gated = gatefile.read(out / "gated", hub.load(out / "gated", None))
    np.testing.assert_array_equal(gated.params["logits"], [0, 1, 2])
    assert hub.load(tmp_path / "in" / "one", None, adapter=out / "adapter").lora_config.rank == 2


def test_a_fingerprint_is_of_every_member(copy):
    seen = {hub.fingerprint(copy)}
    (copy / "README.md").write_text("# A card")
    assert hub.fingerprint(copy) in seen
    for path in ("config.json", "member_0/config.json", "member_1/model.safetensors"):
        content = bytearray((copy / path).read_bytes())
        content[-2:] = b" " + content[-2:-1]
        (copy / path).write_bytes(content)
        seen.add(hub.fingerprint(copy))
    assert len(seen) == 4


# Converted


@pytest.fixture
def _without_torch(monkeypatch):
    monkeypatch.setattr(verify, "has_torch", lambda: False)


@pytest.mark.usefixtures("_without_torch")
def test_every_member_is_converted_and_checked(saved, tmp_path, capsys):
    convert.main(convert.Config(saved, tmp_path / "narrow", dtype="bfloat16", shard_gb=2e-5))
    printed = capsys.readouterr().out
    assert printed.count("differ by 0.0e+00") == 4  # rewards and log-probs of each
    assert mixture.read(tmp_path / "narrow") == ENSEMBLE
    for name in HEADS:
        assert len(list((tmp_path / "narrow" / name).glob("*.safetensors"))) > 1
        assert said(tmp_path / "narrow" / name)["dtype"] == "bfloat16"
    convert.main(convert.Config(tmp_path / "narrow", tmp_path / "out", check=False))
    for name in HEADS:
        assert_same_tensors(tensors(tmp_path / "out" / name), tensors(tmp_path / "narrow" / name))


@pytest.mark.usefixtures("_without_torch")
def test_tokens_are_added_to_every_member(tmp_path, capsys):
    tokenizer, model = load_tokenizer(FOLDER), hub.load(FOLDER, None)
    members = (*DPO, Member("scorer"))
    mixture.save(tmp_path / "in", [(model, member) for member in members], tokenizer)
    convert.main(convert.Config(tmp_path / "in", tmp_path / "out", add_tokens=("<tool>",)))
    assert "read by tokenizers: the same tokens" in capsys.readouterr().out
    rows = load_tokenizer(tmp_path / "out").hf.get_vocab()
    assert rows["<tool>"] == model.config.vocab_size
    for member in members:
        of_member = tmp_path / "out" / member.directory
        assert said(of_member)["vocab_size"] == model.config.vocab_size + 1


@pytest.mark.usefixtures("_without_torch")
def test_the_check_is_of_what_was_written(saved, tmp_path, monkeypatch):
    write = hub.write

    def write_another(model, place, **options):
        head, other = model.head_config, int(place.name == "member_1")
        write(small_model(CONFIG, head, seed=5) if other else model, place, **options)

    monkeypatch.setattr(hub, "write", write_another)
    with pytest.raises(ModelFileError, match="bad/member_1 is another model when it is read"):
        convert.main(convert.Config(saved, tmp_path / "bad"))


@pytest.mark.parametrize(
    "options", [{"to": "orbax"}, {"to": "language-model"}, {"adapter": FOLDER}]
)
def test_what_is_for_one_model_is_refused_before_anything_is_read(saved, tmp_path, options):
    with pytest.raises(OptionError, match="is a mixture: only --to files, and no --adapter"):
        convert.main(convert.Config(saved, tmp_path / "out", **options))


def test_a_mixture_is_not_written_over_what_is_read(saved, tmp_path):
    with pytest.raises(OptionError, match="must not be .*, nor lie in it or around it"):
        convert.main(convert.Config(saved, saved / "member_0"))
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(ModelFileError, match="exists and is no model directory"):
        convert.main(convert.Config(saved, tmp_path))


@pytest.mark.torch
def test_torch_reads_every_member(tmp_path, capsys):
    pytest.importorskip("torch")
    parts = [(small_model(CONFIG, HeadConfig(), seed), Member(f"m{seed}")) for seed in range(2)]
    mixture.save(tmp_path / "in", parts)
    convert.main(convert.Config(tmp_path / "in", tmp_path / "out"))
    assert capsys.readouterr().out.count("read by torch: rewards differ by") == 2
