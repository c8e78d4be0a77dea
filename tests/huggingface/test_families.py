from __future__ import annotations

import dataclasses
import json
import logging
import math

import pytest
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from jaxrm.errors import ModelFileError
from jaxrm.huggingface import families
from jaxrm.models.rotary import Dynamic, Linear, Llama3, Rope
from tests.models.support import CONFIG, GEMMA


def test_gemma_is_read_with_all_that_its_name_implies():
    config = families.read(GEMMA)
    assert (config.num_layers, config.num_heads, config.num_kv_heads) == (2, 4, 2)
    assert config.embedding_scale == pytest.approx(math.sqrt(24))
    assert config.query_scale == pytest.approx(10**-0.5)
    assert config.norm_offset == 1.0
    assert config.activation == "gelu_pytorch_tanh"
    assert config.tie_embeddings
    assert config.windows == ()
    assert hash(config) == hash(families.read(GEMMA))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 777.0},
        {"rope_theta": 777, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 777.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 777.0}, "rope_theta": 777.0},
        {"rope_theta": 777.0, "rope_scaling": {"type": "default"}},
        {"rope_scaling": {"type": "default", "rope_theta": 777.0}},
    ],
)
def test_rope_theta_is_read_from_both_dialects(rope):
    raw = {name: value for name, value in GEMMA.items() if name != "rope_theta"}
    assert families.read(raw).rope == Rope(10_000.0)
    assert families.read(raw | rope).rope == Rope(777.0)


def test_both_dialects_are_written_and_nothing_of_the_original_is_lost():
    raw = GEMMA | {"max_position_embeddings": 123, "something": {"of": "others"}}
    raw["rope_parameters"] = {"rope_theta": raw.pop("rope_theta"), "rope_type": "default"}
    written = families.write(families.read(raw), "bfloat16")
    assert written["rope_theta"] == 500.0
    assert written["rope_parameters"] == {"rope_theta": 500.0, "rope_type": "default"}
    assert written["dtype"] == written["torch_dtype"] == "bfloat16"
    assert {name: written[name] for name in raw} == raw
    assert families.read(written) == families.read(raw)


@pytest.mark.parametrize("said", [{"hidden_act": "gelu"}, {"hidden_activation": None}, {}])
def test_early_gemma_says_gelu_and_means_its_tanh_form(said):
    assert families.read(GEMMA | said).activation == "gelu_pytorch_tanh"


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
        ("rope_scaling", {"type": "linear"}),
        ("rope_scaling", {"type": "linear", "factor": 0}),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0, "attention_factor": 1.5}),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}),
        ("rope_scaling", {"rope_type": "longrope", "short_factor": [1.0]}),
        ("rope_scaling", "linear"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 500.0}),
        ("rope_parameters", {"full_attention": {"rope_theta": 1e6}}),
        ("attention_bias", True),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("mlp_bias", True),
        ("partial_rotary_factor", 0.5),
        ("sliding_window", 4096),
        ("use_bidirectional_attention", True),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_what_is_not_understood_is_an_error_that_names_file_and_field(field, value):
    raw = GEMMA | {"hidden_act": "gelu_pytorch_tanh", field: value}
    with pytest.raises(ModelFileError, match=f"some/config.json.*{field}"):
        families.read(raw, "some/config.json")


def test_a_malformed_theta_inside_rope_parameters_is_named():
    with pytest.raises(ModelFileError, match=r"rope_theta \('large'\)"):
        families.read(GEMMA | {"rope_parameters": {"rope_theta": "large"}})


def test_contradicting_rope_dialects_are_an_error():
    raw = GEMMA | {"rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"}}
    with pytest.raises(ModelFileError, match="rope_theta.*contradicts"):
        families.read(raw)


@pytest.mark.parametrize(
    "change",
    [{"windows": (4, None)}, {"logit_softcap": 30.0}, {"norm_offset": 0.0}, {"query_scale": 1.0}],
)
def test_a_computation_that_the_family_cannot_express_is_not_written(change):
    with pytest.raises(ModelFileError, match=f"cannot say {next(iter(change))}"):
        families.write(dataclasses.replace(CONFIG, **change))


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
    config = families.read(GEMMA2)
    assert config.windows == (7, None, 7)
    assert config.query_scale == pytest.approx(1 / 12)
    assert (config.attention_softcap, config.logit_softcap) == (50.0, 30.0)
    assert config.post_norms
    assert config.norm_offset == 1.0


def test_gemma2_takes_its_layers_from_layer_types_where_they_are_said():
    kinds = ["full_attention", "full_attention", "sliding_attention"]
    config = families.read(GEMMA2 | {"layer_types": kinds, "attn_logit_softcapping": None})
    assert config.windows == (None, None, 7)
    assert config.attention_softcap is None


@pytest.mark.parametrize(
    "change",
    [{}, {"windows": ()}, {"windows": (None, 5, None)}, {"logit_softcap": None}],
)
def test_gemma2_is_written_so_that_it_reads_back(change):
    config = dataclasses.replace(families.read(GEMMA2), **change)
    written = families.write(config)
    scalar = written["query_pre_attn_scalar"]
    assert (type(scalar), scalar) == (int, 144)
    assert families.read(written) == config


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
        families.read(GEMMA2 | {field: value}, "some/config.json")


LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
DYNAMIC = {"type": "dynamic", "factor": 4.0}
MISTRAL = LLAMA | {"model_type": "mistral", "sliding_window": 5, "head_dim": 10}
QWEN2 = LLAMA | {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 5}
QWEN3 = QWEN2 | {"model_type": "qwen3", "head_dim": 10}
GEMMA3 = GEMMA2 | {
    "model_type": "gemma3_text",
    "num_hidden_layers": 7,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "rope_theta": 1e6,
    "rope_local_base_freq": 10_000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
EVERY = {
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "llama": LLAMA | {"rope_theta": 5e5, "rope_scaling": LLAMA3},
    "llama, linear": LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama, dynamic": LLAMA | {"rope_scaling": DYNAMIC},
    "mistral": MISTRAL,
    "mistral 0.2": MISTRAL | {"sliding_window": None},
    "qwen2": QWEN2,
    "qwen2, windows": QWEN2 | {"use_sliding_window": True, "max_window_layers": 3},
    "qwen3": QWEN3,
}


def test_llama_fills_in_what_its_files_leave_out():
    raw = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
    config = families.read(raw | {"head_dim": None})
    assert (config.num_kv_heads, config.head_dim) == (4, 6)
    assert (config.activation, config.norm_offset, config.tie_embeddings) == ("silu", 0.0, False)
    assert config.query_scale == pytest.approx(6**-0.5)


def test_every_scaling_is_read_with_the_length_that_it_goes_by():
    read = {name: families.read(EVERY[name]).rope.scaling for name in EVERY}
    assert read["llama"] == Llama3(8.0, 1.0, 4.0, 64)
    assert read["llama, linear"] == Linear(4.0)
    assert read["llama, dynamic"] == Dynamic(4.0, 128)
    assert read["gemma3_text"] == Linear(8.0)
    without = {name: value for name, value in LLAMA3.items() if not name.startswith("original")}
    assert families.read(LLAMA | {"rope_scaling": without}).rope.scaling.original_length == 128


def test_windows_follow_each_family_s_own_words():
    windows = {name: families.read(EVERY[name]).windows for name in EVERY}
    assert windows["mistral"] == (5,) * 4
    assert windows["mistral 0.2"] == windows["qwen2"] == ()
    assert windows["qwen2, windows"] == (None, None, None, 5)
    assert windows["gemma3_text"] == (7, 7, 7, 7, 7, None, 7)
    silent = {name: value for name, value in MISTRAL.items() if name != "sliding_window"}
    assert families.read(silent).windows == (4096,) * 4
    assert families.read(GEMMA3 | {"sliding_window_pattern": 2}).windows[:3] == (7, None, 7)


def test_biases_and_norms_are_the_family_s():
    assert [name for name in EVERY if families.read(EVERY[name]).qkv_bias] == [
        "qwen2",
        "qwen2, windows",
    ]
    assert [name for name in EVERY if families.read(EVERY[name]).qk_norms] == [
        "gemma3_text",
        "qwen3",
    ]


def test_gemma3_has_two_rotary_embeddings_in_both_dialects():
    new = {name: value for name, value in GEMMA3.items() if "rope" not in name}
    new["rope_parameters"] = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    for raw in (GEMMA3, new, GEMMA3 | new):
        config = families.read(raw)
        assert (config.rope, config.local_rope) == (Rope(1e6, Linear(8.0)), Rope(10_000.0))
    plain = {name: value for name, value in GEMMA3.items() if "rope" not in name}
    config = families.read(plain)
    assert (config.rope, config.local_rope) == (Rope(1e6), Rope(10_000.0))


@pytest.mark.parametrize("raw", EVERY.values(), ids=EVERY)
def test_what_is_written_reads_back_here_and_in_transformers(raw, tmp_path):
    config = families.read(raw)
    written = families.write(config)
    assert families.read(written) == config
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs = AutoConfig.from_pretrained(tmp_path).to_dict()
    # What transformers writes in turn, in the words of version 5 alone, means the same.
    assert families.read(theirs) == config


@pytest.mark.parametrize("raw", EVERY.values(), ids=EVERY)
def test_what_a_reader_of_either_dialect_alone_understands_is_the_same(raw):
    written = families.write(families.read(raw))
    old = {name: value for name, value in written.items() if name != "rope_parameters"}
    words = ("rope_theta", "rope_scaling", "rope_local_base_freq")
    new = {name: value for name, value in written.items() if name not in words}
    assert families.read(old) == families.read(new) == families.read(raw)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_field_of_the_family_s_class_in_transformers_is_known(family, caplog):
    raw = next(raw for raw in EVERY.values() if raw["model_type"] == family)
    its_own = CONFIG_MAPPING[family](**raw).to_dict()
    with caplog.at_level(logging.WARNING):
        families.read(its_own | {name: value for name, value in raw.items() if "rope" not in name})
    assert not caplog.text


def test_fields_that_nobody_knows_are_named_and_kept(caplog):
    with caplog.at_level(logging.WARNING):
        config = families.read(LLAMA | {"mean": 0.5, "std": 2.0, "nothing": None}, "a/config.json")
    assert "a/config.json: not used, because not known: mean, std" in caplog.text
    assert families.write(config)["mean"] == 0.5


def test_fields_that_nobody_knows_are_named_once_per_file(caplog):
    with caplog.at_level(logging.WARNING):
        for where in ("once/config.json", "once/config.json", "again/config.json"):
            families.read(LLAMA | {"mean": 0.5}, where)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "once/config.json", "again/config.json",
    ]  # fmt: skip


def test_what_says_nothing_of_the_computation_is_not_mentioned(caplog):
    bookkeeping = {
        "_name_or_path": "a/b", "_model_name_or_path": "c", "_commit_hash": "d",
        "transformers.js_config": {"dtype": "q4"}, "transformers_version": "5.0",
        "tokenizer_class": "T", "unk_token_id": 3, "temperature": 0.7,
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        families.read(LLAMA | bookkeeping, "quiet/config.json")
    assert not caplog.text


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (LLAMA | {"vision_config": {"layers": 2}}, "model_type.*llama.* images or sound"),
        (LLAMA | {"text_config": LLAMA, "model_type": "gemma3"}, "model_type.*images or sound"),
        (LLAMA | {"num_local_experts": 8, "model_type": "mixtral"}, "mixture of experts"),
        (LLAMA | {"num_experts": 8, "model_type": "qwen3_moe"}, "mixture of experts"),
        (LLAMA | {"hidden_size": 25}, "hidden_size.*no multiple"),
        (GEMMA | {"rope_scaling": DYNAMIC}, "max_position_embeddings.*missing"),
        (LLAMA | {"attention_bias": True}, "attention_bias.*not implemented"),
        (LLAMA | {"original_max_position_embeddings": 64}, "original_max_position_embeddings"),
        (LLAMA | {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor"),
        (LLAMA | {"rope_scaling": LLAMA3 | {"beta_fast": 32.0}}, "beta_fast.*not understood"),
        (
            LLAMA
            | {"rope_scaling": {"type": "linear", "factor": 2.0}}
            | {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
            "rope_scaling.*contradicts",
        ),
        (
            LLAMA | {"rope_scaling": DYNAMIC | {"original_max_position_embeddings": 64}},
            "original_max_position_embeddings.*is not max_position_embeddings",
        ),
        (
            LLAMA | {"rope_theta": 5e5, "rope_scaling": DYNAMIC | {"rope_theta": 1e6}},
            "rope_theta.*contradicts",
        ),
        (MISTRAL | {"num_key_value_heads": None}, "num_key_value_heads.*positive integer"),
        (GEMMA3 | {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping.*not implemented"),
        (QWEN2 | {"max_window_layers": "all"}, "max_window_layers"),
        (QWEN2 | {"layer_types": ["sliding_attention"] * 4}, "layer_types.*contradicts"),
        (
            GEMMA3 | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            "rope_parameters.*full_attention and sliding_attention",
        ),
        (
            GEMMA3
            | {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "sliding_attention.*scaled",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_computed_is_named(raw, problem):
    with pytest.raises(ModelFileError, match=f"some/config.json.*{problem}"):
        families.read(raw, "some/config.json")
