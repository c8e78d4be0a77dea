"""Adapter directories: what peft wrote is read, what is written is read again, the rest refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrm.errors import ModelFileError
from jaxrm.huggingface import adapter, families, tensorfile
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import RewardModel, split
from jaxrm.parallel import MeshShape, make_mesh
from tests.models.make_adapter_fixtures import ADAPTERS, BASE

CONFIG = families.read(json.loads((BASE / "config.json").read_text()))
LORA = LoraConfig(rank=3, alpha=5.0, dropout=0.05, targets=("query", "output", "down"))
LINEAR, MLP = HeadConfig(), HeadConfig("mlp", hidden=7, layers=1)
FILE = "adapter_model.safetensors"
Q = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"


def random_model(head: HeadConfig | None, lora: LoraConfig = LORA) -> RewardModel:
    rng = np.random.default_rng(0)
    declared = transformer.declare(CONFIG, head, lora)
    params = jax.tree.map(
        lambda p: jax.numpy.asarray(rng.standard_normal(p.shape), np.float32), declared
    )
    return RewardModel(CONFIG, head, lora, params=params)


@pytest.fixture
def peft(tmp_path) -> Path:
    """A copy of peft's directory, to be damaged."""
    return Path(shutil.copytree(ADAPTERS / "every", tmp_path / "peft"))


def edit(directory: Path, **fields) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(directory: Path, tensors: dict[str, np.ndarray], file: str = FILE) -> None:
    (directory / FILE).unlink()
    layout = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    tensorfile.write(directory / file, layout, tensors.values())


def held(directory: Path) -> dict[str, np.ndarray]:
    return {name: np.array(tensor) for name, tensor in tensorfile.read(directory / FILE).items()}


def test_what_peft_wrote_has_our_names_and_axes():
    lora, update, head, head_arrays = adapter.read(ADAPTERS / "every", CONFIG)
    every = ("query", "key", "value", "output", "gate", "up", "down")
    assert lora == LoraConfig(rank=3, alpha=5.0, dropout=0.05, targets=every)
    assert head == LINEAR
    theirs = held(ADAPTERS / "every")
    heads, embed, head_dim, rank = 4, 24, 10, 3
    for layer in range(2):
        module = f"base_model.model.model.layers.{layer}"
        a, b = (theirs[f"{module}.self_attn.o_proj.lora_{half}.weight"] for half in "AB")
        np.testing.assert_array_equal(
            update["output_a"][layer], a.reshape(rank, heads, head_dim).transpose(1, 2, 0)
        )
        np.testing.assert_array_equal(update["output_b"][layer], b.T)
        a, b = (theirs[Q.format(layer, half)] for half in "AB")
        np.testing.assert_array_equal(update["query_a"][layer], a.T)
        np.testing.assert_array_equal(update["query_b"][layer], b.T.reshape(rank, heads, head_dim))
    score = theirs["base_model.model.score.weight"]
    np.testing.assert_array_equal(head_arrays["weight"], score.T)
    assert score.shape == (1, embed)


def test_an_adapter_without_a_head_leaves_the_bases_and_may_be_rank_stabilised():
    lora, update, head, head_arrays = adapter.read(ADAPTERS / "stabilised", CONFIG)
    assert lora == LoraConfig(2, 3.0, 0.0, ("query", "value"), rank_stabilised=True)
    assert update.keys() == {"query_a", "query_b", "value_a", "value_b"}
    assert (head, head_arrays) == (None, {})


@pytest.mark.parametrize("targets", ["all-linear", r".*\.(self_attn|mlp)\.\w+_proj"])
def test_a_pattern_means_what_the_file_holds(peft, targets):
    edit(peft, target_modules=targets)
    found, listed = (adapter.read(at, CONFIG) for at in (peft, ADAPTERS / "every"))
    assert found.lora == listed.lora


def test_half_precision_is_read_as_float32(peft):
    rewrite(peft, {name: tensor.astype(np.float16) for name, tensor in held(peft).items()})
    arrays = jax.tree.leaves(adapter.read(peft, CONFIG)[1::2])
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_grms_names_are_read(peft):
    tensors = {
        name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): tensor
        for name, tensor in held(peft).items()
        if "score" not in name
    }
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (7, 24), "0.bias": (7,), "2.weight": (1, 7), "2.bias": (1,)}
    head = {f"v_head.summary.{k}": np.float32(rng.normal(size=s)) for k, s in shapes.items()}
    rewrite(peft, tensors | head, "model.safetensors")
    edit(peft, modules_to_save=["classifier", "score"])
    found, as_peft = (adapter.read(at, CONFIG) for at in (peft, ADAPTERS / "every"))
    assert (found.lora, found.head) == (as_peft.lora, MLP)
    jax.tree.map(np.testing.assert_array_equal, found.update, as_peft.update)
    np.testing.assert_array_equal(found.head_arrays["weight_0"], head["v_head.summary.0.weight"].T)
    np.testing.assert_array_equal(found.head_arrays["bias_1"], head["v_head.summary.2.bias"])


@pytest.mark.parametrize("head", [LINEAR, MLP, HeadConfig("mlp", layers=0), None])
def test_what_is_saved_is_read_again(head, tmp_path):
    lora = LoraConfig(2, 0.5, 0.25, ("key", "gate", "up"), rank_stabilised=True)
    model = random_model(head, lora)
    adapter.save(model, tmp_path / "adapter", "somewhere/base")
    found = adapter.read(tmp_path / "adapter", CONFIG)
    params = split(model)[1]
    assert (found.lora, found.head is None) == (lora, head is None)
    jax.tree.map(np.testing.assert_array_equal, found.update, params["lora"])
    jax.tree.map(np.testing.assert_array_equal, found.head_arrays, params.get("reward_head", {}))
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "somewhere/base"
    assert said["target_modules"] == ["k_proj", "gate_proj", "up_proj"]


def test_arrays_that_devices_share_are_saved_whole(tmp_path):
    mesh = make_mesh(MeshShape(data=1, fsdp=2, tensor=4))
    model = transformer.create(CONFIG, LINEAR, LORA, seed=3, mesh=mesh)
    spread = [not array.sharding.is_fully_replicated for array in split(model)[1]["lora"].values()]
    assert any(spread)
    adapter.save(model, tmp_path / "adapter", "base")
    found = adapter.read(tmp_path / "adapter", CONFIG)
    jax.tree.map(np.testing.assert_array_equal, found.update, split(model)[1]["lora"])


def test_saving_replaces_an_adapter_and_nothing_else(tmp_path):
    model = random_model(LINEAR)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ModelFileError, match="is no adapter"):
        adapter.save(model, tmp_path / "other", "base")
    adapter.save(random_model(MLP), tmp_path / "adapter", "base")
    adapter.save(model, tmp_path / "adapter", "base")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", FILE}
    with pytest.raises(ValueError, match="no LoRA"):
        adapter.save(model.without_lora(), tmp_path / "adapter", "base")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "LOHA"),
        ("use_dora", True),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("layers_to_transform", [0]),
        ("fan_in_fan_out", True),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("init_lora_weights", "pissa"),
        ("exclude_modules", ["k_proj"]),
        ("trainable_token_indices", [1, 2]),
        ("a_field_of_some_later_release", 0.5),
        ("modules_to_save", ["score", "embed_tokens"]),
        ("modules_to_save", "score"),
        ("target_modules", ["q_proj", "v_proj"]),
        ("target_modules", None),
        ("target_modules", [3]),
        ("r", 0),
        ("r", 3.5),
        ("r", True),
        ("lora_alpha", "5"),
        ("lora_alpha", -1),
        ("lora_dropout", 1.0),
        ("use_rslora", 1),
    ],
)
def test_a_field_that_computes_something_else_is_refused_by_name(peft, field, value):
    edit(peft, **{field: value})
    with pytest.raises(ModelFileError, match=rf"adapter_config\.json: {field} \("):
        adapter.read(peft, CONFIG)


def test_a_target_that_the_file_does_not_hold_is_refused(peft):
    rewrite(peft, {name: t for name, t in held(peft).items() if "up_proj" not in name})
    with pytest.raises(
        ModelFileError, match=r"target_modules .* lists up_proj, .* holds no update"
    ):
        adapter.read(peft, CONFIG)


def test_a_promised_head_that_the_file_does_not_hold_is_refused(peft):
    rewrite(peft, {name: t for name, t in held(peft).items() if "score" not in name})
    with pytest.raises(ModelFileError, match="modules_to_save names score, but"):
        adapter.read(peft, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({Q.format(1, "A"): None, Q.format(1, "B"): None}, r"missing .*layers\.1.*q_proj\.lora_A"),
        ({Q.format(2, "A"): np.zeros((3, 24))}, r"unexpected .*layers\.2.*q_proj"),
        ({Q.format(0, "A"): np.zeros((4, 24))}, r"another shape .*q_proj.*\(4, 24\) for \(3, 24\)"),
        (
            {"base_model.model.model.norm.lora_A.weight": np.zeros((3, 24))},
            r"unexpected .*norm\.lo",
        ),
        ({"base_model.model.score.weight": np.zeros(24)}, r"score\.weight has shape \(24,\)"),
        ({"base_model.model.score.weight": np.zeros((1, 23))}, r"\(1, 23\) for \(1, 24\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(peft, change, message):
    tensors = held(peft) | change
    rewrite(peft, {name: tensor for name, tensor in tensors.items() if tensor is not None})
    with pytest.raises(ModelFileError, match=rf"adapter_model\.safetensors: .*{message}"):
        adapter.read(peft, CONFIG)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.embed_tokens.weight", "the whole embedding, which PEFT keeps when tokens were add"),
        ("model.embed_tokens.modules_to_save.weight", "the whole embedding"),
        ("model.embed_tokens.lora_embedding_A", "LoRA of the embedding"),
        ("lm_head.weight", "the whole language-model head"),
        ("lm_head.lora_B.weight", "LoRA of the language-model head"),
        ("score.lora_A.weight", "LoRA of the reward head, whose weight is the base's"),
        ("v_head.summary.0.lora_A.weight", "LoRA of the reward head"),
    ],
)
def test_what_belongs_to_the_embedding_or_a_head_is_refused_as_what_it_is(peft, name, what):
    for prefix, file in (("base_model.model.", FILE), ("", "model.safetensors")):
        at = Path(shutil.copytree(peft, peft.with_name(f"of {file}")))
        rewrite(at, held(peft) | {prefix + name: np.zeros((3, 24))}, file)
        expected = rf"{re.escape(file)}: {re.escape(prefix + name)} is {what}.*merge_and_unload\(\)"
        with pytest.raises(ModelFileError, match=expected):
            adapter.read(at, CONFIG)
    edit(peft, modules_to_save=["embed_tokens", "lm_head"])
    with pytest.raises(ModelFileError, match=r"must name the reward head alone.*merge_and_unload"):
        adapter.read(peft, CONFIG)


def test_a_value_head_beside_an_adapter_is_named_and_can_be_put_where_it_is_read(peft):
    tensors = {name: t for name, t in held(peft).items() if "score" not in name}
    rewrite(peft, tensors)
    edit(peft, modules_to_save=None)
    assert adapter.read(peft, CONFIG).head is None
    for name in ("value_head.safetensors", "value_head.bin"):
        (peft / name).write_bytes(b"")
        with pytest.raises(ModelFileError, match=f"{name} holds the reward head, v_head.summary"):
            adapter.read(peft, CONFIG)
        (peft / name).unlink()
    prefix = "base_model.model.v_head.summary."
    head = {f"{prefix}weight": np.ones((1, 24)), f"{prefix}bias": np.ones(1)}
    rewrite(peft, tensors | {name: tensor.astype(np.float32) for name, tensor in head.items()})
    assert adapter.read(peft, CONFIG).head == HeadConfig("mlp", layers=0)


def test_a_file_without_any_update_is_refused(peft):
    rewrite(peft, {"base_model.model.score.weight": np.zeros((1, 24))})
    with pytest.raises(ModelFileError, match=r"safetensors holds a LoRA update of none of q_proj"):
        adapter.read(peft, CONFIG)


def test_a_pickle_an_empty_folder_and_broken_json_are_refused(peft, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match=f"holds no {FILE}"):
        adapter.read(tmp_path / "empty", CONFIG)
    (peft / "adapter_config.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"adapter_config\.json cannot be read as JSON"):
        adapter.read(peft, CONFIG)
    (peft / FILE).rename(peft / "adapter_model.bin")
    with pytest.raises(ModelFileError, match=r"adapter_model\.bin is a pickle"):
        adapter.read(peft, CONFIG)
