from __future__ import annotations

import dataclasses
import math

import pytest

from jaxrm.errors import ModelFileError
from jaxrm.models.config import ModelConfig
from tests.models.support import CONFIG, GEMMA


def test_gemma_is_read_with_all_that_its_name_implies():
    config = ModelConfig.from_hf(GEMMA)
    assert (config.num_layers, config.num_heads, config.num_kv_heads) == (2, 4, 2)
    assert config.embedding_scale == pytest.approx(math.sqrt(24))
    assert config.query_scale == pytest.approx(10**-0.5)
    assert config.norm_offset == 1.0
    assert config.activation == "gelu_pytorch_tanh"
    assert config.tie_embeddings
    assert config.windows == ()
    assert hash(config) == hash(ModelConfig.from_hf(GEMMA))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 777.0},
        {"rope_theta": 777, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 777.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 777.0}, "rope_theta": 777.0},
        {"rope_theta": 777.0, "rope_scaling": {"type": "default"}},
    ],
)
def test_rope_theta_is_read_from_both_dialects(rope):
    raw = {name: value for name, value in GEMMA.items() if name != "rope_theta"}
    assert ModelConfig.from_hf(raw).rope_theta == 10_000.0
    assert ModelConfig.from_hf(raw | rope).rope_theta == 777.0


def test_both_dialects_are_written_and_nothing_of_the_original_is_lost():
    raw = GEMMA | {"max_position_embeddings": 123, "something": {"of": "others"}}
    raw["rope_parameters"] = {"rope_theta": raw.pop("rope_theta"), "rope_type": "default"}
    written = ModelConfig.from_hf(raw).to_hf("bfloat16")
    assert written["rope_theta"] == 500.0
    assert written["rope_parameters"] == {"rope_theta": 500.0, "rope_type": "default"}
    assert written["dtype"] == written["torch_dtype"] == "bfloat16"
    assert {name: written[name] for name in raw} == raw
    assert ModelConfig.from_hf(written) == ModelConfig.from_hf(raw)


@pytest.mark.parametrize("said", [{"hidden_act": "gelu"}, {"hidden_activation": None}, {}])
def test_early_gemma_says_gelu_and_means_its_tanh_form(said):
    assert ModelConfig.from_hf(GEMMA | said).activation == "gelu_pytorch_tanh"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "perceptron"),
        ("vocab_size", None),
        ("hidden_size", "24"),
        ("num_hidden_layers", 0),
        ("num_attention_heads", True),
        ("num_key_value_heads", 3),
        ("head_dim", 9),
        ("rms_norm_eps", -1e-6),
        ("rms_norm_eps", float("nan")),
        ("tie_word_embeddings", "yes"),
        ("eos_token_id", "</s>"),
        ("eos_token_id", [1, "</s>"]),
        ("hidden_act", "relu"),
        ("hidden_activation", "silu"),
        ("rope_theta", "large"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("rope_scaling", "linear"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 500.0}),
        ("rope_parameters", {"full_attention": {"rope_theta": 1e6}}),
        ("attention_bias", True),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("sliding_window", 4096),
        ("use_bidirectional_attention", True),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_what_is_not_understood_is_an_error_that_names_file_and_field(field, value):
    raw = GEMMA | {"hidden_act": "gelu_pytorch_tanh", field: value}
    with pytest.raises(ModelFileError, match=f"some/config.json.*{field}"):
        ModelConfig.from_hf(raw, "some/config.json")


def test_a_malformed_theta_inside_rope_parameters_is_named():
    with pytest.raises(ModelFileError, match=r"rope_theta \('large'\)"):
        ModelConfig.from_hf(GEMMA | {"rope_parameters": {"rope_theta": "large"}})


def test_contradicting_rope_dialects_are_an_error():
    raw = GEMMA | {"rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"}}
    with pytest.raises(ModelFileError, match="rope_theta.*contradicts"):
        ModelConfig.from_hf(raw)


@pytest.mark.parametrize(
    "change",
    [{"windows": (4, None)}, {"logit_softcap": 30.0}, {"norm_offset": 0.0}, {"query_scale": 1.0}],
)
def test_a_computation_that_the_family_cannot_express_is_not_written(change):
    with pytest.raises(ModelFileError, match=f"cannot say {next(iter(change))}"):
        dataclasses.replace(CONFIG, **change).to_hf()


def test_windows_are_one_per_layer():
    with pytest.raises(ValueError, match="3 windows for 2 layers"):
        dataclasses.replace(CONFIG, windows=(1, 2, 3))


GEMMA2 = GEMMA | {
    "model_type": "gemma2",
    "num_hidden_layers": 3,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 144,
    "sliding_window": 7,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}


def test_gemma2_is_read_with_every_other_layer_local():
    config = ModelConfig.from_hf(GEMMA2)
    assert config.windows == (7, None, 7)
    assert config.query_scale == pytest.approx(1 / 12)
    assert (config.attention_softcap, config.logit_softcap) == (50.0, 30.0)
    assert config.post_norms
    assert config.norm_offset == 1.0


def test_gemma2_takes_its_layers_from_layer_types_where_they_are_said():
    kinds = ["full_attention", "full_attention", "sliding_attention"]
    config = ModelConfig.from_hf(GEMMA2 | {"layer_types": kinds, "attn_logit_softcapping": None})
    assert config.windows == (None, None, 7)
    assert config.attention_softcap is None


@pytest.mark.parametrize(
    "change",
    [{}, {"windows": ()}, {"windows": (None, 5, None)}, {"logit_softcap": None}],
)
def test_gemma2_is_written_so_that_it_reads_back(change):
    config = dataclasses.replace(ModelConfig.from_hf(GEMMA2), **change)
    written = config.to_hf()
    scalar = written["query_pre_attn_scalar"]
    assert (type(scalar), scalar) == (int, 144)
    assert ModelConfig.from_hf(written) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_types", ["full_attention"]),
        ("layer_types", ["full_attention", "chunked_attention", "full_attention"]),
        ("sliding_window", None),
        ("final_logit_softcapping", -1.0),
        ("use_bidirectional_attention", True),
    ],
)
def test_what_is_wrong_in_gemma2_is_named(field, value):
    with pytest.raises(ModelFileError, match=f"some/config.json.*{field}"):
        ModelConfig.from_hf(GEMMA2 | {field: value}, "some/config.json")
