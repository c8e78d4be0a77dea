"""Ids are those of the directory's tokenizer.json, whatever class transformers makes of it."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from datetime import date, timedelta

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, processors
from transformers import AutoTokenizer

from jaxrm.data import tokenizer as module
from jaxrm.data.comparison import Message
from jaxrm.data.tokenizer import TELLING, ChatTokenizer, load_tokenizer, telling
from jaxrm.errors import TokenizerError
from tests.data.tokenizer_kinds import CHAT, KINDS, SPECIAL, write
from tests.shared_data import shared

TODAY = date(2026, 11, 30)
EXCHANGE = (Message("user", "the  1234?\n"), Message("assistant", " the"))


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """By kind, a directory as a model has it."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        write(kind, folder / kind)
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(directories):
    return {kind: load_tokenizer(directory) for kind, directory in directories.items()}


def filed(directory) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def assert_same(hf, file: Tokenizer, texts):
    for special in (False, True):
        found = hf(texts, add_special_tokens=special, return_offsets_mapping=True)
        for text, ids, offsets in zip(
            texts, found["input_ids"], found["offset_mapping"], strict=True
        ):
            expected = file.encode(text, add_special_tokens=special)
            assert (ids, offsets) == (expected.ids, expected.offsets), text


def differs(directory) -> bool:
    """Whether AutoTokenizer of the version that is installed makes other ids than the file."""
    family, file = AutoTokenizer.from_pretrained(directory), filed(directory)
    bare = {"add_special_tokens": False}
    return any(
        family(text, **bare)["input_ids"] != file.encode(text, **bare).ids for text in TELLING
    )


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


pieces = st.sampled_from([*SPECIAL, " ", "  ", "\n", "the", "a", "1", "23", "é", "e\u0301", "☃"])
mixed = st.lists(st.one_of(pieces, st.text(max_size=4)), max_size=8).map("".join)


@settings(max_examples=50)
@given(st.lists(mixed, min_size=1, max_size=4))
@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_offsets_are_those_of_the_file(loaded, directories, kind, texts):
    assert_same(loaded[kind].hf, filed(directories[kind]), texts)


@pytest.mark.parametrize("kind", KINDS)
def test_another_reading_by_autotokenizer_is_said_once(directories, kind, caplog):
    directory = directories[kind]
    load_tokenizer(directory)
    if not differs(directory):
        assert warnings(caplog) == []
        return
    (message,) = warnings(caplog)
    made = type(AutoTokenizer.from_pretrained(directory)).__name__
    assert message.startswith(f"{directory / 'tokenizer.json'}: AutoTokenizer of transformers")
    assert f"{transformers.__version__} makes a {made} of this directory, which reads '" in message
    assert "the file's are used here" in message


def test_one_kind_at_least_is_read_otherwise(directories):
    # Else the tests above would hold for AutoTokenizer's reading as well.
    assert any(map(differs, directories.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_read_alike_by_autotokenizer_and_by_the_file(loaded, kind, tmp_path):
    loaded[kind].save_pretrained(tmp_path)
    hf, texts = loaded[kind].hf, telling(loaded[kind].hf)
    assert_same(hf, filed(tmp_path), texts)
    assert_same(AutoTokenizer.from_pretrained(tmp_path), filed(tmp_path), texts)


@pytest.mark.parametrize("prefix", [False, True])
def test_a_space_before_texts_is_said_as_the_file_has_it(tmp_path, prefix):
    # transformers 4 goes by what is said.
    tokenizer = write("byte-level", tmp_path, add_prefix_space=not prefix)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    load_tokenizer(tmp_path).save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text("utf-8"))
    assert config["add_prefix_space"] is prefix


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
@pytest.mark.parametrize("said", [{"add_bos_token": False}, {"add_eos_token": True}])
def test_bos_and_eos_are_those_of_the_file(tmp_path, kind, said):
    write(kind, tmp_path, **said)
    hf = load_tokenizer(tmp_path).hf
    assert hf("the")["input_ids"] == [0, *hf("the", add_special_tokens=False)["input_ids"]]
    assert_same(hf, filed(tmp_path), ["the", "</s>the<s>"])


def test_truncation_and_padding_in_the_file_are_dropped(tmp_path):
    tokenizer = write("digits", tmp_path)
    whole = tokenizer.encode("the 1234").ids
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=40, pad_id=2, pad_token="<unk>")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert loaded.hf("the 1234")["input_ids"] == loaded.hf.backend_tokenizer.encode("the 1234").ids
    assert loaded.hf("the 1234")["input_ids"] == whole
    loaded.save_pretrained(tmp_path / "saved")
    assert filed(tmp_path / "saved").encode("the 1234").ids == whole


NEW = {"content": "<new>", "lstrip": True, "rstrip": False, "normalized": False, "special": True}


@pytest.mark.parametrize("by", ["config", "names", "legacy"])
def test_tokens_that_the_file_lacks_are_added_as_the_files_beside_it_say(tmp_path, by):
    config = {
        "config": {"added_tokens_decoder": {"4711": NEW | {"single_word": False}}},
        "names": {"additional_special_tokens": ["<new>"]},
        "legacy": {},
    }
    file = write("metaspace", tmp_path, **config[by])
    if by == "legacy":
        (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": 4711}))
    hf, following = load_tokenizer(tmp_path).hf, file.get_vocab_size()
    assert hf.get_vocab()["<new>"] == following
    assert following in hf("the <new>the")["input_ids"]
    assert_same(hf, file, ["the the", " a  the</s>"])


def test_white_space_around_a_token_goes_by_its_record(tmp_path):
    end = {"content": "<|end|>", "rstrip": True, "lstrip": False, "normalized": False}
    record = {"3": end | {"single_word": False, "special": True}}
    file = write("metaspace", tmp_path, added_tokens_decoder=record)
    hf = load_tokenizer(tmp_path).hf
    assert hf("a<|end|> \n b")["input_ids"] == file.encode("a<|end|>b").ids
    # Without a record by the file, where a name alone changes nothing.
    write("metaspace", tmp_path, eos_token="<|end|>")
    assert_same(load_tokenizer(tmp_path).hf, file, ["a<|end|> \n b"])


def test_names_that_the_class_alone_gives_are_taken_over(tmp_path):
    file = write("metaspace", tmp_path, bos_token=None, eos_token=None, unk_token=None)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    hf = load_tokenizer(tmp_path).hf
    assert (hf.bos_token, hf.eos_token, hf.unk_token) == ("<s>", "</s>", "<unk>")
    assert_same(hf, file, telling(hf))
    # Not where the file has no such token.
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2TokenizerFast"}')
    assert load_tokenizer(tmp_path).hf.eos_token is None


@pytest.mark.parametrize("family", ["gemma", "qwen2"])
@pytest.mark.parametrize("named", [None, "PreTrainedTokenizerFast", "NoSuchTokenizerFast"])
def test_the_file_is_taken_as_it_is_beside_any_config(directories, tmp_path, family, named):
    shutil.copy(directories["digits"] / "tokenizer.json", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    if named is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    hf = load_tokenizer(tmp_path).hf
    assert_same(hf, filed(tmp_path), telling(hf))


def test_a_class_that_cannot_be_had_is_no_obstacle(directories, tmp_path, caplog):
    shutil.copytree(directories["digits"], tmp_path, dirs_exist_ok=True)
    config = {"auto_map": {"AutoTokenizer": [None, "theirs.TheirTokenizer"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with caplog.at_level(logging.INFO, module.__name__):
        hf = load_tokenizer(tmp_path).hf
    assert_same(hf, filed(tmp_path), telling(hf))
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"not compared with AutoTokenizer: {tmp_path}: ")


def test_a_directory_without_a_file_says_what_it_relies_on(tmp_path, caplog):
    file = write("byte-level", tmp_path / "filed")
    model = json.loads((tmp_path / "filed" / "tokenizer.json").read_text("utf-8"))["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]))
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    hf = load_tokenizer(tmp_path).hf
    bare = {"add_special_tokens": False}
    assert hf("the the\n", **bare)["input_ids"] == file.encode("the the\n", **bare).ids
    (message,) = warnings(caplog)
    assert message.startswith(f"{tmp_path}: no tokenizer.json here")
    assert f"a conversion by transformers {transformers.__version__} (GPT2Tokenizer" in message


def test_a_directory_without_a_tokenizer_is_an_error(directories, tmp_path):
    with pytest.raises(TokenizerError, match=f"{tmp_path}: no tokenizer here"):
        load_tokenizer(tmp_path)
    # transformers would make up a tokenizer of a few tokens for this one
    (tmp_path / "config.json").write_text('{"model_type": "gemma"}')
    with pytest.raises(TokenizerError, match="no tokenizer here"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="google/gemma-2b-it: is no directory: download"):
        load_tokenizer("google/gemma-2b-it")
    with pytest.raises(TokenizerError, match="none.jinja: the chat template cannot be read"):
        load_tokenizer(directories["digits"], tmp_path / "none.jinja")


@pytest.mark.parametrize("content", ["{", "{}", '{"model": {"type": "BPE"}}', "version https://"])
def test_a_damaged_file_is_named(directories, tmp_path, content):
    shutil.copytree(directories["digits"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"/tokenizer\.json: the tokenizer cannot be read: "):
        load_tokenizer(tmp_path)


def test_a_damaged_configuration_names_the_directory(directories, tmp_path):
    shutil.copytree(directories["digits"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(TokenizerError, match=f"{tmp_path}: the tokenizer cannot be read: "):
        load_tokenizer(tmp_path)


# What is saved


def test_saving_keeps_ids_template_and_a_class_that_needs_no_guess(loaded, tmp_path):
    loaded["digits"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    again = load_tokenizer(tmp_path)
    assert again.render(EXCHANGE, opened=True) == loaded["digits"].render(EXCHANGE, opened=True)


def test_what_is_saved_is_in_words_that_transformers_4_reads_too(loaded, tmp_path):
    hf = copy.deepcopy(loaded["digits"].hf)
    hf.add_special_tokens({"extra_special_tokens": ["<extra>"]})
    ChatTokenizer(hf).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert "extra_special_tokens" not in config  # a list, on which 4 fails
    assert "<extra>" in config["additional_special_tokens"]
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
    again = load_tokenizer(tmp_path).hf
    assert "<extra>" in again.all_special_tokens
    assert again("a <extra>").input_ids == hf("a <extra>").input_ids


# How a template opens a conversation


def with_chat(directory, template, raw="<s> $A"):
    """A tokenizer with a template, and what it makes of raw text."""
    hf = load_tokenizer(directory).hf
    hf.chat_template = template
    special = [("<s>", hf.bos_token_id)]
    hf.backend_tokenizer.post_processor = processors.TemplateProcessing(raw, special_tokens=special)
    return ChatTokenizer(hf)


@pytest.mark.parametrize(
    ("template", "odd"),
    [
        (CHAT, ""),
        (CHAT.replace("}}{%", "}} {%", 1), ""),  # a space, as Llama 2's and Mistral's have it
        ("\n  " + CHAT, r"writes '\n  ' before all else"),
        (CHAT.replace("}}{%", "}}\n\n{%", 1), r"writes '\n\n' between <s> and the first turn"),
        (CHAT.partition("}}")[2], "writes no <s>, which the tokenizer puts before raw text"),
        ("{{ nothing.here }}", ""),
        (None, ""),
    ],
)
def test_a_template_that_opens_oddly_is_known(directories, template, odd):
    assert with_chat(directories["byte-level"], template).opens_oddly == odd


def test_a_tokenizer_that_puts_no_bos_needs_none_in_its_template(directories):
    template = CHAT.partition("}}")[2]
    assert with_chat(directories["byte-level"], template, raw="$A").opens_oddly == ""


def test_an_odd_opening_is_said_when_it_is_loaded(directories, tmp_path, caplog):
    with_template(directories["byte-level"], tmp_path, "\n" + CHAT)
    [message] = (text for text in warnings(caplog) if "before all else" in text)
    assert message.startswith(f"{tmp_path / 'chat.jinja'}: the chat template writes '\\n' before")
    assert "(--chat-template)" in message


@pytest.mark.parametrize(
    ("name", "template", "odd"),
    [
        ("qwen2.5", "llama_cpp_copies/Qwen-Qwen3-0.6B", ""),
        ("qwen2.5", "llama_cpp_copies/google-gemma-2-2b-it", ""),
        ("mistral_v1", "gemma-it", "before all else"),
    ],
)
def test_real_templates_are_told_apart(name, template, odd):
    folder = shared("tokenizers")
    template = folder / "chat_templates" / f"{template}.jinja"
    found = load_tokenizer(folder / name, template).opens_oddly
    assert odd in found
    assert bool(found) == bool(odd)


# Directories without a tokenizer


def test_the_directory_of_a_run_says_where_its_models_are(tmp_path):
    for place in ("run/bt/export", "run/grm/export", "run/bt/checkpoints"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_text("{}")
    (tmp_path / "run/config.json").write_text("{}")
    with pytest.raises(
        TokenizerError, match="training run's directory, .* name .*/bt/export or .*/grm/export$"
    ):
        load_tokenizer(tmp_path / "run")
    with pytest.raises(TokenizerError, match="training run's directory, .* name .*/bt/export$"):
        load_tokenizer(tmp_path / "run/bt")
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    with pytest.raises(TokenizerError, match="not done: its model comes at its end"):
        load_tokenizer(tmp_path / "begun")


# Templates that write the date

LLAMA = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}\n" + CHAT
)
WHERE_ASKED = "{% if messages[0]['role'] == 'system' %}{{ strftime_now('%A') }}{% endif %}" + CHAT
UNWRITTEN = (
    "{% if tools %}{{ strftime_now('%Y') }}{% endif %}{% set y = strftime_now('%Y') %}" + CHAT
)
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No') }}{% endif %}" + LLAMA


def with_template(directory, tmp_path, template, **options):
    (tmp_path / "chat.jinja").write_text(template, "utf-8")
    return load_tokenizer(directory, tmp_path / "chat.jinja", **options)


@pytest.mark.parametrize("template", [LLAMA, WHERE_ASKED, REFUSES])
def test_a_template_that_writes_the_day_is_known_and_said_at_once(
    directories, tmp_path, template, caplog
):
    tokenizer = with_template(directories["byte-level"], tmp_path, template, day=TODAY)
    assert tokenizer.dated == "2026-11-30"
    message = warnings(caplog)[-1]
    assert message.startswith(f"{directories['byte-level']}: the chat template writes the day")
    assert "(2026-11-30)" in message
    assert "strftime_now (--chat-template)" in message


@pytest.mark.parametrize(
    "template", [CHAT, UNWRITTEN, "{{ nothing.here }}", "{% for %}", "{{ 1+'' }}"]
)
def test_a_template_that_writes_no_day_is_not_dated(directories, tmp_path, template, caplog):
    assert with_template(directories["byte-level"], tmp_path, template).dated == ""
    assert "chat template" not in caplog.text


def test_a_tokenizer_without_a_template_is_not_dated(directories):
    tokenizer = load_tokenizer(directories["byte-level"])
    tokenizer.hf.chat_template = None
    assert tokenizer.dated == ""


def test_one_tokenizer_writes_one_day(directories, tmp_path):
    for day, said in ((TODAY, "30 Nov 2026"), (date(2027, 1, 4), "04 Jan 2027")):
        tokenizer = with_template(directories["byte-level"], tmp_path, LLAMA, day=day)
        assert tokenizer.render(EXCHANGE, opened=False).startswith(f"Today Date: {said}\n")
    today = with_template(directories["byte-level"], tmp_path, LLAMA)
    assert abs(today.day - date.today()) <= timedelta(days=1)
    assert f"Today Date: {today.day:%d %b %Y}\n" in today.render(EXCHANGE, opened=False)


@pytest.mark.parametrize(
    "start", ["", "\n", "  ", "\n\n  {% if true %}\n  {% endif %}\n", "{#- -#} "]
)
@pytest.mark.parametrize("form", ["%Y-%m-%d", "%A, %d %B %Y", "%H:%M %p%Z", "a %-d of %j", "it's"])
def test_nothing_but_the_day_is_written_otherwise(directories, tmp_path, start, form):
    template = f'{start}{{{{ strftime_now("{form}") }}}}{CHAT}'
    tokenizer = with_template(directories["byte-level"], tmp_path, template, day=TODAY)
    plain = template.replace(f'strftime_now("{form}")', f'"{TODAY.strftime(form)}"')
    turns = [{"role": message.role, "content": message.content} for message in EXCHANGE]
    expected = tokenizer.hf.apply_chat_template(turns, chat_template=plain, tokenize=False)
    assert tokenizer.render(EXCHANGE, opened=False) == expected


# Real tokenizers


@pytest.mark.parametrize("name", ["qwen2.5", "mistral_v1"])
def test_real_tokenizers_are_read_as_their_files_are(name, tmp_path):
    directory = shared("tokenizers", name)
    tokenizer = load_tokenizer(directory)
    pairs = shared("sample", "pairs_64.jsonl").read_text("utf-8").splitlines()
    texts = [*telling(tokenizer.hf), *(json.loads(pair)["chosen"] for pair in pairs)]
    assert_same(tokenizer.hf, filed(directory), texts)
    tokenizer.save_pretrained(tmp_path)
    assert_same(AutoTokenizer.from_pretrained(tmp_path), filed(directory), texts)
