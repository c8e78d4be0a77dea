"""What a conversation holds reaches the chat template, or is refused by name."""

from __future__ import annotations

import json

import pytest

from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import DataError
from tests.data.byte_level import TOOLS, byte_level
from tests.data.layouts import CALL, TOOL
from tests.shared_data import shared

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
    # A turn that is nothing but calls cannot do without them.
    assert (f"?ignore={part}" in str(caught.value)) == (part != "tool_calls")


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


def called(*planets, role="assistant"):
    calls = [{"function": {"name": "moons", "arguments": {"planet": name}}} for name in planets]
    return Message(role, "", tool_calls=calls)


def texts_of(template, given):
    tokenizer = byte_level(template)
    (tree,) = chat.tokenize([given], tokenizer)
    return [tokenizer.hf.decode([*tree.prompt, *branch.tokens]) for branch in tree.branches]


FIRST_CALL = TOOLS.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
NAMES = TOOLS.replace("{{ call.function | tojson }}", "{{ call.function.name }}")
NO_THOUGHT = PLAIN.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")


def test_every_call_and_its_arguments_are_to_be_written():
    given = comparison(ASK, response=(called("Mars", "Venus"),))
    assert "Venus" in texts_of(TOOLS, given)[0]
    for template in (FIRST_CALL, NAMES):
        with pytest.raises(DataError, match=r"'responses\[0\]\[0\].tool_calls'"):
            texts_of(template, given)
    alike = comparison(ASK, response=(called("Mars", "Mars"),))
    with pytest.raises(DataError, match=r"'responses\[0\]\[0\].tool_calls'"):
        texts_of(FIRST_CALL, alike)


def test_what_is_left_out_of_a_later_row_is_refused_too():
    plain = comparison(ASK)
    thoughtful = comparison(ASK, response=(Message("assistant", "<think>Hm.</think>Two."),))
    tokenizer = byte_level(NO_THOUGHT)
    assert chat.tokenize([plain], tokenizer)
    with pytest.raises(DataError, match=r"'responses\[0\]\[0\].content'"):
        chat.tokenize([plain, thoughtful], tokenizer)
    twice = comparison(Message("system", "Be kind."), Message("system", "Be brief."), ASK)
    last = "{% set n = namespace(s='') %}{% for m in messages if m.role == 'system' %}"
    last += "{% set n.s = m.content %}{% endfor %}{{ n.s }}"
    last += PLAIN.replace("in messages", "in messages if m.role != 'system'")
    tokenizer = byte_level(last)
    assert chat.tokenize([comparison(Message("system", "Be kind."), ASK)], tokenizer)
    with pytest.raises(DataError, match=r"'prompt\[0\].content'"):
        chat.tokenize([twice], tokenizer)


def test_arguments_are_an_object_however_they_were_written(tmp_path):
    call = {"type": "function", "function": {"name": "moons", "arguments": '{"planet": "Mars"}'}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": [ASK.row()], "chosen": [answer], "rejected": "No."}))
    (read,) = sources.read(path)
    assert read.responses[0][0].tool_calls == [CALL]
    assert '"arguments": {"planet": "Mars"}' in texts_of(TOOLS, read)[0]
    joining = TOOLS.replace("call.function | tojson", "'=' + call.function.arguments")
    assert '={"planet": "Mars"}' in texts_of(joining, read)[0]


@pytest.mark.parametrize("broken", ["\ud83d", float("nan")])
def test_tools_hold_what_json_can(broken):
    with pytest.raises(DataError, match="field 'tools': holds what JSON cannot"):
        comparison(ASK, tools=[{"name": broken}])


def test_no_real_template_is_refused_a_plain_conversation():
    templates = sorted(shared("tokenizers", "chat_templates").rglob("*.jinja"))
    assert len(templates) > 20
    system, answer = Message("system", "Be brief."), Message("assistant", "Three, I think.")
    for path in templates:
        for prompt in ((ASK,), (ASK, answer, ASK), (system, ASK), (system, ASK, answer, ASK)):
            given = comparison(*prompt, response=(answer,))
            assert chat.tokenize([given], byte_level(path.read_text().strip())), path


@pytest.mark.parametrize("name", ["Qwen-Qwen3-0.6B", "meta-llama-Llama-3.1-8B-Instruct"])
def test_real_templates_write_tools_and_calls(name):
    (path,) = shared("tokenizers", "chat_templates").rglob(f"{name}.jinja")
    given = comparison(Message("system", "Count."), ASK, CALLS, RESULT, tools=[TOOL])
    assert chat.tokenize([given], byte_level(path.read_text().strip()))


def test_arguments_that_are_text_already_are_not_written_as_text_again():
    joining = TOOLS.replace("call.function | tojson", "'=' + call.function.arguments")
    calls = [{"function": {"name": "moons", "arguments": said}} for said in ({"p": "M"}, "half")]
    turn = Message("assistant", "", tool_calls=calls)
    assert '={"p": "M"}=half<end>' in texts_of(joining, comparison(ASK, response=(turn,)))[0]
