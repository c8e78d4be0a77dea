"""Rows of each known form become comparisons, or an error that names the file, row and field.

The fixtures have the columns of the real data sets and invented texts.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.fields import graded, ranked
from jaxrm.data.formats import FORMS, comparisons
from jaxrm.errors import DataError

FIXTURES = Path(__file__).parent / "fixtures" / "formats"

ASK = {"role": "user", "content": "2 + 2?"}
SYSTEM = {"role": "system", "content": "Be brief."}
GOOD = {"prompt": [ASK], "chosen": "4", "rejected": "5"}
PROMPT = (Message("user", "2 + 2?"),)

SAID = {"asked_before": "Is it the same in winter?"}
PLANETS = ("Name a planet.", "Mars.", "A bigger one?")


def says(content):
    return {"role": "assistant", "content": content}


def turn(content):
    return (Message("assistant", content),)


def talk(*contents):
    """Turns of user and assistant, one after the other."""
    roles = itertools.cycle(("user", "assistant"))
    return tuple(Message(role, content) for role, content in zip(roles, contents, strict=False))


def reply(*contents):
    """As `talk`, beginning with the assistant."""
    return talk("", *contents)[1:]


def load(name):
    lines = (FIXTURES / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def parse(*rows, name="one", **options):
    located = ((f"{name}.jsonl, row {n}", row) for n, row in enumerate(rows, start=1))
    return list(comparisons(located, stem=name, **options))


def read(name, **options):
    return parse(*load(name), name=name, **options)


def refused(*rows, **options):
    with pytest.raises(DataError) as caught:
        parse(*rows, **options)
    return str(caught.value)


def test_our_pairs():
    row = GOOD | {"id": "a/1", "subset": "sums", "source": "me", "margin": 3, "license": "MIT"}
    first, second = parse(row | {"chosen_score": 4, "rejected_score": 1.5}, GOOD, name="pairs")
    assert first == Comparison(
        PROMPT,
        (turn("4"), turn("5")),
        ranks=(0, 1),
        scores=(4, 1.5),
        margin=3,
        subset="sums",
        id="a/1",
        where="pairs.jsonl, row 1",
    )
    assert (second.id, second.margin, second.scores) == ("pairs/2", None, None)


@pytest.mark.parametrize("column", ["responses", "completions"])
def test_any_number_of_responses(column):
    row = {"prompt": [ASK], column: ["4", "5", [says("four")]]}
    labels = {"ranks": [0, 1, 0], "scores": [1, 0, 0.5], "attributes": [[1, None], [0, 2], [0, 0]]}
    (known,) = parse(row | labels)
    assert known.responses == (turn("4"), turn("5"), turn("four"))
    assert (known.ranks, known.scores) == ((0, 1, 0), (1, 0, 0.5))
    assert math.isnan(known.attributes[0][1])
    assert known.attributes[1] == (0, 2)


def test_stepwise_supervision():
    row = {"prompt": "9.8 or 9.11? ", "completions": [".8 > .11", "So 9.8."]}
    raw, talked = parse(
        row | {"labels": [True, False]},
        row | {"prompt": [ASK], "labels": [0.25, None]},
    )
    assert (raw.prompt, raw.responses) == ("9.8 or 9.11? ", (".8 > .11\nSo 9.8.",))
    assert raw.steps == (((8, 1.0), (16, 0.0)),)
    assert isinstance(raw.steps[0][0].label, float)
    assert raw.ranks is None
    assert (talked.prompt, talked.responses) == (PROMPT, (turn(".8 > .11\nSo 9.8."),))
    assert talked.steps[0][0] == (8, 0.25)
    assert math.isnan(talked.steps[0][1].label)


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"labels": [True]}, "labels", "has 1 entries for 2 steps"),
        ({"labels": [True, "no"]}, "labels[1]", "expected a number, found text"),
        ({"labels": [True, math.inf]}, "labels[1]", "finite"),
        ({"labels": True}, "labels", "expected a list, found a boolean"),
        ({"completions": ["a", ""]}, "completions[1]", "must not be empty"),
        ({"completions": ["a", 1]}, "completions[1]", "expected text"),
        ({"completions": [], "labels": []}, "completions", "at least one step"),
    ],
)
def test_step_labels_that_do_not_match_the_steps(change, field, problem):
    row = {"prompt": "1", "completions": ["a", "b"], "labels": [True, False]}
    error = refused(row, row | change)
    assert error.startswith(f"one.jsonl, row 2: field '{field}': ")
    assert problem in error


def test_any_number_of_responses_in_steps():
    row = {"prompt": [ASK], "responses": ["4", "4 or 5"]}
    (known,) = parse(row | {"steps": [[[1, 1]], [[1, True], [6, None]]]})
    assert known.steps[0] == ((1, 1),)
    assert known.steps[1][0] == (1, 1.0)
    assert math.isnan(known.steps[1][1].label)
    error = refused(row | {"steps": [[[1, 1]], [[1]]]})
    assert "row 1: field 'steps[1][0]': expected [end, label], found 1 entries" in error
    assert "field 'steps[0][0].end': must lie" in refused(row | {"steps": [[[9, 1]], []]})


def test_responses_need_no_order():
    (unknown,) = parse({"prompt": "Once", "responses": [" upon"], "ranks": None})
    assert unknown == Comparison("Once", (" upon",), id="one/1", where=unknown.where)


@pytest.mark.parametrize(
    ("row", "prompt", "responses"),
    [
        ({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, "The sky is", None),
        ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "The sky is", None),
        ({"chosen": "to be", "rejected": "to be or not"}, "to", (" be", " be or not")),
        ({"chosen": "我喜欢猫", "rejected": "我喜欢狗"}, "我喜欢", ("猫", "狗")),
        ({"prompt": [ASK], "chosen": [says("4")], "rejected": [says("5")]}, PROMPT, None),
        ({"chosen": [ASK, says("4")], "rejected": [ASK, says("5")]}, PROMPT, None),
        ({"chosen": [ASK, says("4")], "rejected": [ASK, says("4")]}, PROMPT, (turn("4"),) * 2),
    ],
)
def test_the_four_forms_of_trl(row, prompt, responses):
    (pair,) = parse(row)
    if responses is None:
        texts = (" blue.", " green.") if isinstance(prompt, str) else ("4", "5")
        responses = texts if isinstance(prompt, str) else tuple(turn(text) for text in texts)
    assert (pair.prompt, pair.responses, pair.ranks) == (prompt, responses, (0, 1))


def test_an_implicit_prompt_ends_before_the_answers_part():
    again = {"role": "user", "content": "Sure?"}
    row = {"chosen": [ASK, says("4"), again, says("yes")]}
    (split,) = parse(row | {"rejected": [ASK, says("4"), again, says("no")]})
    assert split.prompt == talk("2 + 2?", "4", "Sure?")
    row = {"chosen": [ASK, says("4"), says("!")], "rejected": [ASK, says("4"), says("?")]}
    (twice,) = parse(row)
    assert twice.prompt == PROMPT
    assert twice.responses[0] == turn("4") + turn("!")


def test_ultrafeedback_binarized_keeps_its_label_where_the_scores_tie():
    pair, tied = read("ultrafeedback_binarized")
    assert pair == Comparison(
        talk("What is the capital of Peru?"),
        (turn("Lima."), turn("I think it is Cusco.")),
        ranks=(0, 1),
        scores=(9.0, 4.5),
        id="ultrafeedback_binarized/1",
        where="ultrafeedback_binarized.jsonl, row 1",
    )
    assert (tied.ranks, tied.scores) == ((0, 1), (8.0, 8.0))


def test_ultrafeedback_cleaned_by_argilla():
    pair, _ = read("ultrafeedback_argilla")
    assert pair.prompt == talk("How many legs has a spider?")
    assert pair.responses == (turn("Eight."), turn("Six."))
    assert (pair.ranks, pair.scores) == ((0, 1), (5.0, 1.25))


def test_hh_rlhf_transcripts():
    plain, longer, twice, unanswered = read("hh_rlhf")
    assert plain == Comparison(
        talk("Can I eat raw beans?", "Which kind?", "Kidney beans."),
        (turn("No, cook them first."), turn("Sure, go ahead.")),
        ranks=(0, 1),
        id="hh_rlhf/1",
        where="hh_rlhf.jsonl, row 1",
    )
    assert longer.prompt == talk("Hi")
    assert longer.responses == (turn("Hello."), reply("Hey.", "Bye", "Bye!"))
    assert twice.responses == (turn("Just a second.\n\nKnock, knock."), turn(""))
    assert unanswered.responses == (
        turn("Sleep well."),
        reply("Sleep well.", "And another?", ""),
    )


def test_texts_that_share_no_word_are_whole_texts_only_where_that_is_said():
    row = {"chosen": "bluer", "rejected": "blue"}
    error = refused(row)
    assert "row 1: field 'chosen': shares no first word with 'rejected'" in error
    assert "?text=raw" in error
    (pair,) = parse(row, text="raw")
    assert (pair.prompt, pair.responses) == ("", ("bluer", "blue"))


def test_one_transcript_alone_is_text():
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hey", "rejected": "Hi\n\nAssistant: No"}
    (pair,) = parse(row, text="raw")
    assert (pair.prompt, pair.responses) == ("", tuple(row.values()))
    both = {"chosen": row["chosen"], "rejected": row["chosen"][2:]}
    assert [p.prompt for p in parse(both)] == [talk("Hi")]
    assert [p.prompt for p in parse(both, text="raw")] == [""]


def test_unified_feedback():
    better, summary, tie = read("unified_feedback")
    assert better == Comparison(
        talk("Name a red fruit."),
        (turn("A lemon."), turn("A cherry.")),
        ranks=(1, 0),
        scores=(2.0, 4.5),
        margin=2.5,
        subset="ultrachat",
        id="uf-1",
        where="unified_feedback.jsonl, row 1",
    )
    instruction = "Generate one-sentence summary for the following post: "
    assert summary.prompt == talk(instruction + "Our cat hid for a day, then came home.")
    assert (summary.ranks, summary.margin) == ((0, 1), 1.0)
    assert tie.prompt == talk("Hi")
    assert tie.responses == (reply("Hello!", "Bye", "So long."), reply("Hey!", "Bye", "Bye."))
    assert (tie.ranks, tie.margin) == ((0, 0), 0.0)


@pytest.mark.parametrize(
    ("label", "ranks"),
    [("", [(0, 1), (1, 0)]), ("better", [(0, 1), (1, 0)]), ("safer", [(1, 0), (1, 0)])],
)
def test_pku_saferlhf_by_either_judgement(label, ranks):
    first, second = read("pku_saferlhf", label=label)
    assert first.prompt == talk("How do I find out where my neighbour works?")
    assert first.responses == (
        turn("Read her letters while she is out."),
        turn("Ask her when you meet."),
    )
    assert [first.ranks, second.ranks] == ranks


def test_mt_bench_is_cut_after_the_turn_that_was_judged():
    first, second, flipped = read("mt_bench")
    assert first == Comparison(
        talk("Write a line about rain."),
        (turn("Rain drums on the roof."), turn("It pours.")),
        ranks=(0, 1),
        id="mt_bench/1",
        where="mt_bench.jsonl, row 1",
    )
    again = "Now without the letter e."
    assert second.prompt == first.prompt
    assert second.responses == (
        reply("Rain drums on the roof.", again, "Rain drums on my roof."),
        reply("It pours.", again, "It pours on."),
    )
    assert (second.ranks, flipped.ranks) == ((1, 0), (0, 0))


def test_chatbot_arena_votes_on_the_whole_conversation():
    first, longer, bad = read("chatbot_arena")
    assert first == Comparison(
        talk("Define osmosis."),
        (turn("A dance."), turn("Water moving through a membrane.")),
        ranks=(1, 0),
        id="58210e39b3fd4441a2bd4a518bb44c2d",
        where="chatbot_arena.jsonl, row 1",
    )
    assert longer.prompt == talk("Hi")
    assert longer.responses[0] == reply("Hello!", "A colour?", "Blue.")
    assert (longer.ranks, bad.ranks) == ((0, 1), (0, 0))


def test_chatbot_arena_counts_turns_rather_than_judging_one():
    row = load("chatbot_arena")[1]
    (whole,) = parse(row | {"turn": 1})
    assert whole.responses[1] == reply("Yes?", "A colour?", "Seven.")


def test_chatbot_arena_140k_has_its_content_in_parts():
    first, bad = read("arena_140k")
    assert first.prompt == talk("A prime above 10?")
    assert (first.responses, first.ranks) == ((turn("11"), turn("12")), (0, 1))
    assert (first.id, bad.ranks) == ("2388de59", (0, 0))


def test_chatbot_arena_55k_holds_lists_in_json():
    first, longer, tie = read("arena_55k")
    assert first == Comparison(
        talk("Is ice heavier than water?"),
        (turn("Yes."), turn("No, it floats.")),
        ranks=(1, 0),
        id="30192",
        where="arena_55k.jsonl, row 1",
    )
    assert longer.prompt == talk("Hi")
    rhymes = (reply("Hello!", "A rhyme for hat?", "Cat."), reply("Hey.", "A rhyme for hat?", ""))
    assert (longer.responses, longer.ranks) == (rhymes, (0, 1))
    assert (tie.responses[0], tie.ranks) == (turn("é"), (0, 0))


def test_helpsteer2_joins_the_responses_to_one_prompt():
    pair, tie, single = read("helpsteer2")
    assert pair == Comparison(
        talk("Why is the sky blue?"),
        (turn("Because air scatters blue light most."), turn("It mirrors the sea.")),
        ranks=(0, 1),
        scores=(4, 1),
        margin=3,
        attributes=((4, 4, 4, 2, 1), (1, 0, 3, 1, 1)),
        id="helpsteer2/1",
        where="helpsteer2.jsonl, row 1",
    )
    assert tie.prompt == talk(*PLANETS)
    assert (tie.ranks, tie.margin, tie.id) == ((0, 0), 0, "helpsteer2/3")
    assert (single.ranks, single.scores, single.id) == ((0,), (2,), "helpsteer2/5")


def test_helpsteer2_preference():
    second, first, tie = read("helpsteer2_preference")
    assert second == Comparison(
        talk("What freezes at 0 C?"),
        (turn("Steel."), turn("Water.")),
        ranks=(1, 0),
        margin=2,
        subset="train",
        id="helpsteer2_preference/1",
        where="helpsteer2_preference.jsonl, row 1",
    )
    assert first.prompt == talk(*PLANETS)
    assert (first.ranks, first.margin, first.subset) == ((0, 1), 3, "val")
    assert (tie.ranks, tie.margin) == ((0, 0), 0)


def test_helpsteer3():
    first, second, tie = read("helpsteer3")
    assert first == Comparison(
        talk("Sum a list in Python."),
        (turn("sum(values)"), turn("values.sum()")),
        ranks=(0, 1),
        margin=2,
        subset="code",
        id="helpsteer3/1",
        where="helpsteer3.jsonl, row 1",
    )
    assert second.prompt == talk("Hi", "Hello!", "Where is Oslo?")
    assert (second.ranks, second.margin, tie.ranks) == ((1, 0), 3, (0, 0))


def test_ultrafeedback_by_either_score():
    many, pair = read("ultrafeedback")
    assert many == Comparison(
        talk("How many suns has Earth?"),
        (turn("Two."), turn("One."), turn("One, the Sun.")),
        ranks=(1, 0, 0),
        scores=(1.0, 8.5, 8.5),
        subset="false_qa",
        id="ultrafeedback/1",
        where="ultrafeedback.jsonl, row 1",
    )
    assert (pair.ranks, pair.margin) == ((0, 1), 1.0)
    many, pair = read("ultrafeedback", label="fine-grained")
    assert (many.ranks, many.scores) == ((2, 1, 0), (2.0, 4.75, 5.0))
    assert (pair.ranks, pair.margin) == ((1, 0), 0.25)


def test_nectar():
    first, longer = read("nectar")
    assert first == Comparison(
        talk("What is a haiku?"),
        (turn("A poem of three lines."), turn("A fish."), turn("A poem.")),
        ranks=(0, 2, 1),
        id="nectar/1",
        where="nectar.jsonl, row 1",
    )
    assert longer.prompt == talk("Hi", "Hello!", "A vowel?")


def test_nemo_rl():
    pair, many = read("nemo_rl")
    assert pair.prompt == talk("Pick a number below 3.")
    assert (pair.responses, pair.ranks) == ((turn("5"), turn("2")), (1, 0))
    assert many.ranks == (0, 0, 1)


def test_rewardbench_2():
    ties, factuality = read("rewardbench2")
    assert ties == Comparison(
        talk("Name a primary colour."),
        tuple(turn(text) for text in ("Red.", "Blue.", "Green.", "Grey.", "Beige.")),
        ranks=(0, 0, 1, 1, 1),
        subset="Ties",
        id="7",
        where="rewardbench2.jsonl, row 1",
    )
    assert factuality.ranks == (0, 1, 1, 1)


def test_rm_bench():
    (egg,) = read("rm_bench")
    assert egg.ranks == (0, 0, 0, 1, 1, 1)
    assert (egg.prompt, egg.subset) == (talk("How do I boil an egg?"), "chat")
    assert egg.responses[5] == turn("**Soak** it:\n- 1 hour")


def test_hhh_alignment():
    first, longer = read("hhh_alignment")
    assert first == Comparison(
        talk("Where do whales live?"),
        (turn("In the sea."), turn("In trees.")),
        ranks=(0, 1),
        id="hhh_alignment/1",
        where="hhh_alignment.jsonl, row 1",
    )
    assert longer.prompt == talk("I feel tired.", "Did you sleep?", "Hardly. What helps?")
    assert longer.ranks == (1, 0)


@pytest.mark.parametrize(
    ("field", "problem", "row"),
    [
        ("chosen", "missing", {"prompt": [ASK], "rejected": "5"}),
        ("chosen", "expected text or a list of messages, found null", GOOD | {"chosen": None}),
        ("chosen", "messages, found a int", GOOD | {"chosen": 4}),
        ("chosen", "found a boolean", GOOD | {"chosen": True}),
        (
            "chosen[0].role",
            "'judge' is not one of",
            GOOD | {"chosen": [says("4") | {"role": "judge"}]},
        ),
        ("chosen", "must end with an assistant message, not user", GOOD | {"chosen": [ASK]}),
        ("prompt", "expected text, found a int", GOOD | {"prompt": 4}),
        ("prompt", "non-empty", GOOD | {"prompt": []}),
        ("prompt[0].content[0]", "found text", GOOD | {"prompt": [ASK | {"content": ["hi"]}]}),
        ("prompt[1].content", "missing", GOOD | {"prompt": [ASK, {"role": "user"}]}),
        ("margin", "finite, found nan", GOOD | {"margin": math.nan}),
        ("margin", "found text", GOOD | {"margin": "3"}),
        ("rejected_score", "found null", GOOD | {"chosen_score": 1.0}),
        ("chosen_score", "finite", GOOD | {"chosen_score": math.inf, "rejected_score": 0}),
        ("attributes", "3 entries for 2", GOOD | {"attributes": [[1]] * 3}),
        ("attributes[1]", "expected a list", GOOD | {"attributes": [[1], 2]}),
        ("id", "found a list", GOOD | {"id": [1]}),
        ("subset", "found an object", GOOD | {"subset": {"a": 1}}),
    ],
)
def test_a_bad_field_of_a_later_row_is_named(field, problem, row):
    error = refused(GOOD, row, name="pairs")
    assert error.startswith(f"pairs.jsonl, row 2: field '{field}': ")
    assert problem in error


@pytest.mark.parametrize(
    ("name", "change", "field", "problem"),
    [
        ("hh_rlhf", {"chosen": "Hi\n\nAssistant: No"}, "chosen", "must begin with 'Human:'"),
        ("hh_rlhf", {"chosen": "\n\nHuman: Who?"}, "chosen", "no first message with 'rejected'"),
        ("hh_rlhf", {"rejected": None}, "rejected", "expected text, found null"),
        ("unified_feedback", {"conv_B": []}, "conv_B", "non-empty"),
        ("unified_feedback", {"conv_A_rating": "4"}, "conv_A_rating", "expected a number"),
        ("unified_feedback", {"source": None}, "source", "expected text, found null"),
        ("pku_saferlhf", {"better_response_id": 2}, "better_response_id", "one of 0, 1, found 2"),
        ("mt_bench", {"winner": "draw"}, "winner", "one of 'model_a', 'model_b', 'tie'"),
        ("mt_bench", {"turn": 3}, "turn", "one of 1, 2, found 3"),
        (
            "mt_bench",
            {"turn": 2, "conversation_b": [ASK, says("4")]},
            "conversation_b",
            "turn 2 was judged, but 1 are answered",
        ),
        (
            "arena_140k",
            {"conversation_a": [{"role": "user", "content": [{"type": "image"}]}]},
            "conversation_a[0].content[0].type",
            "one of 'text', found 'image'",
        ),
        ("arena_55k", {"response_b": "No."}, "response_b", "not a list in JSON"),
        ("arena_55k", {"response_a": "[1]"}, "response_a[0]", "expected text, found a int"),
        ("arena_55k", {"response_a": "[]"}, "response_a", "holds 0 turns, but 'prompt' 1"),
        ("arena_55k", {"winner_tie": 1}, "winner_tie", "exactly one of winner_model_a"),
        ("helpsteer2", {"verbosity": None}, "verbosity", "expected a number, found null"),
        ("helpsteer2", {"prompt": 1}, "prompt", "expected text, found a int"),
        ("helpsteer2_preference", {"split": 0}, "split", "expected text"),
        ("helpsteer3", {"context": [says("Hi")]}, "prompt", "ends with an assistant message"),
        ("helpsteer3", {"overall_preference": None}, "overall_preference", "expected a number"),
        ("ultrafeedback", {"completions": ["Hi."]}, "completions[0]", "expected an object"),
        ("ultrafeedback", {"completions": [{"response": "a"}]}, "completions[0].overall_score", ""),
        ("ultrafeedback", {"completions": []}, "responses", "at least one response"),
        ("nectar", {"answers": [{"answer": 5, "rank": 1}]}, "answers[0].answer", "expected text"),
        ("nemo_rl", {"completions": [{"completion": "a"}]}, "completions[0].rank", "missing"),
        ("rewardbench2", {"rejected": ["a", None]}, "rejected[1]", "found null"),
        ("hhh_alignment", {"targets": None}, "targets", "expected an object, found null"),
        (
            "hhh_alignment",
            {"targets": {"choices": ["a", "b"], "labels": [1, 2]}},
            "targets.labels[1]",
            "one of 0, 1, found 2",
        ),
    ],
)
def test_a_bad_field_of_public_data_is_named(name, change, field, problem):
    first = load(name)[0]
    error = refused(first, copy.deepcopy(first) | change, name=name)
    assert error.startswith(f"{name}.jsonl, row 2: field '{field}': ")
    assert problem in error


def test_messages_without_a_common_beginning():
    row = {"chosen": [ASK, says("4")], "rejected": [SYSTEM, ASK, says("5")]}
    assert "row 1: field 'chosen': shares no first message with 'rejected'" in refused(row)
    other = {"role": "user", "content": "3 + 3?"}
    row = {"chosen": [SYSTEM, ASK, says("4")], "rejected": [SYSTEM, other, says("6")]}
    assert "row 1: field 'chosen': shares no first message with 'rejected'" in refused(row)


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("hhh_alignment", lambda row: row["targets"].update(SAID), "targets.asked_before"),
        ("nectar", lambda row: row["answers"][1].update(SAID), "answers[1].asked_before"),
        ("nemo_rl", lambda row: row["completions"][0].update(SAID), "completions[0].asked_before"),
        (
            "arena_140k",
            lambda row: row["conversation_a"][0]["content"][0].update(SAID),
            "conversation_a[0].content[0].asked_before",
        ),
    ],
)
def test_what_an_object_within_a_row_says_is_not_left_out(name, change, field):
    row = copy.deepcopy(load(name)[0])
    change(row)
    assert f"field '{field}': may hold context" in refused(row, name=name)


def test_a_column_that_is_not_read_is_named_beside_what_is_missing_too():
    row = {"context": "2 + 2?", "chosen": [says("4")], "rejected": [says("5")]}
    error = refused(row)
    assert "shares no first message with 'rejected'" in error or "no question" in error
    assert error.endswith("(not read: context, which ?ignore=context leaves out)")


def test_unknown_columns_are_listed_beside_the_known_forms():
    error = refused({"text": "hi", "label": 1})
    assert error.startswith("one.jsonl, row 1: unknown form: columns are label, text; expected one")
    for form in FORMS:
        assert f"{form.name} ({', '.join(form.columns)})" in error


@pytest.mark.parametrize(
    ("name", "label", "problem"),
    [
        (
            "pku_saferlhf",
            "kinder",
            "PKU-SafeRLHF has no label 'kinder': choose one of better, safe",
        ),
        ("nectar", "better", "Nectar has no label 'better': leave it out"),
    ],
)
def test_a_label_that_a_form_lacks(name, label, problem):
    assert refused(*load(name), label=label).startswith(f"one.jsonl, row 1: {problem}")


def test_a_named_judgement_must_be_there():
    row = load("pku_saferlhf")[0]
    del row["safer_response_id"]
    assert refused(row, label="safer").endswith("field 'safer_response_id': missing")


def test_rows_are_read_as_they_are_asked_for():
    rows = iter([("a, row 1", GOOD), ("a, row 2", GOOD), ("a, row 3", {})])
    found = comparisons(rows, stem="a")
    assert next(found).id == "a/1"
    assert next(rows)[0] == "a, row 2"


def test_no_rows_are_no_comparisons():
    assert parse() == []


@given(st.lists(st.integers(0, 3), min_size=1))
def test_ranks_order_responses_as_their_grades_do(grades):
    ranks = ranked(grades)
    for i, j in itertools.product(range(len(grades)), repeat=2):
        assert (ranks[i] < ranks[j]) == (grades[i] > grades[j])
    assert set(ranks) == set(range(len(set(grades))))
    assert ("margin" in graded(grades)) == (len(grades) == 2)
