"""A comparison holds what its fields promise, or says which one does not."""

from __future__ import annotations

import math

import pytest

from jaxrm.data.comparison import Comparison, Message, Step, join_steps
from jaxrm.errors import DataError

ASK = (Message("user", "2 + 2?"),)
YES = (Message("assistant", "4"),)
NO = (Message("assistant", "5"),)
WHERE = "pairs.jsonl, row 3"


def test_pair_takes_text_as_the_assistants_turn():
    pair = Comparison.pair(ASK, "4", NO, margin=2)
    assert pair == Comparison(ASK, (YES, NO), ranks=(0, 1), margin=2)
    raw = Comparison.pair("2 + 2 =", " 4", " 5")
    assert raw.responses == (" 4", " 5")


def test_any_number_of_responses_with_nothing_known_of_them():
    assert Comparison(ASK, (YES,)).ranks is None
    assert len(Comparison("Once", ("a",) * 405).responses) == 405


def test_content_is_not_judged_here():
    Comparison.pair((Message("user", ""),), "", "")


def test_an_unlabelled_attribute_is_nan():
    pair = Comparison.pair(ASK, YES, NO, attributes=((1.0, math.nan), (math.nan, 0)))
    assert math.isnan(pair.attributes[0][1])


def test_steps_lie_in_the_last_message_and_need_no_label():
    again = (*YES, Message("user", "Sure?"), Message("assistant", "4, yes"))
    known = Comparison(ASK, (again, NO), steps=((Step(1, 0.5), Step(6)), ()))
    assert known.steps[0][0] == (1, 0.5)
    assert math.isnan(known.steps[0][1].label)


def test_steps_are_joined_and_their_ends_counted():
    assert join_steps(["a", "bc", "d"], [1, 0, 0.5]) == ("a\nbc\nd", ((1, 1), (4, 0), (6, 0.5)))
    text, (step,) = join_steps(["a"])
    assert (text, step.end, math.isnan(step.label)) == ("a", 1, True)
    assert join_steps(["a", "b"], [0, 0], ", ")[0] == "a, b"
    for steps, labels in ((["a", ""], [1, 0]), (["a"], [1, 0])):
        with pytest.raises(ValueError, match="2 labels"):
            join_steps(steps, labels)


@pytest.mark.parametrize(
    ("field", "problem", "changes"),
    [
        ("prompt", "non-empty tuple of messages, found a tuple of nothing", {"prompt": ()}),
        ("prompt", "non-empty tuple of messages, found a list: jaxrm", {"prompt": [ASK[0]]}),
        ("prompt", "found an object: jaxrm.data.fields", {"prompt": ASK[0].row()}),
        ("prompt[0]", "an object: jaxrm.data.fields.messages makes", {"prompt": (ASK[0].row(),)}),
        ("responses[0]", "a list: jaxrm.data.fields", {"responses": ([YES[0].row()],)}),
        ("prompt[0]", "expected a message, found text", {"prompt": ("hi",)}),
        ("prompt[0].role", "'model' is not one of system", {"prompt": (Message("model", "x"),)}),
        ("prompt[0].name", "found a int", {"prompt": (Message("user", "x", name=1),)}),
        ("prompt[0].tool_calls", "non-empty", {"prompt": (Message("user", "x", tool_calls=[]),)}),
        ("tools[0]", "expected an object", {"tools": ["weather"]}),
        ("tools", "only a conversation", {"prompt": "a", "responses": ("b",), "tools": [{}]}),
        ("prompt[0].content", "found null", {"prompt": (Message("user", None),)}),
        ("prompt[0].content", "surrogate", {"prompt": (Message("user", "\ud800"),)}),
        ("prompt", "ends with an assistant", {"prompt": (*ASK, *YES)}),
        ("responses", "at least one response, found a tuple of nothing", {"responses": ()}),
        ("responses", "at least one response, found a list", {"responses": [YES, NO]}),
        ("responses[1]", "end with an assistant", {"responses": (YES, ASK)}),
        ("responses[0]", "non-empty", {"responses": ((), NO)}),
        ("responses[0]", "expected text, found a tuple", {"prompt": "raw"}),
        ("ranks", "1 entries for 2 responses", {"ranks": (0,)}),
        ("ranks[1]", ">= 0, found -1", {"ranks": (0, -1)}),
        ("ranks[0]", "whole number", {"ranks": (0.0, 1.0)}),
        ("ranks[0]", "whole number", {"ranks": (False, True)}),
        ("scores[1]", "finite, found inf", {"scores": (0.0, math.inf)}),
        ("scores[0]", "expected a number, found text", {"scores": ("1", "2")}),
        ("margin", "finite, found nan", {"margin": math.nan}),
        ("margin", "finite", {"margin": 10**400}),
        ("margin", "found a boolean", {"margin": True}),
        ("x", "finite, found nan", {"columns": {"x": math.nan}}),
        ("x", "found a list", {"columns": {"x": [1.0, 2.0]}}),
        ("x", "3 entries", {"columns": {"x": (1.0, 2.0, 3.0)}}),
        ("x[1]", "found text", {"columns": {"x": (1.0, "2")}}),
        ("x[1][0]", "finite", {"columns": {"x": ((1.0,), (math.inf,))}}),
        ("x[1]", "as many numbers", {"columns": {"x": ((1.0,), (1.0, 2.0))}}),
        ("x[1]", "as many numbers", {"columns": {"x": ((1.0,), 1.0)}}),
        ("x[0]", "at least one", {"columns": {"x": ((), ())}}),
        ("columns[margin]", "has anyway", {"columns": {"margin": 1.0}}),
        ("columns[response_score]", "has anyway", {"columns": {"response_score": (1.0, 2.0)}}),
        ("attributes", "3 entries", {"attributes": ((1.0,),) * 3}),
        ("attributes[1]", "as many numbers", {"attributes": ((1.0,), (1.0, 2.0))}),
        ("attributes[0]", "at least one", {"attributes": ((), ())}),
        ("attributes[0][0]", "finite", {"attributes": ((math.inf,), (0.0,))}),
        ("steps", "1 entries for 2 responses", {"steps": ((),)}),
        ("steps[0][0]", "expected a step, found a tuple", {"steps": (((1, 0.0),), ())}),
        ("steps[0][0].end", "whole number, found 1.0", {"steps": ((Step(1.0, 0.0),), ())}),
        ("steps[1][0].end", "the 1 characters of the text, found 2", {"steps": ((), (Step(2),))}),
        ("steps[1][0].end", "after 0 and within", {"steps": ((), (Step(0),))}),
        ("steps[0][1].end", "after 1 and within", {"steps": ((Step(1), Step(1)), ())}),
        ("steps[0][0].label", "finite, found inf", {"steps": ((Step(1, math.inf),), ())}),
        ("steps[0][0].label", "found a boolean", {"steps": ((Step(1, True),), ())}),
        ("id", "found a int", {"id": 7}),
        ("subset", "found null", {"subset": None}),
    ],
)
def test_a_malformed_field_is_named_with_its_row(field, problem, changes):
    good = {"prompt": ASK, "responses": (YES, NO), "ranks": (0, 1), "where": WHERE}
    with pytest.raises(DataError) as caught:
        Comparison(**good | changes)
    message = str(caught.value)
    assert message.startswith(f"{WHERE}: field '{field}': ")
    assert problem in message
