from __future__ import annotations

import copy
import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import OptionError, TokenizerError
from jaxrm.huggingface import vocabulary
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute, RewardModel, declare, placements, split
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from tests.models.support import CONFIG, small_model

WORDS = {"[UNK]": 0, "</s>": 1, "the": 2, "cat": 3}
TWO_WIDE = dataclasses.replace(
    CONFIG,
    hidden_size=2,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=2,
    tie_embeddings=False,
)


def _tokenizer(words=WORDS, added=(), **special) -> ChatTokenizer:
    """One token per word; `added` as special tokens, and "</s>" ends a sequence."""
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = {"unk_token": "[UNK]", "eos_token": "</s>"} | special
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)
    hf.add_special_tokens({"extra_special_tokens": list(added)})
    return ChatTokenizer(hf, "models/base")


def _model(rows, config=TWO_WIDE, **fields) -> RewardModel:
    """A model with so many rows; those of the head are the embedding's tenfold."""
    model = small_model(dataclasses.replace(config, vocab_size=rows, **fields), HeadConfig())
    rows_of_ids = jnp.arange(2.0 * rows).reshape(rows, 2)
    params = split(model)[1] | {"embedding": rows_of_ids, "lm_head": 10 * rows_of_ids}
    return RewardModel(model.config, HeadConfig(), compute=Compute("bfloat16"), params=params)


def _assert_unchanged(model, before):
    jax.tree.map(np.testing.assert_array_equal, split(model)[1], before)


def test_check_takes_spare_rows_and_ids_up_to_the_last_row():
    tokenizer = _tokenizer(added=["<a>"])  # ids 0 to 4
    vocabulary.check(dataclasses.replace(CONFIG, vocab_size=5), tokenizer, "models/base")
    vocabulary.check(dataclasses.replace(CONFIG, vocab_size=64), tokenizer, "models/base")


def test_check_names_the_tokens_beyond_the_embedding_and_what_to_do():
    tokenizer = _tokenizer(added=["<a>", "<b>", "<c>", "<d>", "<e>"])
    with pytest.raises(TokenizerError) as error:
        vocabulary.check(dataclasses.replace(CONFIG, vocab_size=5), tokenizer, "models/base")
    message = str(error.value)
    assert message.startswith("models/base: the embedding has 5 rows")
    assert "<b> (5), <c> (6), <d> (7) and 1 more." in message
    assert "jaxrm.convert" in message
    assert "--add-tokens '<b>' '<c>' '<d>' ...`" in message


def test_check_goes_by_ids_and_not_by_their_count():
    gaps = _tokenizer(WORDS | {"sat": 9})
    assert len(gaps.hf) == 5
    with pytest.raises(TokenizerError, match=r"sat \(9\)\. .*--add-tokens sat`$"):
        vocabulary.check(dataclasses.replace(CONFIG, vocab_size=9), gaps, "models/base")


def test_new_rows_are_the_mean_of_the_rows_that_belong_to_tokens():
    # Ids 0 to 3 are words, 5 is "<a>", and 4 is a row that no token has.
    tokenizer = _tokenizer(WORDS | {"<a>": 5}, added=["<a>"])
    model = _model(6)
    before = jax.tree.map(np.array, split(model)[1])
    grown, larger = vocabulary.grow(model, tokenizer, ["<b>", "<a>", "<c>", "<b>"])

    names = ["<a>", "<b>", "<c>"]
    assert larger.hf.convert_tokens_to_ids(names) == [5, 6, 7]
    assert grown.config == dataclasses.replace(model.config, vocab_size=8)
    # ([0, 1] + [2, 3] + [4, 5] + [6, 7] + [10, 11]) / 5
    mean = [[4.4, 5.4]] * 2
    ours = split(grown)[1]
    np.testing.assert_allclose(ours["embedding"], np.vstack([before["embedding"], mean]), rtol=1e-6)
    np.testing.assert_allclose(ours["lm_head"], 10 * ours["embedding"], rtol=1e-6)
    _assert_unchanged(grown, before | {name: ours[name] for name in ("embedding", "lm_head")})
    assert (grown.head_config, grown.compute) == (HeadConfig(), Compute("bfloat16"))

    _assert_unchanged(model, before)
    assert "<b>" not in tokenizer.hf.get_vocab()


def test_a_tied_embedding_grows_alone_and_lora_stays():
    config = dataclasses.replace(TWO_WIDE, tie_embeddings=True, vocab_size=4)
    lora = LoraConfig(rank=1)
    params = jax.tree.map(lambda p: jnp.ones(p.shape), declare(config, None, lora))
    params["embedding"] = jnp.arange(8.0).reshape(4, 2)
    model = RewardModel(config, None, lora, params=params)
    grown, _ = vocabulary.grow(model, _tokenizer(), ["<a>"])
    assert grown.lora_config == lora
    assert grown.head_config is None
    _assert_unchanged(grown, params | {"embedding": grown.embedding[...]})
    assert grown.embedding[...].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [3, 4]]


def test_the_mean_is_taken_in_float32_and_stored_as_the_rows_are():
    # 51.4, stored as 51.5; of a sum in bfloat16, 256 for 257, it would be 51.25.
    rows = jnp.array([[1.0], [64.0], [64.0], [64.0], [64.0]], jnp.bfloat16).repeat(2, axis=1)
    model = _model(5)
    params = split(model)[1] | {"embedding": rows, "lm_head": rows}
    model = RewardModel(model.config, HeadConfig(), params=params)
    grown, _ = vocabulary.grow(model, _tokenizer(added=["<a>"]), ["<b>"])
    assert grown.embedding[...].dtype == jnp.bfloat16
    assert grown.embedding[...][5].tolist() == [51.5, 51.5]


def test_new_tokens_are_special_tokens_that_survive_saving(tmp_path):
    _, larger = vocabulary.grow(_model(4), _tokenizer(), ["<a>"])
    larger.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for tokenizer in (larger, loaded):
        ids = tokenizer.hf("the <a>cat").input_ids
        assert ids == [2, 4, 3]
        assert tokenizer.hf.decode(ids, skip_special_tokens=True).split() == ["the", "cat"]
        assert 4 in tokenizer.special_ids


def test_new_tokens_take_spare_rows_and_leave_their_values():
    model = _model(6)
    grown, larger = vocabulary.grow(model, _tokenizer(), ["<a>"])
    assert larger.hf.convert_tokens_to_ids("<a>") == 4
    assert grown.config.vocab_size == 6
    _assert_unchanged(grown, split(model)[1])


def test_tokens_beyond_the_embedding_get_rows_where_all_of_them_are_named():
    tokenizer = _tokenizer(added=["<a>", "<b>"])  # ids 4 and 5
    with pytest.raises(TokenizerError, match=r"^models/base: .*: <b> \(5\)\. "):
        vocabulary.grow(_model(4), tokenizer, ["<a>", "<c>"])
    grown, larger = vocabulary.grow(_model(4), tokenizer, ["<b>", "<a>"])
    assert larger.hf.get_vocab() == tokenizer.hf.get_vocab()
    assert grown.config.vocab_size == 6
    np.testing.assert_allclose(grown.embedding[...][4:], [[3.0, 4.0]] * 2)  # of 0 to 7
    vocabulary.check(grown.config, larger, "models/base")


def test_names_that_cannot_be_added_are_refused():
    with pytest.raises(OptionError, match="at least one character"):
        vocabulary.grow(_model(4), _tokenizer(), ["<a>", ""])
    # Five tokens, so that the next is numbered 5, which "sat" is.
    gaps = _tokenizer({"the": 0, "[UNK]": 1, "</s>": 2, "cat": 3, "sat": 5})
    with pytest.raises(TokenizerError, match="<a> would get the id 5, which another token has"):
        vocabulary.grow(_model(6), gaps, ["<a>"])


@pytest.mark.parametrize(
    ("names", "rows", "first"), [(["<a>", "<b>"], 6, "tensor"), (["<a>"], 5, None)]
)
def test_sharded_rows_stay_where_they_are_as_far_as_they_divide(names, rows, first, caplog):
    config = dataclasses.replace(CONFIG, vocab_size=4, tie_embeddings=False)
    alone = small_model(config, HeadConfig())
    mesh = make_mesh(MeshShape(2, 2, 2))
    placement = placements(declare(config, HeadConfig()), mesh, ShardingRules())
    params = jax.device_put(split(alone)[1], placement)
    sharded = RewardModel(config, HeadConfig(), params=params)
    assert sharded.embedding[...].sharding.spec == PartitionSpec("tensor", "fsdp")
    with caplog.at_level(logging.WARNING, vocabulary.__name__):
        grown, _ = vocabulary.grow(sharded, _tokenizer(), names)
    expected, _ = vocabulary.grow(alone, _tokenizer(), names)
    for name in ("embedding", "lm_head"):
        array = split(grown)[1][name]
        assert array.shape == (rows, config.hidden_size)
        assert array.sharding.spec == PartitionSpec(first, "fsdp")
        np.testing.assert_allclose(array, split(expected)[1][name], rtol=1e-5, atol=1e-7)
    assert ("5 rows does not divide over 2 devices" in caplog.text) == (first is None)


def test_what_is_padded_well_is_returned_as_it_is():
    tokenizer = _tokenizer(added=["<blank>"], pad_token="<blank>")
    model = _model(5, pad_token_id=4, eos_token_id=(1, 3))
    same, also = vocabulary.padded(model, tokenizer)
    assert same is model
    assert also is tokenizer


@pytest.mark.parametrize("said", [None, 0, 1])
def test_the_config_follows_the_tokenizer(said):
    tokenizer = _tokenizer(added=["<blank>"], pad_token="<blank>")
    model = _model(5, pad_token_id=said, eos_token_id=1)
    other, also = vocabulary.padded(model, tokenizer)
    assert also is tokenizer
    assert other.config == dataclasses.replace(model.config, pad_token_id=4)
    _assert_unchanged(other, split(model)[1])
    assert model.config.pad_token_id == said


@pytest.mark.parametrize("own", [None, "</s>", "<|im_end|>"])
@pytest.mark.parametrize(
    "there", ["<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>"]
)
def test_a_token_that_is_there_for_padding_is_taken_before_a_new_one(there, own, caplog):
    special = {} if own is None else {"pad_token": own}
    tokenizer = _tokenizer(WORDS | {there: 4}, added=["<|im_end|>"], **special)
    model = _model(6, pad_token_id=1, eos_token_id=(1, 5))  # "</s>" and "<|im_end|>"
    before = copy.deepcopy(tokenizer.hf.special_tokens_map)
    with caplog.at_level(logging.INFO, vocabulary.__name__):
        other, also = vocabulary.padded(model, tokenizer)
    assert (also.hf.pad_token, also.hf.pad_token_id) == (there, 4)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert f"was {own}, and is {there} (4) now, a token that it had" in caplog.text
    assert other.config == dataclasses.replace(model.config, pad_token_id=4)
    assert also.hf.get_vocab() == tokenizer.hf.get_vocab()
    assert tokenizer.hf.special_tokens_map == before


@pytest.mark.parametrize("ends", [1, None])
def test_a_token_that_ends_sequences_never_pads(ends, caplog):
    # As in Qwen's base models: one token ends texts and pads them, by tokenizer or by config.
    words = {"[UNK]": 0, "<|endoftext|>": 1, "the": 2, "cat": 3}
    by_tokenizer = {"eos_token": "<|endoftext|>"} if ends is None else {"eos_token": "cat"}
    tokenizer = _tokenizer(words, pad_token="<|endoftext|>", **by_tokenizer)
    model = _model(4, pad_token_id=1, eos_token_id=ends)
    with caplog.at_level(logging.INFO, vocabulary.__name__):
        other, also = vocabulary.padded(model, tokenizer)
    assert (also.hf.pad_token, also.hf.pad_token_id) == ("<pad>", 4)
    assert (other.config.pad_token_id, other.config.vocab_size) == (4, 5)
    assert other.embedding[...].shape == (5, 2)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "models/base: the embedding had 4 rows and has 5 now"),
        (
            "WARNING",
            "models/base: the padding token was <|endoftext|>, and is <pad> (4) now, a new token "
            "which ends no sequence",
        ),
    ]


def test_a_token_that_ends_turns_never_pads():
    words = {"[UNK]": 0, "</s>": 1, "the": 2, "cat": 3, "<end>": 4}
    tokenizer = _tokenizer(words, pad_token="<end>")
    assert vocabulary.padded(_model(5), tokenizer)[1].hf.pad_token == "<end>"
    tokenizer.hf.chat_template = "{% for m in messages %}{{ m.content }} <end>{% endfor %}"
    _, also = vocabulary.padded(_model(5), tokenizer)
    assert (also.hf.pad_token, also.hf.pad_token_id) == ("<pad>", 5)


def test_a_padding_token_without_a_row_gets_one():
    tokenizer = _tokenizer(added=["<blank>"], pad_token="<blank>")
    other, also = vocabulary.padded(_model(4, pad_token_id=4), tokenizer)
    assert also.hf.pad_token_id == 4
    assert other.config.vocab_size == 5


def test_a_padding_token_that_is_no_token_is_not_taken_for_the_unknown_one():
    tokenizer = _tokenizer()
    tokenizer.hf.pad_token = "<blank>"
    assert tokenizer.hf.pad_token_id == 0  # that of "[UNK]"
    _, also = vocabulary.padded(_model(4), tokenizer)
    assert (also.hf.pad_token, also.hf.pad_token_id) == ("<pad>", 4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_saved_tokenizer_pads_so_that_the_last_other_token_ends_the_text(tmp_path, side):
    _, tokenizer = vocabulary.padded(_model(4), _tokenizer(pad_token="</s>"))
    tokenizer.save_pretrained(tmp_path)
    hf = load_tokenizer(tmp_path).hf
    texts = ["the cat </s>", "cat </s>", "</s>"]
    for ids in hf(texts, padding=True, padding_side=side).input_ids:
        assert len(ids) == 3
        assert [token for token in ids if token != hf.pad_token_id][-1] == 1
