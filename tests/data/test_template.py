"""What a conversation holds reaches the chat template, or is refused by name."""

from __future__ import annotations

import json

import pytest

from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import DataError
from tests.data.byte_level import TOOLS, byte_level
from tests.data.layouts import CALL, TOOL

PLAIN = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
DEAF = (  # to systems and tools, without a word
    "{% for m in messages %}{% if m.role in ('user', 'assistant') %}"
    "<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
FORGETFUL = TOOLS.replace("if m.reasoning_content", "if m.reasoning_content and loop.last")

ASK = Message("user", "Which?")
CALLS = Message("assistant", "", tool_calls=[CALL])
RESULT = Message("tool", "two", name="moons", tool_call_id="1")
THOUGHT = Message("assistant", "Two.", reasoning_content="Counted.")


def comparison(*prompt, response=(Message("assistant", "Two."),), **known):
    return Comparison(prompt, (response, (Message("assistant", "No."),)), where="a, row 1", **known)


EVERYTHING = comparison(
    Message("system", "Count."), ASK, CALLS, RESULT, response=(THOUGHT,), tools=[TOOL]
)


def ids(template, given):
    (tree,) = chat.tokenize([given], byte_level(template))
    return [[*tree.prompt, *branch.tokens] for branch in tree.branches]


def test_a_template_gets_what_transformers_passes_it():
    tokenizer = byte_level()
    turns = [message.row() for message in (*EVERYTHING.prompt, *EVERYTHING.responses[0])]
    assert turns[2] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    wanted = tokenizer.hf.apply_chat_template(turns, tools=[TOOL], return_dict=False)
    assert ids(TOOLS, EVERYTHING)[0] == wanted


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (comparison(ASK, tools=[TOOL]), "tools"),
        (comparison(ASK, CALLS, RESULT), "prompt[1].tool_calls"),
        (comparison(ASK, response=(CALLS,)), "responses[0][0].tool_calls"),
        (comparison(ASK, response=(THOUGHT,)), "responses[0][0].reasoning_content"),
        (comparison(Message("user", "Which?", name="Ann")), "prompt[0].name"),
    ],
)
def test_what_a_template_would_leave_out_is_refused_by_name(given, field):
    assert ids(TOOLS, given)
    with pytest.raises(DataError) as caught:
        ids(PLAIN, given)
    part = field.rpartition(".")[2]
    assert str(caught.value).startswith(
        f"a, row 1: field '{field}': the chat template of byte_level"
    )
    assert f"?ignore={part}" in str(caught.value)


def test_a_turn_that_a_template_would_leave_out_is_refused():
    turns = comparison(ASK, CALLS, Message("tool", "two"))
    with pytest.raises(DataError, match=r"'prompt\[1\].tool_calls'"):
        ids(DEAF, turns)
    heard = DEAF.replace("{{ m.content }}", "{{ m.content }}{{ m.tool_calls or '' }}")
    with pytest.raises(DataError, match=r"'prompt\[2\].content': the chat template"):
        ids(heard, turns)
    later = comparison(ASK, Message("assistant", "Yes?"), Message("system", "Hurry."), ASK)
    with pytest.raises(DataError, match=r"'prompt\[2\].content'"):
        ids(DEAF, later)
    assert ids(PLAIN, later)


def test_the_name_of_a_tool_that_was_called_by_it_need_not_be_written_again():
    silent = TOOLS.replace("{% if m.name %} {{ m.name }}{% endif %}", "")
    assert ids(silent, comparison(ASK, CALLS, RESULT))
    other = Message("tool", "two", name="suns")
    with pytest.raises(DataError, match=r"'prompt\[2\].name'"):
        ids(silent, comparison(ASK, CALLS, other))


def test_a_system_message_that_a_template_leaves_out_goes_into_the_first_turn():
    given = comparison(Message("system", "Count."), ASK)
    tokenizer = byte_level(DEAF)
    assert tokenizer.folded([given]) == 1
    (tree,) = chat.tokenize([given], tokenizer)
    assert "<turn>user\nCount.\n\nWhich?<end>" in tokenizer.hf.decode(tree.prompt)


def test_thoughts_of_earlier_turns_may_be_left_out():
    given = comparison(ASK, THOUGHT, ASK, response=(THOUGHT,))
    text = byte_level().hf.decode(ids(FORGETFUL, given)[0])
    assert text.count("(Counted.)") == 1
    assert byte_level().hf.decode(ids(TOOLS, given)[0]).count("(Counted.)") == 2


def test_a_hint_to_leave_a_part_out_is_enough(tmp_path):
    turns = [message.row() for message in (THOUGHT, ASK)]
    row = {"prompt": [ASK.row(), *turns], "chosen": "a", "rejected": "b", "tools": [TOOL]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    source = str(path)
    for hint in ("tools", "reasoning_content"):
        with pytest.raises(DataError) as caught:
            chat.tokenize(sources.read(source), byte_level(PLAIN))
        assert str(caught.value).endswith(f"?ignore={hint}")
        source += f",{hint}" if "?" in source else f"?ignore={hint}"
    assert chat.tokenize(sources.read(source), byte_level(PLAIN))


def test_whatever_a_template_raises_names_the_row():
    broken = PLAIN.replace("{{ m.content }}", "{{ m.content + m.name }}")
    given = comparison(ASK, Message("assistant", "Yes?", name=" A"), ASK)
    for template in (broken, PLAIN.replace("{{ m.content }}", "{{ m.content[m.name] }}")):
        quiet = template.replace("m.name", "(m.name if loop.index == 2 else 1 + 'a')")
        with pytest.raises(DataError, match="a, row 1: field 'prompt': the chat template of"):
            tokenizer = byte_level(quiet)
            tokenizer.__dict__["folds_system"] = False
            chat.tokenize([given], tokenizer)
