"""What people have is read as they mean it, or refused by name: layout by layout, and whatever is
added to a file, taken from it, renamed or moved in it."""

from __future__ import annotations

import copy
import itertools
import json
import re

import pytest

from jaxrm.data import chat, columns, common_formats, sources
from jaxrm.data.formats import comparisons, to_row
from jaxrm.errors import DataError
from tests.data.byte_level import byte_level
from tests.data.layouts import LAYOUTS, conversations, every_form
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
        if columns.judge(str(path[0]), text) != "harmless" or path[0] in common_formats.QUESTION:
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
