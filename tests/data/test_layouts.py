"""What people have is read as they mean it, or refused by name: layout by layout, and whatever is
added to a file, taken from it, renamed or moved in it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import re

import pytest

from jaxrm.data import asked, chat, columns, sources
from jaxrm.data.comparison import Message
from jaxrm.data.formats import comparisons, to_row
from jaxrm.errors import DataError
from tests.data.byte_level import byte_level
from tests.data.layouts import (
    ANSWERS,
    ASK,
    BAD,
    CALL,
    GOOD,
    LAYOUTS,
    QUESTION,
    WHOLE,
    conversations,
    every_form,
    says,
)
from tests.shared_data import shared

FORMS = every_form()
TOKENIZER = byte_level()


def parse(rows, **options):
    located = ((f"a.jsonl, row {n}", row) for n, row in enumerate(rows, start=1))
    return list(comparisons(located, stem="a", **options))


def spoken(read):
    """All that the conversations of some comparisons say."""
    return [(c.prompt, c.responses, c.tools) for c in read]


def attempt(rows):
    """What rows say, or None where they are refused by name."""
    try:
        return spoken(parse(rows))
    except DataError:
        return None


def best_first(comparison):
    ranks = comparison.ranks or range(len(comparison.responses))
    order = sorted(range(len(comparison.responses)), key=lambda k: ranks[k])
    return [(*comparison.prompt, *comparison.responses[k]) for k in order]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_says_what_its_author_meant(name):
    (comparison,) = parse([LAYOUTS[name]])
    assert best_first(comparison) == conversations(name)
    assert (comparison.tools is not None) == bool(LAYOUTS[name].get("tools"))


CASES = ("cases", "reading.json")


@pytest.mark.parametrize("place", range(12))
def test_cases_of_public_reports(place, tmp_path):
    case = json.loads(shared().parent.joinpath(*CASES).read_text())[place]
    path = tmp_path / f"{case['name']}{case.get('suffix', '.jsonl')}"
    path.write_text(case.get("text") or "".join(json.dumps(row) + "\n" for row in case["rows"]))
    if case.get("refuse"):
        with pytest.raises(DataError) as caught:
            sources.read(path)
        assert all(word in str(caught.value) for word in (path.name, *case["names"]))
        (hint,) = re.findall(r"\?ignore=([\w,]+)", str(caught.value))
        with pytest.raises(DataError, match=r"\?text=raw"):  # nothing else is left to ask with
            sources.read(f"{path}?ignore={hint}")
        assert len(sources.read(f"{path}?ignore={hint}&text=raw")) == len(case["rows"])
        return
    read = sources.read(path)
    said = [[[m.row() for m in turns] for turns in best_first(c)] for c in read]
    assert said == case["conversations"]


SENTENCE = "Reply in one short line, please."
NEUTRAL = ("remark", "extra", "文", "chosen_context", "Prompt Text", "note2", "data")
TELLING = ("context", "documents", "dialogue", "user", "passage", "functions")


VALUES = (SENTENCE, "秘鲁的首都", [SENTENCE], {"role": "user", "content": "7"})


@pytest.mark.parametrize("form", FORMS)
def test_numbers_of_pairs_and_responses_are_carried(form, caplog):
    """Under names that are else context, or never read; only where a row is a comparison."""
    plain, names = parse(FORMS[form]), ("images", "rating", "shade")
    if form == "helpsteer2":
        with pytest.raises(DataError, match="a row for each response.* source option columns out"):
            parse(FORMS[form], carried=names)
        return
    wanted, rows = [], []
    for row, comparison in zip(FORMS[form], plain, strict=True):
        each = range(len(comparison.responses))
        columns = {"images": 2, "rating": [k + 0.5 for k in each], "shade": [[k, -1] for k in each]}
        rows.append(row | columns)
        columns = {"rating": tuple(columns["rating"]), "shade": tuple((k, -1) for k in each)}
        wanted.append(dataclasses.replace(comparison, columns={"images": 2, **columns}))
    with caplog.at_level("INFO"):
        assert parse(rows, carried=names) == wanted
    assert not any(name in message for name in names for message in caplog.messages)


@pytest.mark.parametrize("form", FORMS)
def test_a_column_of_text_more_is_never_ignored_without_a_word(form):
    whole = spoken(parse(FORMS[form]))
    for name, value, place in itertools.product((*NEUTRAL, *TELLING), VALUES, (0, -1)):
        if name in FORMS[form][0]:
            continue
        rows = copy.deepcopy(FORMS[form])
        rows[place][name] = value
        with pytest.raises(DataError) as caught:
            parse(rows)
        assert name in str(caught.value)
        (hint,) = re.findall(r"\?ignore=([\w, ]+)", str(caught.value))
        assert spoken(parse(rows, ignore=hint.split(","))) == whole


@pytest.mark.parametrize("form", FORMS)
def test_numbers_and_names_of_all_kinds_are_no_context(form):
    more = {
        "helpful_score": 2.5,
        "is_good": True,
        "source_url": "see https://a b",
        "chosen-model": "M",
    }
    more |= {"metadata": {"worker": "w 1 of 2"}, "category": "Open question", "nothing": None}
    rows = [row | {k: v for k, v in more.items() if k not in row} for row in FORMS[form]]
    assert spoken(parse(rows)) == spoken(parse(FORMS[form]))


def part_of_the_question(form, name):
    """Whether rows may lack a column without being other rows: who could tell?"""
    return name in ("system", "system_prompt", "history", "input", "tools")


@pytest.mark.parametrize("form", FORMS)
def test_a_column_less_is_noticed_where_it_said_something(form):
    whole = spoken(parse(FORMS[form]))
    for name in FORMS[form][0]:
        rows = [{k: v for k, v in row.items() if k != name} for row in FORMS[form]]
        if not part_of_the_question(form, name):
            assert attempt(rows) in (None, whole), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", ["remark", "payload", "context"])
def test_a_column_under_another_name_is_noticed(form, other):
    whole = spoken(parse(FORMS[form]))
    for name in FORMS[form][0]:
        rows = [{other if k == name else k: v for k, v in row.items()} for row in FORMS[form]]
        assert attempt(rows) in (None, whole), name


@pytest.mark.parametrize("form", FORMS)
def test_a_column_inside_another_is_noticed(form):
    whole = spoken(parse(FORMS[form]))
    for name in FORMS[form][0]:
        rows = [
            {k: v for k, v in row.items() if k != name} | {"data": {name: row.get(name)}}
            for row in FORMS[form]
        ]
        assert attempt(rows) in (None, whole), name


QUESTIONS = (*asked.SYSTEM, *asked.ASKED, "history", "input", "tools")


def leaves(value, path=()):
    """The path to every text in a value."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))


def with_more(value, path):
    """A value whose text at `path` says one word more."""
    value = copy.deepcopy(value)
    *above, last = path
    inner = value
    for key in above:
        inner = inner[key]
    inner[last] = f"{inner[last]} indeed" if isinstance(inner[last], str) else inner[last]
    return value


def ids(comparison):
    (tree,) = chat.tokenize([comparison], TOKENIZER)
    return [[*tree.prompt, *branch.tokens] for branch in tree.branches]


@pytest.mark.parametrize("form", FORMS)
def test_every_part_of_a_conversation_reaches_the_tokens(form):
    rows = FORMS[form][:1]
    (comparison,) = parse(rows)
    before, turns = ids(comparison), (comparison.prompt, *comparison.responses)
    written = json.dumps([[m.row() for m in part] for part in turns]) + json.dumps(comparison.tools)
    tried = 0
    for path in leaves(rows[0]):
        text = rows[0]
        for key in path:
            text = text[key]
        is_link = path[-1] in ("tool_call_id", "type", "role", "from")
        if (
            is_link
            or path[0] == "full_conversation"
            or json.dumps(text.strip())[1:-1] not in written
            or not text.strip()
        ):
            continue
        try:
            (other,) = parse([with_more(rows[0], path)])
        except DataError:
            continue
        if columns.judge(str(path[0]), text) != "harmless" or path[0] in QUESTIONS:
            tried += 1
            assert ids(other) != before, path
    several_in_one = ("messages as", "transcripts", "hh_rlhf", "arena_55k")
    assert tried or form.startswith(several_in_one)


def test_a_conversation_is_written_back_as_it_was_read():
    for rows in FORMS.values():
        read = parse(rows)
        again = parse([json.loads(json.dumps(to_row(c))) for c in read])
        assert spoken(again) == spoken(read)
        assert [(c.id, c.ranks, c.scores, c.margin) for c in again] == [
            (c.id, c.ranks, c.scores, c.margin) for c in read
        ]


HH = "\n\nHuman: {}\n\nAssistant: {}"
TWO = {"chosen": HH.format(QUESTION, GOOD), "rejected": HH.format(QUESTION, BAD)}
TEXTS = {"chosen": GOOD, "rejected": BAD}
THOUGHTS = {
    side: json.dumps([ASK, says(text) | {"thinking": "I shall look."}])
    for side, text in TEXTS.items()
}
HI, HELLO = {"role": "user", "content": "Hi"}, says("Hello.")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": HH.format(QUESTION, "").rstrip(), **TWO},
        {"question": QUESTION, **TWO},
        {"messages": [ASK], **TWO},
        {"system": "", "prompt": HH.format(QUESTION, "").rstrip(), **TEXTS},
        {"question": HH.format(QUESTION, "").rstrip(), **TEXTS},
        {"prompt": HH.format(QUESTION, "").rstrip(), "chosen": [GOOD], "rejected": [BAD]},
        {"instruction": "", "input": QUESTION, **TEXTS},
        {"prompt": QUESTION, "responses": [BAD, GOOD], "ratings": [1, 5], **ANSWERS},
        {"history": [["Hi", "Hello."]], "messages": [HI, HELLO, ASK], **TEXTS},
        {"history": [HI, HELLO, ASK], "question": QUESTION, **TEXTS},
        {
            "prompt": '[{"id": "m1", "role": "user", "content": "How many moons has Mars?"}]',
            **TEXTS,
        },
        {"prompt": [ASK], "responses": [json.dumps([says(GOOD)]), json.dumps([says(BAD)])]},
    ],
)
def test_what_a_question_and_its_answers_share_is_said_once(row):
    (comparison,) = parse([row])
    hello = (Message("user", "Hi"), Message("assistant", "Hello.")) if "history" in row else ()
    assert comparison.prompt == (*hello, Message("user", QUESTION))
    assert comparison.responses == tuple((Message("assistant", text),) for text in (GOOD, BAD))


def test_a_system_message_is_kept_wherever_it_stands():
    rule = {"role": "system", "content": "Be brief."}
    spoken = {"preferred_output": [ASK, says(GOOD)], "non_preferred_output": [ASK, says(BAD)]}
    for row in (
        {"prompt": [rule, ASK], **WHOLE},
        {"input": {"messages": [rule, ASK]}, **spoken},
        {"history": [HI, HELLO], "messages": [rule, ASK], **TEXTS},
        {"system": "Be brief.", **TWO},
    ):
        (comparison,) = parse([row])
        assert comparison.prompt[0] == Message("system", "Be brief.")
        assert comparison.prompt[-1] == Message("user", QUESTION)


@pytest.mark.parametrize(
    ("row", "problem", "hint"),
    [
        (
            {"prompt": "Who is Ada?", "chosen": "Who is Ada? A", "rejected": "Who is Ada? B"},
            "begin",
            {"ignore": ["prompt"], "text": "raw"},
        ),
        (
            {
                "question": "火星有几颗卫星",
                "chosen": "火星有几颗卫星两",
                "rejected": "火星有几颗卫星一",
            },
            "begin",
            {"text": "chat"},
        ),
        (
            {"prompt": "Who is Ada?", "responses": ["Who is Ada? A", "Who is Ada? B"]},
            "begin",
            {"ignore": ["prompt"], "text": "raw"},
        ),
        (
            {"question": "<|im_start|>user\nHi<|im_end|>\n", **TEXTS},
            "written by a chat template",
            None,
        ),
        (
            {"system": "Be kind.", "prompt": "<s>[INST] Hi [/INST]", **TEXTS},
            "written by a chat template",
            None,
        ),
        (
            {"prompt": "Hi", "chosen": "<|im_start|>user\nHi", "rejected": "<|im_start|>user\nHi"},
            "written as a conversation",
            {"ignore": ["prompt"], "text": "raw"},
        ),
        (
            {"prompt": [ASK], "chosen": says(GOOD), "rejected": [says(BAD), says("5")]},
            "several messages",
            None,
        ),
        (
            {"prompt": QUESTION, "responses": [BAD, GOOD], "winner": 1},
            "which response is better",
            {"ignore": ["winner"]},
        ),
        (
            {"prompt": [ASK], "chosen": '[{"role": "assistant", "content": "4"}]', "rejected": "5"},
            "one of chosen and rejected is messages",
            None,
        ),
        (
            {"history": [["Hi", "Hello."]], **WHOLE, "prompt": [ASK]},
            "field 'history'",
            {"ignore": ["history"]},
        ),
        (
            {
                "prompt": "Translate.",
                "source": "Das Haus ist klein, aber sehr sehr schön.",
                **TEXTS,
            },
            "'source'",
            {"ignore": ["source"]},
        ),
        (
            {"question": QUESTION, "sources": ["Mars has two moons, Phobos and Deimos."], **TEXTS},
            "'sources'",
            None,
        ),
        ({"question": QUESTION, "topic": "火星有两颗卫星", **TEXTS}, "'topic'", None),
        (
            {
                "question": QUESTION,
                "metadata": {"persona": "You are a pirate of few words, matey."},
                **TEXTS,
            },
            "'metadata'",
            None,
        ),
        (
            {"prompt": [ASK | {"source": "Mars has two moons, it says there."}], **TEXTS},
            "prompt[0].source",
            {"ignore": ["source"]},
        ),
        (
            {
                "prompt": [ASK],
                "chosen": [
                    {"role": "assistant", "tool_calls": [CALL], "thinking": "I shall look."}
                ],
                "rejected": BAD,
            },
            "chosen[0].thinking",
            {"ignore": ["thinking"]},
        ),
        (THOUGHTS, "chosen[1].thinking", {"ignore": ["thinking"]}),
    ],
)
def test_what_cannot_be_told_is_refused_with_a_way_out(row, problem, hint):
    with pytest.raises(DataError) as caught:
        parse([row])
    assert problem in str(caught.value)
    if hint is not None:
        assert all(f"ignore={name}" in str(caught.value) for name in hint.get("ignore", ()))
        assert parse([row], **hint)


def test_names_of_columns_that_options_part(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": [ASK], "Q&A notes, all": SENTENCE, **TEXTS}))
    with pytest.raises(DataError) as caught:
        sources.read(path)
    hint = str(caught.value).rpartition("?")[2]
    assert hint == "ignore=Q%26A notes%2C all"
    assert len(sources.read(f"{path}?{hint}")) == 1
    assert sources.Source.parse("a?ignore=b, c").ignore == ("b", "c")
    long = f"{path}?ignore=" + ",".join(f"column_{i}" * 5 for i in range(20))
    with pytest.raises(DataError, match="Q&A"):
        sources.read(long)


def test_raw_text_comes_back_as_raw_text():
    for row in ({"prompt": QUESTION, **TEXTS}, TWO, {"chosen": "bluer", "rejected": "red"}):
        read = parse([row], text="raw")
        (again,) = parse([json.loads(json.dumps(to_row(c))) for c in read])
        assert (again.prompt, again.responses, again.undecided) == (
            read[0].prompt,
            read[0].responses,
            False,
        )
    (undecided,) = parse([{"prompt": QUESTION, **TEXTS}])
    assert parse([to_row(undecided)])[0].undecided


def test_a_pair_that_parts_at_a_turn_like_the_first_comes_back():
    sides = {"chosen": [HI, HELLO, HI, says("Hi again.")], "rejected": [HI, HELLO, HI, says("So?")]}
    again = {"role": "user", "content": "Bye"}
    parted = {"chosen": sides["chosen"], "rejected": [HI, HELLO, again, says("Bye.")]}
    for row in (sides, parted):
        read = parse([row])
        assert spoken(parse([to_row(read[0])])) == spoken(read)
