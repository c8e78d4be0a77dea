"""Model directories converted: what is written, what is checked, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2TokenizerFast, PreTrainedTokenizerFast

from jaxrm import convert
from jaxrm.data.packing import PackShape
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import JaxrmError, ModelFileError, OptionError, TokenizerError
from jaxrm.huggingface import adapter, hub, verify, weights
from jaxrm.huggingface import orbax as orbax_directory
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import RewardModel, declare, placements, split
from jaxrm.models.uncertainty import RewardScale
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from tests.data import tokenizer_kinds
from tests.data.tokenizer_kinds import KINDS
from tests.huggingface import hub_standin
from tests.messages_oracle import FOLDER
from tests.models.make_adapter_fixtures import ADAPTERS, BASE
from tests.models.support import CONFIG, alone, assert_close, in_order, read_off, small_model

ALONE = PackShape(rows=8, length=96, slots=1, targets=48, ask="all")
UNTIED = dataclasses.replace(CONFIG, tie_embeddings=False)


@pytest.fixture
def _without_torch(monkeypatch):
    monkeypatch.setattr(verify, "has_torch", lambda: False)


def write(directory, out, **options):
    """Converts without a check, which has its own tests."""
    convert.main(convert.Config(directory, out, check=False, **options))


def saved(directory, head, config=CONFIG, **options):
    """A small model's directory."""
    hub.save(small_model(config, head), directory, **options)
    return directory


def tensors(directory):
    return dict(weights.open_directory(directory))


def said(directory):
    return json.loads((directory / "config.json").read_text())


def assert_same_tensors(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)


def test_a_copy_has_the_same_tensors_configuration_tokenizer_and_template(tmp_path):
    write(FOLDER, tmp_path / "out")
    assert_same_tensors(tensors(tmp_path / "out"), tensors(FOLDER))
    written, original = said(tmp_path / "out"), said(FOLDER)
    assert {name: written[name] for name in original} == original
    copied, tokenizer = load_tokenizer(tmp_path / "out").hf, load_tokenizer(FOLDER).hf
    assert copied.get_vocab() == tokenizer.get_vocab()
    assert copied.chat_template == tokenizer.chat_template
    text = "<bos>what does the narvel eat?"
    assert copied(text).input_ids == tokenizer(text).input_ids


def test_another_template_can_be_kept_instead(tmp_path):
    (tmp_path / "chat.jinja").write_text("{{ messages[0]['content'] }}")
    write(FOLDER, tmp_path / "out", chat_template=tmp_path / "chat.jinja")
    template = load_tokenizer(tmp_path / "out").hf.chat_template
    assert template == "{{ messages[0]['content'] }}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_dtype_is_that_of_the_files_and_not_of_their_config(tmp_path, dtype):
    directory = saved(tmp_path / "in", HeadConfig(), dtype=dtype)
    path = directory / "config.json"
    path.write_text(json.dumps(said(directory) | {"dtype": "float32", "torch_dtype": "float32"}))
    write(directory, tmp_path / "out")
    assert_same_tensors(tensors(tmp_path / "out"), tensors(directory))
    assert said(tmp_path / "out")["dtype"] == said(tmp_path / "out")["torch_dtype"] == dtype


def test_tensors_of_several_dtypes_become_float32_without_loss(tmp_path):
    directory = saved(tmp_path / "in", HeadConfig(), dtype="bfloat16")
    file = directory / "model.safetensors"
    held = safetensors.numpy.load_file(file)
    held["model.norm.weight"] = held["model.norm.weight"].astype(np.float32) + np.float32(1e-6)
    safetensors.numpy.save_file(held, file)
    write(directory, tmp_path / "out")
    wide = {name: tensor.astype(np.float32) for name, tensor in held.items()}
    assert_same_tensors(tensors(tmp_path / "out"), wide)


@pytest.mark.parametrize("of", ["files", "orbax"])
def test_the_dtype_asked_for_is_the_trunk_s(tmp_path, of):
    directory = saved(tmp_path / "in", HeadConfig())
    write(directory, tmp_path / "middle", to=of)
    write(tmp_path / "middle", tmp_path / "out", dtype="bfloat16")
    narrow = {
        name: tensor.astype("float32" if name == "score.weight" else jnp.bfloat16)
        for name, tensor in tensors(directory).items()
    }
    assert_same_tensors(tensors(tmp_path / "out"), narrow)
    assert said(tmp_path / "out")["dtype"] == "bfloat16"


def test_a_large_model_comes_in_shards(tmp_path):
    directory = saved(tmp_path / "in", HeadConfig())
    write(directory, tmp_path / "out", shard_gb=2e-5)
    files = list((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1
    assert max(file.stat().st_size for file in files) < 20_000 + 2_000  # and a header
    assert_same_tensors(tensors(tmp_path / "out"), tensors(directory))


@pytest.mark.parametrize("variant", ["every", "stabilised"])
def test_an_adapter_is_merged_as_peft_merges_it(tmp_path, variant):
    write(BASE, tmp_path / "out", adapter=ADAPTERS / variant)
    found, base = tensors(tmp_path / "out"), tensors(BASE)
    assert found.keys() == base.keys()
    with np.load(ADAPTERS / variant / "expected.npz") as expected:
        merged = {name: expected.get(f"merged:{name}", base[name]) for name in base}
    for name, weight in merged.items():
        np.testing.assert_allclose(found[name], weight, rtol=1e-5, atol=1e-6, err_msg=name)
    assert any((merged[name] != base[name]).any() for name in base)


def test_an_adapter_brings_its_head_to_a_language_model(tmp_path):
    base = saved(tmp_path / "base", None)
    lora, head = LoraConfig(rank=2), HeadConfig("mlp", hidden=8)
    params = split(hub.load(base, head, lora))[1]
    adapter.save(RewardModel(CONFIG, head, lora, params=params), tmp_path / "adapter", str(base))
    write(base, tmp_path / "out", adapter=tmp_path / "adapter")
    # A fresh update changes nothing.
    trunk = {name: t for name, t in tensors(tmp_path / "out").items() if "v_head" not in name}
    assert_same_tensors(trunk, tensors(base))
    weight = tensors(tmp_path / "out")["v_head.summary.0.weight"]
    np.testing.assert_array_equal(weight.T, params["reward_head"]["weight_0"])


@pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
def test_the_language_model_is_all_but_the_reward_head(tmp_path, config):
    # GRM's layout holds an untied language-model head beside the reward head.
    directory = saved(tmp_path / "in", HeadConfig("mlp", hidden=8), config)
    write(directory, tmp_path / "out", to="language-model")
    kept = {name: t for name, t in tensors(directory).items() if not name.startswith("v_head")}
    assert_same_tensors(tensors(tmp_path / "out"), kept)
    assert ("lm_head.weight" in kept) == (not config.tie_embeddings)
    assert said(tmp_path / "out")["architectures"] == ["GemmaForCausalLM"]
    assert "vhead_layer_type" not in said(tmp_path / "out")


def test_a_base_stays_a_language_model(tmp_path):
    directory = saved(tmp_path / "in", None, UNTIED)
    write(directory, tmp_path / "out")
    assert_same_tensors(tensors(tmp_path / "out"), tensors(directory))
    assert said(tmp_path / "out") == said(directory)


@pytest.mark.usefixtures("_without_torch")
def test_a_classifier_s_language_model_head_is_said_to_be_left_out(tmp_path, capsys):
    # Made as others save it: both heads in one file.
    model = small_model(UNTIED, HeadConfig())
    directory = saved(tmp_path / "in", HeadConfig(), UNTIED)
    held = safetensors.numpy.load_file(directory / "model.safetensors")
    held["lm_head.weight"] = np.array(model.lm_head[...])
    safetensors.numpy.save_file(held, directory / "model.safetensors")
    convert.main(convert.Config(directory, tmp_path / "out"))
    printed = capsys.readouterr().out
    assert "a classifier has no lm_head.weight" in printed
    assert "rewards differ by 0.0e+00" in printed
    del held["lm_head.weight"]
    assert_same_tensors(tensors(tmp_path / "out"), held)

    # Now that it is gone, no language model can be had.
    with pytest.raises(ModelFileError, match="out has no language-model head"):
        write(tmp_path / "out", tmp_path / "language", to="language-model")
    assert not (tmp_path / "language").exists()
    write(tmp_path / "out", tmp_path / "again")
    assert_same_tensors(tensors(tmp_path / "again"), held)
    assert capsys.readouterr().out == f"{tmp_path / 'again'}: written\n"


@pytest.mark.parametrize("to", ["files", "orbax"])
def test_tokens_are_added_with_their_rows(tmp_path, to):
    write(FOLDER, tmp_path / "middle", to=to, add_tokens=("<tool>", "<think>"))
    write(tmp_path / "middle", tmp_path / "out")
    before, after = tensors(FOLDER), tensors(tmp_path / "out")
    name = "model.embed_tokens.weight"
    assert after[name].shape == (898, 24)
    np.testing.assert_array_equal(after[name][:896], before[name])
    np.testing.assert_allclose(after[name][897], before[name].mean(axis=0), atol=1e-6)
    assert said(tmp_path / "out")["vocab_size"] == 898
    tokenizer = load_tokenizer(tmp_path / "out").hf
    assert tokenizer.convert_tokens_to_ids(["<tool>", "<think>"]) == [896, 897]
    assert tokenizer.chat_template == load_tokenizer(FOLDER).hf.chat_template


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    directory = saved(tmp_path / "in", HeadConfig())
    load_tokenizer(FOLDER).save_pretrained(directory)
    with pytest.raises(TokenizerError, match="the embedding has 61 rows"):
        write(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


HEADS = {
    "linear": HeadConfig(),
    "3 outputs": HeadConfig(outputs=3),
    "mlp": HeadConfig("mlp", hidden=8),
    "none": None,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_way_to_orbax_and_back_loses_nothing(tmp_path, head):
    directory = saved(tmp_path / "in", head, dtype="bfloat16")
    write(directory, tmp_path / "orbax", to="orbax")
    write(tmp_path / "orbax", tmp_path / "out")
    assert_same_tensors(tensors(tmp_path / "out"), tensors(directory))
    assert said(tmp_path / "out") == said(directory)


def test_the_scale_of_rewards_is_kept_with_the_rewards(tmp_path):
    scale = RewardScale(-0.5, 2.0, reference="val (clean)", responses=400)
    model = hub.load(BASE, None)
    hub.save(model, tmp_path / "in", scale=scale)
    write(tmp_path / "in", tmp_path / "orbax", to="orbax")
    write(tmp_path / "orbax", tmp_path / "out")
    assert said(tmp_path / "out") == said(tmp_path / "in")
    assert said(tmp_path / "out")["reward_reference"] == "val (clean)"
    write(tmp_path / "in", tmp_path / "merged", adapter=ADAPTERS / "stabilised")
    assert "reward_offset" not in said(tmp_path / "merged")


# The check


def spoil(name, value):
    """Changes the first number of a tensor by `value`, in the file."""

    def change(directory):
        held = safetensors.numpy.load_file(directory / "model.safetensors")
        held[name].flat[0] += value
        safetensors.numpy.save_file(held, directory / "model.safetensors")

    return change


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return small_model(CONFIG, HeadConfig())


@pytest.fixture
def written(model, tmp_path):
    hub.save(model, tmp_path / "model")
    return tmp_path / "model"


def test_values_are_what_the_heads_say_of_each_text_by_itself(model):
    trees = verify.texts(CONFIG)
    found = convert.values_of(model, trees)
    assert {name: values.shape for name, values in found.items()} == {
        "rewards": (8, 1),
        "logps": (8,),
    }
    batch = alone(trees, ALONE)
    rewards, logps = (in_order(each, batch, 8) for each in read_off(*split(model), batch))
    assert_close(found["rewards"][:, 0], rewards, 1e-5, "rewards")
    assert_close(found["logps"], logps, 1e-5, "logps")


def test_values_are_read_on_the_mesh_that_the_model_lies_on(model):
    mesh = make_mesh(MeshShape(2, 2, 2))
    placement = placements(declare(CONFIG, HeadConfig()), mesh, ShardingRules())
    params = jax.device_put(split(model)[1], placement)
    sharded = RewardModel(CONFIG, HeadConfig(), params=params)
    trees = verify.texts(CONFIG)
    found = verify.differences(convert.values_of(sharded, trees), convert.values_of(model, trees))
    assert found.keys() == {"rewards", "logps"}
    assert max(found.values()) < 1e-5


def test_a_classifier_without_a_language_model_head_has_no_log_probs():
    config = dataclasses.replace(CONFIG, tie_embeddings=False, language_head=False)
    classifier = small_model(config, HeadConfig(outputs=3))
    found = convert.values_of(classifier, verify.texts(CONFIG, count=2, longest=16))
    assert {name: values.shape for name, values in found.items()} == {"rewards": (2, 3)}


def check(model, directory):
    convert.check(model, directory, {"jaxrm": convert.ours}, tolerance=1e-3)


def test_a_faithful_copy_differs_by_nothing(written, model, capsys):
    check(model, written)
    assert capsys.readouterr().out.splitlines() == [
        f"{written}, read by jaxrm: {name} differ by 0.0e+00 of the largest"
        for name in ("logps", "rewards")
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.norm.weight", 0.5),
        ("model.layers.1.self_attn.v_proj.weight", 0.5),
        ("score.weight", 0.5),
        ("score.weight", np.nan),
    ],
)
def test_a_copy_with_one_other_number_fails(written, model, name, value):
    spoil(name, value)(written)
    with pytest.raises(ModelFileError, match=r"another model when it is read: (inf|\d.*e-0[12]) "):
        check(model, written)


def test_a_head_that_got_lost_fails(written, model):
    hub.save(model.language_model(), written)
    with pytest.raises(ModelFileError, match="read again, there are only logps"):
        check(model, written)


def test_readers_with_nothing_to_say_are_no_check(written, model):
    nothing = {"nobody": lambda directory, trees: {"other": np.zeros(8)}}
    with pytest.raises(ModelFileError, match="nobody read none of logps, rewards"):
        convert.check(model, written, nothing, tolerance=1e-3)


@pytest.mark.usefixtures("_without_torch")
def test_the_check_is_of_what_was_written(written, tmp_path, monkeypatch, capsys):
    convert.main(convert.Config(written, tmp_path / "good"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{tmp_path / 'good'}: written"
    assert "torch is not installed: not compared with it" in printed
    assert sum("read by jaxrm" in line for line in printed) == 2

    save = hub.save

    def save_and_spoil(model, directory, *args, **options):
        save(model, directory, *args, **options)
        spoil("model.norm.weight", 0.5)(directory)

    monkeypatch.setattr(hub, "save", save_and_spoil)
    with pytest.raises(ModelFileError, match="bad is another model when it is read"):
        convert.main(convert.Config(written, tmp_path / "bad"))
    assert (tmp_path / "bad").exists()
    write(written, tmp_path / "unchecked")


@pytest.mark.usefixtures("_without_torch")
def test_an_orbax_directory_is_read_again_too(written, tmp_path, monkeypatch, capsys):
    convert.main(convert.Config(written, tmp_path / "good", to="orbax"))
    printed = capsys.readouterr().out
    assert "torch cannot read an Orbax checkpoint" in printed
    assert printed.count("differ by 0.0e+00") == 2

    save = orbax_directory.save
    other = small_model(CONFIG, HeadConfig(), seed=1)
    monkeypatch.setattr(orbax_directory, "save", lambda _, *where: save(other, *where))
    with pytest.raises(ModelFileError, match="bad is another model when it is read"):
        convert.main(convert.Config(written, tmp_path / "bad", to="orbax"))


@pytest.mark.usefixtures("_without_torch")
def test_a_new_padding_token_is_no_difference(tmp_path, capsys):
    # Its row takes part in every log-prob, here as the fifth of five.
    words = Tokenizer(WordLevel({"[UNK]": 0, "</s>": 1, "the": 2, "cat": 3}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    config = dataclasses.replace(CONFIG, vocab_size=4, pad_token_id=None)
    saved(tmp_path / "in", None, config)
    tokenizer.save_pretrained(tmp_path / "in")
    convert.main(convert.Config(tmp_path / "in", tmp_path / "out"))
    assert (said(tmp_path / "out")["vocab_size"], said(tmp_path / "out")["pad_token_id"]) == (5, 4)
    assert "logps differ by 0.0e+00" in capsys.readouterr().out


# The check of the tokenizer


@pytest.fixture
def with_tokenizer(tmp_path):
    """A model's directory with the tokenizer of a kind that AutoTokenizer may read otherwise."""

    def make(kind):
        hub.save(small_model(dataclasses.replace(CONFIG, vocab_size=320), None), tmp_path / "in")
        tokenizer_kinds.write(kind, tmp_path / "in")
        return tmp_path / "in"

    return make


@pytest.mark.usefixtures("_without_torch")
@pytest.mark.parametrize("to", ["files", "orbax"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_is_compared_with_the_file_that_it_came_from(
    with_tokenizer, tmp_path, kind, to, capsys
):
    config = convert.Config(with_tokenizer(kind), tmp_path / "out", to=to, add_tokens=("<tool>",))
    convert.main(config)
    by_file, by_class = (
        line for line in capsys.readouterr().out.splitlines() if line.endswith("texts")
    )
    assert by_file.startswith(f"{tmp_path / 'out'}, read by tokenizers: the same tokens of ")
    assert "out, read by AutoTokenizer of transformers " in by_class


def test_a_loader_that_makes_something_else_of_the_file_is_found_out(
    with_tokenizer, tmp_path, monkeypatch
):
    def rebuilt(directory, template=None):
        return ChatTokenizer(GPT2TokenizerFast.from_pretrained(directory), str(directory))

    monkeypatch.setattr(convert, "load_tokenizer", rebuilt)
    source = with_tokenizer("digits")
    problem = r"out has another tokenizer when it is read by tokenizers: 'In 2024, .*' is \[0, "
    with pytest.raises(ModelFileError, match=problem):
        convert.main(convert.Config(source, tmp_path / "out"))
    assert (tmp_path / "out").exists()
    write(source, tmp_path / "unchecked")


def spoilt(monkeypatch, change):
    """What is saved of a tokenizer, changed in the directory."""
    save = ChatTokenizer.save_pretrained

    def save_and_change(self, directory):
        save(self, directory)
        change(directory)

    monkeypatch.setattr(ChatTokenizer, "save_pretrained", save_and_change)


def other_words(directory):
    file = Tokenizer.from_file(str(directory / "tokenizer.json"))
    file.pre_tokenizer = ByteLevel(add_prefix_space=True)
    file.save(str(directory / "tokenizer.json"))


def other_white_space(directory):
    path = directory / "tokenizer.json"
    held = json.loads(path.read_text("utf-8"))
    held["added_tokens"][3]["rstrip"] = True
    path.write_text(json.dumps(held), "utf-8")


def other_record(directory):
    """Which AutoTokenizer goes by, and the file does not."""
    path = directory / "tokenizer_config.json"
    held = json.loads(path.read_text("utf-8"))
    end = {"content": "<|end|>", "rstrip": True, "normalized": False, "special": True}
    path.write_text(json.dumps(held | {"added_tokens_decoder": {"3": end}}), "utf-8")


def other_template(directory):
    path = directory / "chat_template.jinja"
    path.write_text(path.read_text("utf-8").replace(": ", "; "), "utf-8")


def no_config(directory):
    (directory / "tokenizer_config.json").write_text("[", "utf-8")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (other_words, "read by tokenizers: 'The cat"),
        (other_white_space, r"read by tokenizers: 'a <\|end\|> b"),
        (other_record, r"read by AutoTokenizer of transformers .*: 'a <\|end\|> b"),
        (other_template, "AutoTokenizer renders a conversation otherwise than"),
        (no_config, "AutoTokenizer cannot read its tokenizer"),
    ],
)
def test_a_tokenizer_that_is_read_otherwise_fails(
    with_tokenizer, tmp_path, monkeypatch, change, problem
):
    spoilt(monkeypatch, change)
    with pytest.raises(ModelFileError, match=f"{tmp_path / 'out'}.*{problem}"):
        convert.main(convert.Config(with_tokenizer("digits"), tmp_path / "out"))


@pytest.mark.usefixtures("_without_torch")
def test_what_lies_beside_the_file_of_a_tokenizer_is_no_difference(with_tokenizer, tmp_path):
    source = with_tokenizer("metaspace")
    record = {"lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
    added = {
        "3": record | {"content": "<|end|>", "special": True},
        "279": record | {"content": "<|new|>", "special": False},
    }
    template = tokenizer_kinds.CHAT.replace("<|end|>", "<|new|> <|end|>")
    config = {"added_tokens_decoder": added, "chat_template": template}
    # A piece that is made a special token by its name alone.
    tokenizer_kinds.write("metaspace", source, **config, additional_special_tokens=["T"])
    convert.main(convert.Config(source, tmp_path / "out"))
    ids = load_tokenizer(tmp_path / "out").hf("<|end|> \n<|new|>  a").input_ids
    assert ids == [0, 3, 279, *load_tokenizer(source).hf("a", add_special_tokens=False).input_ids]


@pytest.mark.usefixtures("_without_torch")
def test_a_vocabulary_without_a_file_has_nothing_to_be_compared_with(
    with_tokenizer, tmp_path, capsys
):
    source = with_tokenizer("digits")
    model = json.loads((source / "tokenizer.json").read_text("utf-8"))["model"]
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (source / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    (source / "merges.txt").write_text(merges, "utf-8")
    (source / "tokenizer.json").unlink()
    convert.main(convert.Config(source, tmp_path / "out"))
    printed = capsys.readouterr().out
    assert f"{source} has no tokenizer.json: compared with what transformers makes" in printed
    assert "out, read by tokenizers: the same tokens" in printed


@pytest.mark.torch
def test_torch_takes_part_where_it_is_installed(written, tmp_path, capsys):
    pytest.importorskip("torch")
    convert.main(convert.Config(written, tmp_path / "out"))
    assert "out, read by torch: rewards differ by" in capsys.readouterr().out
    convert.main(convert.Config(written, tmp_path / "language", to="language-model"))
    assert "language, read by torch: logps differ by" in capsys.readouterr().out
    convert.main(convert.Config(written))
    assert "model, read by torch: rewards differ by" in capsys.readouterr().out


@pytest.mark.torch
def test_torch_s_reading_alone_can_fail(written, monkeypatch):
    pytest.importorskip("torch")
    load = convert.load
    monkeypatch.setattr(convert, "load", lambda *args: _doubled(load(*args)))
    with pytest.raises(ModelFileError, match="another model when it is read"):
        convert.main(convert.Config(written))


def _doubled(model: RewardModel) -> RewardModel:
    params = split(model)[1]
    params["reward_head"] = {"weight": 2 * params["reward_head"]["weight"]}
    return RewardModel(model.config, model.head_config, params=params)


# What is refused


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"shard_gb": 0.0}, "--shard-gb must be"),
        ({"shard_gb": float("inf")}, "--shard-gb must be"),
        ({"tolerance": float("nan")}, "--tolerance must be"),
        ({"out": None, "dtype": "bfloat16"}, "--dtype: only with an output directory"),
        (
            {"out": None, "adapter": ADAPTERS / "every", "add_tokens": ("a",), "check": False},
            "--adapter, --add-tokens, --no-check: only with an output directory",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_read(tmp_path, options, problem):
    given = {"model": tmp_path / "nowhere", "out": tmp_path / "out"} | options
    with pytest.raises(OptionError, match=problem):
        convert.main(convert.Config(**given))


@pytest.mark.parametrize("out", [".", "in", "in/deep/out", "link/out", "adapter", "adapter/out"])
def test_nothing_is_written_over_what_is_read(tmp_path, out):
    shutil.copytree(BASE, tmp_path / "in")
    shutil.copytree(ADAPTERS / "every", tmp_path / "adapter")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OptionError, match="must not be .*, nor lie in it or around it"):
        write(tmp_path / "in", tmp_path / out, adapter=tmp_path / "adapter")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("_without_torch")
def test_a_directory_is_not_compared_with_itself(written, tmp_path, capsys):
    with pytest.raises(OptionError, match="nothing to compare .*model with: name an output"):
        convert.main(convert.Config(written))
    assert "torch is not installed" in capsys.readouterr().out


def test_an_orbax_directory_takes_no_adapter(tmp_path):
    write(BASE, tmp_path / "orbax", to="orbax")
    with pytest.raises(OptionError, match="--adapter needs a base in Hugging Face's layout"):
        write(tmp_path / "orbax", tmp_path / "out", adapter=ADAPTERS / "every")
    # Neither kind of directory is written over the other.
    with pytest.raises(ModelFileError, match="is no Orbax model directory"):
        write(tmp_path / "orbax", shutil.copytree(BASE, tmp_path / "files"), to="orbax")


@pytest.mark.parametrize("to", ["files", "orbax"])
def test_a_place_that_is_taken_is_named_before_anything_is_read(tmp_path, to):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    for place in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(ModelFileError, match="exists and is no .*model directory"):
            write(tmp_path.parent / "nowhere", place, to=to)
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"


@pytest.mark.parametrize("to", ["files", "orbax"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, to):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="file/out cannot be written"):
        write(BASE, tmp_path / "file" / "out", to=to)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "nowhere is no directory here: name a model directory, or a model on the Hub"),
        ({"adapter": BASE / "config.json"}, "config.json is a file: name a model directory"),
    ],
)
def test_a_model_that_is_not_there_is_named(tmp_path, options, problem):
    with pytest.raises(JaxrmError, match=problem):
        write(tmp_path / "nowhere", tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did_and_fails_with_status_1(tmp_path):
    command = [sys.executable, "-m", "jaxrm.convert", BASE, tmp_path / "out", "--to", "orbax"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == [
        f"{tmp_path / 'out'}: written",
        "torch cannot read an Orbax checkpoint: not compared with it",
        f"{tmp_path / 'out'}, read by jaxrm: logps differ by 0.0e+00 of the largest",
        f"{tmp_path / 'out'}, read by jaxrm: rewards differ by 0.0e+00 of the largest",
    ]
    assert "Traceback" not in ended.stderr  # transformers may note there that it found no torch
    (tmp_path / "out" / "config.json").unlink()
    command = [sys.executable, "-m", "jaxrm.convert", tmp_path / "out", tmp_path / "again"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"error: {tmp_path / 'out' / 'config.json'} cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_command_takes_a_name_of_the_hub_from_the_cache(tmp_path):
    files = hub_standin.files_of(BASE)
    commit = hub_standin.cache(tmp_path / "hub", "owner/base", files)
    adapter = hub_standin.files_of(ADAPTERS / "every")
    hub_standin.cache(tmp_path / "hub", "owner/lora", adapter, "v1")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    environment["PYTHONPATH"] = os.getcwd()

    def converted(*arguments):
        command = [sys.executable, "-m", "jaxrm.convert", *arguments]
        options = {"capture_output": True, "text": True, "check": False, "cwd": tmp_path}
        return subprocess.run(command, env=environment, **options)

    of_both = ["--adapter", "owner/lora@v1", "--no-check"]
    ended = converted("owner/base", "out", *of_both)
    assert ended.returncode == 0, ended.stderr
    assert f"owner/base: commit {commit} of the Hub" in ended.stderr
    write(BASE, tmp_path / "here", adapter=ADAPTERS / "every")
    assert_same_tensors(tensors(tmp_path / "out"), tensors(tmp_path / "here"))
    ended = converted("owner/base@v2", "other")
    assert ended.returncode == 1
    assert "owner/base@v2 is no directory here, and the Hub is not asked, as HF_H" in ended.stderr
    assert "Traceback" not in ended.stderr
