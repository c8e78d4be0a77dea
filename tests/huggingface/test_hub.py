from __future__ import annotations

import dataclasses
import json
import logging
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from transformers import AutoConfig

from jaxrm.data.packing import PackShape
from jaxrm.errors import ModelFileError, OptionError
from jaxrm.huggingface import adapter, families, hub, tensorfile
from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute, RewardModel, split
from jaxrm.models.uncertainty import RewardScale
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from tests.models.make_fixtures import FIXTURES, trees
from tests.models.support import CONFIG, GEMMA, packed, small_model

HEADS = {
    "linear": HeadConfig(),
    "linear, 3 outputs": HeadConfig(outputs=3),
    "mlp": HeadConfig("mlp", hidden=8),
    "deep mlp": HeadConfig("mlp", hidden=24, layers=2),
    "linear with bias": HeadConfig("mlp", layers=0),
}


def _assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, split(ours)[1], split(theirs)[1])


def _assert_trunks_same(ours, theirs):
    trunks = [split(model)[1] | {"reward_head": None} for model in (ours, theirs)]
    jax.tree.map(np.testing.assert_array_equal, *trunks)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A language model's directory, to be copied and spoilt."""
    directory = tmp_path_factory.mktemp("hub") / "model"
    hub.save(small_model(CONFIG, None), directory)
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_saved_reward_model_loads_with_the_same_values(tmp_path, head):
    config = dataclasses.replace(CONFIG, tie_embeddings=head.kind == "linear")
    model = small_model(config, head)
    hub.save(model, tmp_path / "model")
    loaded = hub.load(tmp_path / "model", None)
    _assert_same(loaded, model)
    assert loaded.config == config
    asked = hub.load(tmp_path / "model", dataclasses.replace(head, dropout=0.1))
    assert asked.head_config.dropout == 0.1


def test_gemma2_is_saved_and_loaded_whole(tmp_path):
    raw = GEMMA | {"model_type": "gemma2", "sliding_window": 5, "query_pre_attn_scalar": 12}
    model = small_model(families.read(raw), HeadConfig())
    hub.save(model, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["Gemma2ForSequenceClassification"]
    assert config["layer_types"] == ["sliding_attention", "full_attention"]
    # What is written must pass transformers' own validation of types.
    theirs = AutoConfig.from_pretrained(tmp_path / "model")
    assert (theirs.model_type, theirs.sliding_window) == ("gemma2", 5)
    assert theirs.query_pre_attn_scalar == 12
    loaded = hub.load(tmp_path / "model", None)
    _assert_same(loaded, model)
    assert loaded.config == model.config


def test_updates_are_fresh_on_load_and_merged_on_save(saved, tmp_path):
    lora = LoraConfig(rank=2, alpha=3.0, targets=("value", "down"))
    model = hub.load(saved, HeadConfig(), lora, seed=4, dtype="bfloat16")
    params = split(model)[1]
    assert params["layers"]["value"].dtype == "bfloat16"
    assert params["lora"]["value_a"].dtype == params["reward_head"]["weight"].dtype == "float32"
    again = hub.load(saved, HeadConfig(), lora, seed=4, dtype="bfloat16")
    _assert_same(again, model)

    params = split(hub.load(saved, HeadConfig(), lora))[1]
    change = np.full((2, 2, 24), 0.1, np.float32)
    params["lora"]["down_b"] = jnp.asarray(change)
    trained = RewardModel(CONFIG, HeadConfig(), lora, params=params)
    hub.save(trained, tmp_path / "merged")
    found = tensorfile.read(tmp_path / "merged" / "model.safetensors")
    before = tensorfile.read(saved / "model.safetensors")
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.{{}}_proj.weight"
        by_hand = 1.5 * (np.asarray(params["lora"]["down_a"][layer]) @ change[layer]).T
        expected = before[name.format("down")] + by_hand
        np.testing.assert_allclose(found[name.format("down")], expected, atol=1e-6)
        np.testing.assert_array_equal(found[name.format("up")], before[name.format("up")])


@pytest.mark.parametrize("head", [HEADS["linear"], HEADS["mlp"], HEADS["linear with bias"]])
@pytest.mark.parametrize("on_mesh", [False, True])
def test_an_adapter_and_its_head_come_back_beside_their_base(saved, tmp_path, head, on_mesh):
    lora = LoraConfig(rank=2, alpha=3.0, dropout=0.25, targets=("value", "down"))
    params = split(hub.load(saved, head, lora))[1]
    params["lora"]["down_b"] = jnp.full((2, 2, 24), 0.1)
    model = RewardModel(CONFIG, head, lora, params=params)
    adapter.save(model, tmp_path / "adapter", base=str(saved))
    mesh = make_mesh(MeshShape(2, 2, 2)) if on_mesh else None
    loaded = hub.load(saved, None, adapter=tmp_path / "adapter", mesh=mesh)
    assert (loaded.head_config, loaded.lora_config) == (head, lora)
    _assert_same(loaded, model)


def test_the_adapter_s_head_takes_the_place_of_the_directory_s_own(tmp_path):
    hub.save(small_model(CONFIG, HEADS["linear"]), tmp_path / "model")
    trained = small_model(CONFIG, HEADS["mlp"], seed=1)
    params = split(trained)[1] | split(hub.load(tmp_path / "model", None, LoraConfig(rank=2)))[1]
    params["reward_head"] = split(trained)[1]["reward_head"]
    model = RewardModel(CONFIG, HEADS["mlp"], LoraConfig(rank=2), params=params)
    adapter.save(model, tmp_path / "adapter", base="somewhere")
    _assert_same(hub.load(tmp_path / "model", None, adapter=tmp_path / "adapter"), model)


def test_an_adapter_alone_is_no_model(saved, tmp_path):
    model = hub.load(saved, HeadConfig(), LoraConfig(rank=2))
    adapter.save(model, tmp_path / "adapter", base=str(saved))
    with pytest.raises(ModelFileError, match="is a LoRA adapter: give its base model's directory"):
        hub.load(tmp_path / "adapter", None)


def test_a_linear_head_is_saved_for_sequence_classification(tmp_path):
    hub.save(small_model(CONFIG, HeadConfig()), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["GemmaForSequenceClassification"]
    assert config["num_labels"] == 1
    assert config["id2label"] == {"0": "LABEL_0"}
    assert config["problem_type"] == "regression"
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert tensors["score.weight"].shape == (1, 24)
    assert tensors["model.layers.1.self_attn.q_proj.weight"].shape == (40, 24)
    assert tensors["model.layers.0.self_attn.o_proj.weight"].shape == (24, 40)
    assert "lm_head.weight" not in tensors
    assert len(tensors) == 21


def test_an_mlp_head_is_saved_in_the_layout_of_grm(tmp_path):
    hub.save(small_model(CONFIG, HeadConfig("mlp", hidden=8, layers=2)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vhead_layer_type"] == "mlp"
    assert (config["vhead_num_neurons"], config["vhead_num_layers"]) == (8, 2)
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    shapes = {name[7:]: array.shape for name, array in tensors.items() if name[:7] == "v_head."}
    assert shapes == {
        "summary.0.weight": (8, 24),
        "summary.0.bias": (8,),
        "summary.2.weight": (8, 8),
        "summary.2.bias": (8,),
        "summary.4.weight": (1, 8),
        "summary.4.bias": (1,),
    }


def test_what_others_wrote_into_config_json_survives_a_change_of_head(tmp_path):
    extra = {"max_position_embeddings": 99, "id2label": {"0": "bad", "1": "good"}}
    config = dataclasses.replace(CONFIG, extra=extra)
    hub.save(small_model(config, HeadConfig()), tmp_path / "linear")
    model = hub.load(tmp_path / "linear", None)
    assert model.config.extra["id2label"] == {"0": "LABEL_0"}
    hub.save(small_model(model.config, HeadConfig("mlp", hidden=8)), tmp_path / "mlp")
    written = json.loads((tmp_path / "mlp" / "config.json").read_text())
    assert written["max_position_embeddings"] == 99
    assert written["architectures"] == ["GemmaForCausalLM"]
    assert not {"id2label", "num_labels", "problem_type"} & set(written)


def test_a_fresh_head_is_seeded_and_announced(saved, caplog):
    with caplog.at_level(logging.INFO, hub.__name__):
        first = hub.load(saved, HeadConfig(), seed=5)
    assert "no reward head: a fresh one is drawn from seed 5" in caplog.text
    again, other = (hub.load(saved, HeadConfig(), seed=seed) for seed in (5, 6))
    _assert_same(first, again)
    weights = [model.reward_head.weight[...] for model in (first, other)]
    assert (weights[0] != weights[1]).all()
    assert jnp.abs(weights[0]).max() < 1


def test_weights_go_straight_into_shards(saved):
    mesh = make_mesh(MeshShape(2, 2, 2))
    sharded = hub.load(saved, HeadConfig(), mesh=mesh, rules=ShardingRules())
    query = sharded.layers.query[...]
    assert {shard.data.shape for shard in query.addressable_shards} == {(2, 12, 2, 10)}
    whole = hub.load(saved, HeadConfig())
    _assert_trunks_same(sharded, whole)
    weights = [model.reward_head.weight[...] for model in (sharded, whole)]
    np.testing.assert_allclose(*weights, rtol=1e-5)


def test_a_sharded_model_is_saved_whole(saved, tmp_path):
    sharded = hub.load(saved, HeadConfig(), mesh=make_mesh(MeshShape(2, 2, 2)))
    hub.save(sharded, tmp_path / "sharded")
    _assert_same(hub.load(tmp_path / "sharded", None), sharded)


def test_bfloat16_weights_are_read_and_written(tmp_path):
    model = small_model(CONFIG, HeadConfig())
    hub.save(model, tmp_path / "narrow", dtype="bfloat16")
    wide = hub.load(tmp_path / "narrow", None, compute=Compute(dtype="bfloat16"))
    assert wide.layers.gate[...].dtype == jnp.float32
    assert wide.compute.dtype == "bfloat16"
    rounded = model.layers.gate[...].astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(wide.layers.gate[...], rounded)
    np.testing.assert_array_equal(wide.reward_head.weight[...], model.reward_head.weight[...])
    narrow = hub.load(tmp_path / "narrow", None, dtype="bfloat16")
    assert narrow.embedding[...].dtype == jnp.bfloat16
    assert narrow.reward_head.weight[...].dtype == jnp.float32
    hub.save(narrow, tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    first, second = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("narrow", "again")
    )
    assert first == second


@pytest.mark.parametrize("devices", [None, 1])
def test_parameters_do_not_hang_on_the_file(copy, devices):
    # JAX takes over memory aligned to 64 bytes as it is; a longer header puts the data there.
    file = copy / "model.safetensors"
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end] + b" " * (-end % 64)
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])

    mesh = None if devices is None else make_mesh(MeshShape(1, 1, 1), jax.devices()[:devices])
    model = hub.load(copy, HeadConfig(), mesh=mesh)
    before = np.array(model.embedding[...])
    with file.open("r+b") as handle:
        handle.write(b"\0" * file.stat().st_size)
    np.testing.assert_array_equal(model.embedding[...], before)
    assert (before != 0).all()


def _shard(directory):
    """Splits the directory's tensors over two files with an index, as large models come."""
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    files = {"a.safetensors": {}, "b.safetensors": {}}
    weight_map = {}
    for i, (name, array) in enumerate(tensors.items()):
        weight_map[name] = sorted(files)[i % 2]
        files[weight_map[name]][name] = array
    for name, part in files.items():
        safetensors.numpy.save_file(part, directory / name)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_several_files_with_an_index_are_one_model(copy, saved):
    _shard(copy)
    _assert_same(hub.load(copy, HeadConfig()), hub.load(saved, HeadConfig()))


def test_a_missing_part_is_named(copy):
    _shard(copy)
    (copy / "b.safetensors").unlink()
    with pytest.raises(ModelFileError, match="b.safetensors: cannot be read"):
        hub.load(copy, HeadConfig())


def test_an_index_that_lies_is_an_error(copy):
    index = _shard(copy)
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.bias"] = "a.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=r"a.safetensors should hold model.norm.bias"):
        hub.load(copy, HeadConfig())
    for broken in ({}, {"weight_map": {"model.norm.weight": 1}}):
        index.write_text(json.dumps(broken))
        with pytest.raises(ModelFileError, match="weight_map is missing or does not map"):
            hub.load(copy, HeadConfig())


def _change_tensors(directory, change):
    file = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    change(tensors)
    safetensors.numpy.save_file(tensors, file)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.pop("model.norm.weight"), "missing model.norm.weight"),
        (
            lambda t: t.update({"model.norm.bias": np.zeros(24, np.float32)}),
            "unexpected model.norm.bias",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.zeros(25, np.float32)}),
            r"of another shape than the configuration says model.norm.weight \(25,\) for \(24,\)",
        ),
        (
            lambda t: t.update({"model.layers.2.mlp.up_proj.weight": np.zeros(4, np.float32)}),
            r"unexpected model.layers.2.mlp.up_proj.weight",
        ),
        (
            lambda t: [t.pop(name) for name in list(t) if "layers.1" in name],
            r"missing (model.layers.1[a-z._]*, ){5}model.layers.1[a-z._]* and 3 more",
        ),
        (
            lambda t: t.update({"score.weight": np.zeros(24, np.float32)}),
            r"score.weight has shape \(24,\)",
        ),
        (
            lambda t: t.update({"v_head.summary.0.weight": np.zeros((8, 24), np.float32)}),
            "missing v_head.summary.bias, v_head.summary.weight; .*unexpected v_head.summary.0",
        ),
    ],
)
def test_names_and_shapes_are_strict(copy, change, problem):
    _change_tensors(copy, change)
    with pytest.raises(ModelFileError, match=problem):
        hub.load(copy, HeadConfig())


def test_a_tied_head_may_be_stored_twice_but_only_as_itself(copy, saved):
    _change_tensors(copy, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    _assert_same(hub.load(copy, HeadConfig()), hub.load(saved, HeadConfig()))
    _change_tensors(copy, lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1}))
    with pytest.raises(ModelFileError, match="unexpected lm_head.weight"):
        hub.load(copy, HeadConfig())


def test_a_half_copied_file_is_an_error(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ModelFileError, match="not a whole safetensors file"):
        hub.load(copy, HeadConfig())


def test_pickles_are_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelFileError, match=r"pickle \(pytorch_model.bin\)"):
        hub.load(copy, HeadConfig())
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(ModelFileError, match="holds no model.safetensors"):
        hub.load(copy, HeadConfig())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        ("{", "cannot be read as JSON"),
        ("[]", "not a JSON object"),
        ('{"model_type": "perceptron"}', "model_type .*is not one of gemma"),
    ],
)
def test_the_configuration_is_named_when_it_cannot_be_used(copy, content, problem):
    (copy / "config.json").unlink()
    if content is not None:
        (copy / "config.json").write_text(content)
    with pytest.raises(ModelFileError, match=f"config.json.*{problem}"):
        hub.load(copy, HeadConfig())


def test_a_language_model_has_no_head_to_take(saved):
    with pytest.raises(ModelFileError, match="holds no reward head"):
        hub.load(saved, None)


def test_another_head_than_the_stored_one_is_an_error(tmp_path):
    hub.save(small_model(CONFIG, HeadConfig()), tmp_path)
    with pytest.raises(ModelFileError, match="holds the reward head .*linear.* but .*mlp"):
        hub.load(tmp_path, HeadConfig("mlp"))


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    first, second = (small_model(CONFIG, HeadConfig(), seed=seed) for seed in (0, 1))
    hub.save(first, tmp_path / "model")
    names = {"config.json", "model.safetensors"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == names
    # A disk that takes no more than 20 kB of a file of 50.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ModelFileError, match=r"model cannot be written: .*File too large"):
            hub.save(second, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _assert_same(hub.load(tmp_path / "model", None), first)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    hub.save(second, tmp_path / "model", card="# A card")
    _assert_same(hub.load(tmp_path / "model", None), second)
    assert (tmp_path / "model" / "README.md").read_text() == "# A card"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match=r"file/model cannot be written"):
        hub.save(small_model(CONFIG, HeadConfig()), tmp_path / "file" / "model")


def test_only_a_model_directory_is_replaced(tmp_path):
    model = small_model(CONFIG, HeadConfig())
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(ModelFileError, match="no model directory"):
        hub.save(model, tmp_path)
    with pytest.raises(ModelFileError, match="no model directory"):
        hub.save(model, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"
    (tmp_path / "config.json").write_text("{}")  # as in the directory of a run
    with pytest.raises(ModelFileError, match="no model directory"):
        hub.save(model, tmp_path)


@pytest.mark.parametrize(
    ("pad", "eos", "warned"), [(0, 1, False), (None, 1, True), (1, 1, True), (1, (3, 1), True)]
)
def test_a_padding_token_that_others_would_misread_is_announced(tmp_path, caplog, pad, eos, warned):
    config = dataclasses.replace(CONFIG, pad_token_id=pad, eos_token_id=eos)
    with caplog.at_level(logging.WARNING, hub.__name__):
        hub.save(small_model(config, HeadConfig()), tmp_path / "model")
    assert ("padding token of its own" in caplog.text) == warned


def test_a_computation_that_gemma_does_not_know_is_not_saved_as_gemma(tmp_path):
    windowed = dataclasses.replace(CONFIG, windows=(4, None))
    with pytest.raises(ModelFileError, match="cannot say windows"):
        hub.save(small_model(windowed, HeadConfig()), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_transformers_saved_is_saved_back_unchanged(tmp_path):
    hub.save(hub.load(FIXTURES / "gqa", None), tmp_path / "model")
    ours, theirs = (
        safetensors.numpy.load_file(directory / "model.safetensors")
        for directory in (tmp_path / "model", FIXTURES / "gqa")
    )
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    written, original = (
        json.loads((directory / "config.json").read_text())
        for directory in (tmp_path / "model", FIXTURES / "gqa")
    )
    added = {"rope_theta", "rope_scaling", "torch_dtype", "num_labels", "problem_type"}
    assert set(written) == set(original) | added
    assert {name: written[name] for name in original} == original


UNTIED = dataclasses.replace(CONFIG, tie_embeddings=False)


def test_a_classifier_leaves_the_language_model_head_out_and_says_so_when_it_is_missed(tmp_path):
    model = small_model(UNTIED, HeadConfig())
    hub.save(model, tmp_path / "classifier")
    tensors = safetensors.numpy.load_file(tmp_path / "classifier" / "model.safetensors")
    assert "lm_head.weight" not in tensors
    loaded = hub.load(tmp_path / "classifier", None)
    assert not loaded.config.language_head
    params = split(model)[1]
    del params["lm_head"]
    jax.tree.map(np.testing.assert_array_equal, split(loaded)[1], params)
    batch = packed(trees(), PackShape(rows=2, length=40, slots=4, targets=24, ask="all"))
    hidden = loaded.hidden(batch)
    assert jnp.isfinite(heads.rewards(loaded, hidden, batch)).all()
    with pytest.raises(ModelFileError, match="no language-model head, so no log-probs"):
        heads.response_logps(loaded, hidden, batch)
    # Saved and loaded once more, it is the same.
    hub.save(loaded, tmp_path / "again")
    _assert_same(hub.load(tmp_path / "again", None), loaded)


def test_the_language_model_goes_into_a_directory_of_its_own(tmp_path):
    model = small_model(UNTIED, HeadConfig())
    hub.save(model.language_model(), tmp_path / "language")
    config = json.loads((tmp_path / "language" / "config.json").read_text())
    assert config["architectures"] == ["GemmaForCausalLM"]
    assert "num_labels" not in config
    loaded = hub.load(tmp_path / "language", HeadConfig())
    _assert_trunks_same(loaded, model)
    np.testing.assert_array_equal(loaded.lm_head[...], model.lm_head[...])


@pytest.mark.parametrize("on_mesh", [False, True])
def test_a_large_model_is_written_in_shards_with_an_index(tmp_path, on_mesh):
    hub.save(small_model(CONFIG, HeadConfig()), tmp_path / "one")
    mesh = make_mesh(MeshShape(2, 2, 2)) if on_mesh else None
    model = hub.load(tmp_path / "one", None, mesh=mesh)
    hub.save(model, tmp_path / "many", shard_bytes=10_000)
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))
    ]
    sizes = [file.stat().st_size for file in files]
    assert len(files) > 2
    assert max(sizes) < 10_000 + 2_000  # and a header
    found = {}
    for file in files:
        found |= safetensors.numpy.load_file(file)
    expected = safetensors.numpy.load_file(tmp_path / "one" / "model.safetensors")
    assert found.keys() == expected.keys()
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in expected.values())
    assert index["weight_map"].keys() == expected.keys()
    _assert_same(hub.load(tmp_path / "many", None), model)


def test_a_tensor_larger_than_a_shard_gets_one_of_its_own(tmp_path):
    hub.save(small_model(CONFIG, None), tmp_path / "model", shard_bytes=1)
    files = list((tmp_path / "model").glob("*.safetensors"))
    assert len(files) == 20  # as many as there are tensors
    assert all(len(tensorfile.read(file)) == 1 for file in files)


@pytest.mark.parametrize(
    "promise",
    [{"architectures": ["GemmaForSequenceClassification"]}, {"vhead_layer_type": "mlp"}],
    ids=["classifier", "GRM"],
)
def test_a_promised_head_that_is_missing_is_not_replaced_by_noise(copy, promise):
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | promise))
    with pytest.raises(ModelFileError, match=r"config.json: .* promises a reward head"):
        hub.load(copy, HeadConfig())
    with pytest.raises(ModelFileError, match=r"config.json: .* promises a reward head"):
        hub.load_language_model(copy)


@pytest.mark.parametrize("name", ["value_head.safetensors", "value_head.bin"])
def test_a_head_in_a_file_of_its_own_is_named_and_can_be_put_where_it_is_read(copy, name):
    (copy / name).write_bytes(b"")
    problem = (
        f"{name} holds the reward head, v_head.summary .* add its tensors to model.safetensors"
    )
    for load in (lambda: hub.load(copy, HeadConfig()), lambda: hub.load_language_model(copy)):
        with pytest.raises(ModelFileError, match=problem):
            load()
    head = {"weight": np.ones((1, 24), np.float32), "bias": np.zeros(1, np.float32)}
    _change_tensors(copy, lambda t: t.update({f"v_head.summary.{n}": a for n, a in head.items()}))
    assert hub.load(copy, None).head_config == HeadConfig("mlp", layers=0)


def test_frequencies_in_old_files_are_passed_over(copy, saved):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    _change_tensors(copy, lambda t: t.update({name: np.ones(5, np.float32)}))
    _assert_same(hub.load(copy, HeadConfig()), hub.load(saved, HeadConfig()))


def test_the_scale_of_rewards_is_recorded_and_not_inherited(tmp_path):
    model = small_model(CONFIG, HeadConfig())
    scale = RewardScale(offset=-0.5, scale=2.0, reference="val", responses=400)
    hub.save(model, tmp_path / "model", scale=scale)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["reward_offset"], config["reward_scale"]) == (-0.5, 2.0)
    assert (config["reward_reference"], config["reward_responses"]) == ("val", 400)
    loaded = hub.load(tmp_path / "model", None)
    _assert_same(loaded, model)  # the weights are those of the raw reward
    assert hub.read_scale(loaded.config) == scale
    hub.save(loaded, tmp_path / "again")
    assert hub.read_scale(hub.read_config(tmp_path / "again")) is None
    with pytest.raises(OptionError, match="reward scale must be a number above 0"):
        RewardScale(0.0, 0.0, "val", 1)


def test_a_fingerprint_is_of_configurations_and_weights_alone(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    names = ("config.json", "model-1.safetensors", "model-2.safetensors")
    for name in names:
        (directory / name).write_bytes(name.encode())
    first = hub.fingerprint(directory)
    (directory / "tokenizer.json").write_text("{}")
    moved = directory.rename(tmp_path / "moved")
    assert hub.fingerprint(moved) == first
    seen = {first}
    for name in names:
        content = bytearray((moved / name).read_bytes())
        content[len(content) // 2] ^= 1
        (moved / name).write_bytes(content)
        seen.add(hub.fingerprint(moved))
    (moved / "adapter_config.json").write_text('{"r": 8}')
    seen.add(hub.fingerprint(moved))
    (moved / "adapter_model.safetensors").write_bytes(b"weights")
    seen.add(hub.fingerprint(moved))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("name", "missing"), [("config.json", "safetensors"), ("model.safetensors", "config.json")]
)
def test_no_fingerprint_is_taken_of_half_a_model(tmp_path, name, missing):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelFileError, match=f"holds no {missing}"):
        hub.fingerprint(tmp_path)
