"""Text is raw or a conversation as somebody says; where nobody does, the run says which it took."""

from __future__ import annotations

import json
import logging

import pytest

from jaxrm.data import chat, sources
from jaxrm.data.training import training_set
from jaxrm.errors import DataError
from tests.data.byte_level import byte_level

ROW = {"prompt": "Is 7 a prime?", "chosen": "Yes, it is.", "rejected": "No."}
RENDERED = {
    "prompt": "<bos><turn>user\nIs 7 a prime?<end>\n<turn>assistant\n",
    "chosen": "Yes, it is.<end>\n",
    "rejected": "No.<eos>",
}


def write(folder, *rows):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(source, tokenizer):
    trees = chat.tokenize(sources.read(source), tokenizer)
    return [tokenizer.hf.decode([*t.prompt, *b.tokens]) for t in trees for b in t.branches]


CHAT = "<turn>userIs 7 a prime?<end>\n<turn>assistantYes, it is.<end>\n"
RAW = "<bos>Is 7 a prime?Yes, it is.<eos>"


def test_a_choice_is_kept_and_not_mentioned(tmp_path, caplog):
    path = write(tmp_path, ROW)
    assert texts(f"{path}?text=chat", byte_level())[0] == CHAT
    assert texts(f"{path}?text=raw", byte_level())[0] == RAW
    assert texts(f"{path}?text=raw", byte_level(None))[0] == RAW
    assert not caplog.records


def test_without_a_choice_the_template_decides_and_says_so_once(tmp_path, caplog):
    path = write(tmp_path, ROW, ROW)
    assert texts(path, byte_level())[::2] == [CHAT, CHAT]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    said = record.getMessage()
    assert said.startswith(f"{path}, row 1: text, not messages, and byte_level has a chat template")
    assert "CONVERSATION" in said
    assert "?text=chat" in said
    assert "?text=raw" in said


def test_without_a_template_text_is_raw_and_there_is_nothing_to_say(tmp_path, caplog):
    assert texts(write(tmp_path, ROW), byte_level(None))[0] == RAW
    assert not caplog.records


def test_rendered_text_gets_no_second_bos_and_no_eos_after_its_end(tmp_path, caplog):
    path = write(tmp_path, RENDERED, RENDERED)
    for source in (path, f"{path}?text=raw"):
        first, second, *_ = texts(source, byte_level())
        assert first == RENDERED["prompt"] + RENDERED["chosen"]
        assert second == RENDERED["prompt"] + RENDERED["rejected"]
    (record,) = caplog.records
    assert "RAW TEXT, with no second BOS or EOS" in record.getMessage()


def test_the_last_target_of_rendered_text_is_its_end_of_turn(tmp_path):
    tokenizer = byte_level()
    (tree,) = chat.tokenize(sources.read(f"{write(tmp_path, RENDERED)}?text=raw"), tokenizer)
    asked = [tokenizer.hf.decode(b.tokens[b.targets]) for b in tree.branches]
    assert asked == ["Yes, it is.<end>", "No.<eos>"]


def test_text_is_the_same_for_training(tmp_path, caplog):
    path, limits = write(tmp_path, ROW), {"max_length": 200, "row_length": 400}
    for source, text in ((path, CHAT), (f"{path}?text=raw", RAW)):
        tokenizer = byte_level()
        (tree,) = training_set([(sources.stream(source), 1.0)], tokenizer, **limits).trees
        assert tokenizer.hf.decode([*tree.prompt, *tree.branches[0].tokens]) == text


@pytest.mark.parametrize(
    ("row", "options", "problem"),
    [
        (ROW | {"prompt": [{"role": "user", "content": "7?"}]}, "text=raw", "is a conversation"),
        (ROW | {"system": "Be brief."}, "text=raw", "is a conversation here, not raw text"),
        ({"chosen": "a b", "rejected": "a c"}, "text=chat", "no column says what was asked"),
        (ROW, "text=maybe", "text must be chat or raw, not 'maybe'"),
        (
            ROW | {"chosen": "Is 7 a prime? Yes", "rejected": "Is 7 a prime? No"},
            "",
            "all responses begin with it",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_refused(tmp_path, row, options, problem):
    path = write(tmp_path, row)
    with pytest.raises(DataError) as caught:
        sources.read(f"{path}?{options}" if options else path)
    assert problem in str(caught.value)


def test_texts_that_repeat_their_question_are_read_as_the_refusal_says(tmp_path):
    row = ROW | {"chosen": "Is 7 a prime? Yes", "rejected": "Is 7 a prime? No"}
    path = write(tmp_path, row)
    with pytest.raises(DataError, match=r"\?text=chat .* \?ignore=prompt&text=raw reads"):
        sources.read(path)
    (whole,) = sources.read(f"{path}?ignore=prompt&text=raw")
    assert (whole.prompt, whole.responses) == ("Is 7 a prime?", (" Yes", " No"))
    assert sources.read(f"{path}?text=chat")[0].responses[0][0].content == row["chosen"]
