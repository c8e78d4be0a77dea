from __future__ import annotations

import dataclasses
import json
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import ModelFileError
from jaxrm.huggingface import orbax as orbax_directory
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute, RewardModel, declare, placements, split
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from tests.messages_oracle import FOLDER
from tests.models.support import CONFIG, small_model

# Where data is damaged Orbax gives up with reads still under way, whose threads then complain.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

UNTIED = dataclasses.replace(CONFIG, tie_embeddings=False)
HEADS = {
    "linear": HeadConfig(dropout=0.1),
    "3 outputs": HeadConfig(outputs=3),
    "mlp": HeadConfig("mlp", hidden=8, layers=2),
    "none": None,
}


def _assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, split(ours)[1], split(theirs)[1])
    assert (ours.config, ours.head_config) == (theirs.config, theirs.head_config)
    assert ours.lora_config == theirs.lora_config


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return small_model(CONFIG, HeadConfig(outputs=3))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """A directory to be copied and spoilt."""
    directory = tmp_path_factory.mktemp("orbax") / "model"
    orbax_directory.save(model, directory)
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_what_is_saved_is_loaded(tmp_path, head):
    model = small_model(UNTIED, head)
    orbax_directory.save(model, tmp_path / "model")
    assert orbax_directory.is_one(tmp_path / "model")
    loaded = orbax_directory.load(tmp_path / "model", compute=Compute("bfloat16"))
    _assert_same(loaded, model)
    assert loaded.compute.dtype == "bfloat16"


def test_lora_stays_beside_the_weights(tmp_path):
    lora = LoraConfig(rank=2, alpha=3.0, dropout=0.25, targets=("value", "down"))
    shapes = declare(CONFIG, None, lora)["lora"]
    update = {name: jnp.full(declared.shape, 0.5) for name, declared in shapes.items()}
    params = split(small_model(CONFIG, None))[1] | {"lora": update}
    model = RewardModel(CONFIG, None, lora, params=params)
    orbax_directory.save(model, tmp_path / "model")
    _assert_same(orbax_directory.load(tmp_path / "model"), model)
    narrow = orbax_directory.load(tmp_path / "model", dtype="bfloat16")
    kinds = {str(value.dtype) for value in split(narrow)[1]["layers"].values()}
    assert kinds == {"bfloat16"}
    assert narrow.lora.value_a[...].dtype == jnp.float32


def test_a_missing_language_model_head_stays_missing(tmp_path):
    params = split(small_model(UNTIED, HeadConfig()))[1]
    del params["lm_head"]
    config = dataclasses.replace(UNTIED, language_head=False)
    model = RewardModel(config, HeadConfig(), params=params)
    orbax_directory.save(model, tmp_path / "model")
    _assert_same(orbax_directory.load(tmp_path / "model"), model)


def test_dtypes_are_kept_or_asked_for(tmp_path, model):
    params = split(model)[1]
    head = params.pop("reward_head")
    params = jax.tree.map(lambda value: value.astype(jnp.bfloat16), params)
    narrow = RewardModel(CONFIG, model.head_config, params=params | {"reward_head": head})
    orbax_directory.save(narrow, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    loaded = orbax_directory.load(tmp_path / "model")
    _assert_same(loaded, narrow)
    assert loaded.embedding[...].dtype == jnp.bfloat16
    assert loaded.reward_head.weight[...].dtype == jnp.float32
    wide = orbax_directory.load(tmp_path / "model", dtype="float32")
    assert wide.embedding[...].dtype == jnp.float32
    np.testing.assert_array_equal(wide.embedding[...], params["embedding"].astype(jnp.float32))


def test_a_mesh_takes_it_in_shards(saved, model):
    sharded = orbax_directory.load(saved, mesh=make_mesh(MeshShape(2, 2, 2)))
    # [layers, embed over fsdp, heads over tensor, head_dim]
    query = sharded.layers.query[...]
    assert {shard.data.shape for shard in query.addressable_shards} == {(2, 12, 2, 10)}
    _assert_same(sharded, model)


def test_a_sharded_model_is_saved_whole(saved, model, tmp_path):
    mesh = make_mesh(MeshShape(1, 2, 2), jax.devices()[:4])
    sharded = orbax_directory.load(saved, mesh=mesh)
    orbax_directory.save(sharded, tmp_path / "again")
    _assert_same(orbax_directory.load(tmp_path / "again"), model)


def test_orbax_alone_restores_the_parameters(saved, model):
    params = split(model)[1]
    mesh = make_mesh(MeshShape(2, 2, 2))
    wanted = jax.tree.map(
        lambda value, sharding: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding),
        params,
        placements(declare(CONFIG, model.head_config), mesh, ShardingRules()),
    )
    with ocp.StandardCheckpointer() as checkpointer:
        plain = checkpointer.restore(saved / "params")
        sharded = checkpointer.restore(saved / "params", wanted)
    jax.tree.map(np.testing.assert_array_equal, plain, params)
    jax.tree.map(np.testing.assert_array_equal, sharded, params)
    assert len(sharded["layers"]["gate"].sharding.device_set) == 8


def test_the_directory_says_what_it_holds(saved):
    assert {path.name for path in saved.iterdir()} == {"config.json", "jaxrm.json", "params"}
    config = json.loads((saved / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"]) == ("gemma", 61)
    belongs = json.loads((saved / "jaxrm.json").read_text())
    assert belongs["head"]["kind"] == "linear"
    assert belongs["head"]["outputs"] == 3
    assert belongs["lora"] is None


def test_a_tokenizer_lies_beside_it(model, tmp_path):
    tokenizer = load_tokenizer(FOLDER)
    orbax_directory.save(model, tmp_path / "model", tokenizer)
    again = load_tokenizer(tmp_path / "model").hf
    assert again.get_vocab() == tokenizer.hf.get_vocab()
    assert again.chat_template == tokenizer.hf.chat_template
    # The next model at this place has none.
    orbax_directory.save(model, tmp_path / "model")
    assert not (tmp_path / "model" / "tokenizer.json").exists()


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _halve_the_largest_file(directory):
    files = [path for path in (directory / "params").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda d: shutil.rmtree(d / "params"), "params is missing or no whole Orbax"),
        (lambda d: (d / "params" / "_METADATA").unlink(), "params is missing or no whole Orbax"),
        (_halve_the_largest_file, "params is damaged"),
        (lambda d: (d / "config.json").unlink(), "config.json cannot be read"),
        (lambda d: (d / "jaxrm.json").write_text("{"), "jaxrm.json cannot be read as JSON"),
        (lambda d: (d / "jaxrm.json").write_text("{}"), "jaxrm.json makes no sense: KeyError"),
        (lambda d: _edit(d / "jaxrm.json", head={"size": 3}), "jaxrm.json makes no sense: TypeEr"),
        (lambda d: _edit(d / "jaxrm.json", head={"outputs": 0}), "jaxrm.json makes no .*at least"),
        (
            lambda d: _edit(d / "jaxrm.json", lora={"targets": ["gates"]}),
            "jaxrm.json makes no sense: KeyError",
        ),
        (
            lambda d: _edit(d / "jaxrm.json", head=None),
            r"not what .* say: reward_head/weight \(\(24, 3\) for nothing\)$",
        ),
        (
            lambda d: _edit(d / "config.json", tie_word_embeddings=False),
            r"not what .* say: lm_head \(missing for \(61, 24\)\)$",
        ),
        (
            lambda d: _edit(d / "config.json", num_hidden_layers=1),
            r"layers/attention_norm \(\(2, 24\) for \(1, 24\)\), .* and 6 more$",
        ),
    ],
)
def test_a_damaged_directory_is_named(copy, spoil, problem):
    spoil(copy)
    with pytest.raises(ModelFileError, match=problem):
        orbax_directory.load(copy)


def test_only_such_a_directory_is_replaced(model, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="is no Orbax model directory"):
        orbax_directory.save(model, tmp_path)
    with pytest.raises(ModelFileError, match="is no Orbax model directory"):
        orbax_directory.save(model, tmp_path / "config.json")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(ModelFileError, match=r"config.json/model cannot be written"):
        orbax_directory.save(model, tmp_path / "config.json" / "model")


def test_it_appears_whole_or_not_at_all(copy, model):
    other = small_model(CONFIG, HeadConfig(), seed=1)
    # A disk that takes no more than 4 kB of a file. Below any one of the larger arrays, because
    # how many files Orbax spreads the arrays over differs from run to run.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        for place in (copy, copy.with_name("new")):
            with pytest.raises(ModelFileError, match="cannot be written: .*File too large"):
                orbax_directory.save(other, place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _assert_same(orbax_directory.load(copy), model)
    assert [path.name for path in copy.parent.iterdir()] == ["model"]
    orbax_directory.save(other, copy)
    _assert_same(orbax_directory.load(copy), other)
    assert [path.name for path in copy.parent.iterdir()] == ["model"]
