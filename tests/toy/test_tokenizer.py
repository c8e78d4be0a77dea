from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrm.data.comparison import Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.toy import TOKENIZER
from jaxrm.toy.tokenizer import VOCABULARY, build

HF = load_tokenizer(TOKENIZER).hf


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TOKENIZER)


def test_the_shipped_tokenizer_is_the_one_that_the_command_builds(tmp_path):
    build(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    for name in files:
        assert (tmp_path / name).read_bytes() == (TOKENIZER / name).read_bytes()
    assert sum((TOKENIZER / name).stat().st_size for name in files) < 100_000


def test_special_tokens_are_gemma_s(tokenizer):
    hf = tokenizer.hf
    assert len(hf) <= VOCABULARY
    names = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    assert [hf.pad_token, hf.eos_token, hf.bos_token] == names[:3]
    assert hf.convert_tokens_to_ids(names) == [0, 1, 2, 3, 4]
    assert hf("x")["input_ids"][0] == hf.bos_token_id
    assert set(tokenizer.special_ids) == {0, 1, 2, 3, 4}


@given(st.text())
@settings(max_examples=200)
def test_any_text_round_trips(text):
    assert HF.decode(HF(text, add_special_tokens=False)["input_ids"]) == text


def test_a_system_message_joins_the_first_user_turn(tokenizer):
    turns = (Message("system", " be brief. "), Message("user", "hello"))
    assert not tokenizer.folds_system
    assert tokenizer.render(turns, opened=True) == (
        "<bos><start_of_turn>user\nbe brief.\n\nhello<end_of_turn>\n<start_of_turn>model\n"
    )
