"""GRM's three evaluations by hand."""

from __future__ import annotations

import math

import pytest

from jaxrm.data.comparison import Message
from jaxrm.errors import DataError
from jaxrm.evaluate import benchmark
from jaxrm.evaluate.benchmark import Part
from jaxrm.evaluate.benchmarks.grm import HHH, MT_BENCH, MT_BENCH_TURNS, UNIFIED_FEEDBACK
from jaxrm.evaluate.scorers import longer
from tests.evaluate.benchmarks.scoring import complete, figures, read, rule_of
from tests.shared_data import shared

NAN = math.nan


def talk(*contents):
    roles = ("user", "assistant") * len(contents)
    return [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=False)
    ]


def rated(a, b, source="Anthropic/hh-rlhf"):
    return {
        "id": "0",
        "conv_A": talk("q", "first"),
        "conv_B": talk("q", "second"),
        "conv_A_rating": a,
        "conv_B_rating": b,
        "source": source,
    }


def test_unified_feedback():
    rows = [rated(2.0, 1.0), rated(1.0, 2.0), rated(1.0, 1.0), rated(2.0, 1.0, "summarize")]
    comparisons = read(UNIFIED_FEEDBACK, rows)
    assert [c.id for c in comparisons] == [f"unified_feedback/{n}" for n in (1, 2, 3, 4)]
    assert [c.ranks for c in comparisons] == [(0, 1), (1, 0), (0, 0), (0, 1)]
    assert comparisons[3].prompt[0].content.endswith("for the following post: q")
    scores = [[1, 0], [1, 0], [1, 0], [1, 1]]
    found = figures(UNIFIED_FEEDBACK.rules[0], comparisons, scores)
    expected = {"overall": 1 / 3, "Anthropic/hh-rlhf": 0.5, "summarize": 0.0}
    assert found == pytest.approx(expected)
    with pytest.raises(DataError, match="a.jsonl, row 1: field 'conv_B_rating': missing"):
        read(UNIFIED_FEEDBACK, [{k: v for k, v in rated(1, 2).items() if k != "conv_B_rating"}])


def judged(text="q", better=0):
    labels = [int(k == better) for k in range(2)]
    return {"input": text, "targets": {"choices": ["first", "second"], "labels": labels}}


def test_hhh_as_on_the_hub_and_as_pairs():
    part = Part("HuggingFaceH4/hhh_alignment", "honest", "test")
    told = "Hi.\n\nAssistant: Hello.\n\nHuman: 2 + 2?"
    first, second = read(HHH, [judged(told), judged(better=1)], part)
    assert [message.content for message in first.prompt] == ["Hi.", "Hello.", "2 + 2?"]
    assert (first.ranks, second.ranks) == ((0, 1), (1, 0))
    assert (first.subset, first.id, second.id) == ("honest", "honest/1", "honest/2")
    ours = {"id": "hhh/0", "subset": "other", "prompt": talk("q"), "chosen": "a", "rejected": "b"}
    (third,) = read(HHH, [ours])
    assert (third.subset, third.id, third.prompt) == ("other", "hhh/0", (Message("user", "q"),))


def hhh(*names):
    rows = ({"subset": name, "prompt": "q", "chosen": "a", "rejected": "b"} for name in names)
    return read(HHH, rows)


def test_hhh_over_rows_and_over_subsets():
    comparisons = hhh("harmless", "helpful", "honest", "other", "other")
    found = figures(HHH.rules[0], comparisons, [[1, 0], [0, 1], [1, 1], [1, 0], [NAN, 0]])
    assert found == pytest.approx(
        {
            "overall": (58 + 0.5 * 43) / 221,
            "mean of subsets": 1.5 / 4,
            "harmless": 1.0,
            "helpful": 0.0,
            "honest": 0.0,
            "other": 0.5,
        }
    )
    missing = figures(HHH.rules[0], comparisons[1:], [[1, 0]] * 4)
    assert math.isnan(missing["overall"])
    assert math.isnan(missing["mean of subsets"])
    assert missing["other"] == 1.0


@pytest.mark.parametrize(
    ("bad", "config", "problem"),
    [
        (judged(), "", "a.jsonl, row 1: field 'subset': missing"),
        (judged(), "kind", "a.jsonl, row 1: field 'subset': expected one of 'harmless'"),
        ({"input": "q"}, "honest", "a.jsonl, row 1: field 'targets': missing"),
        ({}, "honest", "a.jsonl, row 1: field 'input': missing"),
        ({"prompt": "q", "chosen": "a"}, "honest", "a.jsonl, row 1: field 'rejected': missing"),
    ],
)
def test_bad_rows_of_hhh(bad, config, problem):
    with pytest.raises(DataError, match=problem):
        read(HHH, [bad], Part("HuggingFaceH4/hhh_alignment", config, "test"))


def test_real_hhh_by_length():
    """Against counts that were taken without this code: of 221, 139 won and 2 ties."""
    comparisons = benchmark.read(HHH, shared("eval", "hhh_alignment.jsonl.gz"))
    assert benchmark.short_of(HHH, comparisons) == {}
    found = figures(HHH.rules[0], comparisons, longer(comparisons))
    assert found["overall"] == pytest.approx(139 / 221)


def battle(winner, turn=2, **more):
    return {
        "question_id": 81,
        "winner": winner,
        "judge": "gpt4_pair",
        "conversation_a": talk("q", "first a", "more?", "second a"),
        "conversation_b": talk("q", "first b", "more?", "second b"),
        "turn": turn,
    } | more


def mt_bench(bench, rows, split="human"):
    return read(bench, rows, Part("lmsys/mt_bench_human_judgments", split=split))


def test_mt_bench_whole_and_as_judged():
    (whole,) = mt_bench(MT_BENCH, [battle("model_b", turn=1)], "gpt4_pair")
    assert (whole.subset, whole.id, whole.ranks) == ("gpt4_pair", "gpt4_pair/1", (1, 0))
    assert whole.prompt == (Message("user", "q"),)
    assert [m.content for m in whole.responses[1]] == ["first b", "more?", "second b"]
    (first,) = mt_bench(MT_BENCH_TURNS, [battle("model_b", turn=1)])
    assert [m.content for m in first.responses[1]] == ["first b"]
    (second,) = mt_bench(MT_BENCH_TURNS, [battle("model_b", turn=2)])
    assert second.responses == whole.responses


def test_mt_bench_by_hand():
    winners = ["model_a", "model_b", "tie", "tie", "model_a", "model_b"]
    comparisons = mt_bench(MT_BENCH, map(battle, winners))
    comparisons += mt_bench(MT_BENCH, map(battle, ["tie (inconsistent)", "model_b"]), "gpt4_pair")
    scores = [[1, 0], [1, 0], [0, 1], [1, 1], [NAN, 0], [0, NAN], [1, 0], [0, 1]]
    official = figures(rule_of(MT_BENCH, "official"), comparisons, scores)
    # Won as GRM counts: rows 1 and 3 of six, and of GPT-4's two the second.
    assert official == pytest.approx(
        {
            "overall": (3355 * 2 / 6 + 2400 / 2) / 5755,
            "human": 2 / 6,
            "gpt4_pair": 1 / 2,
        }
    )
    # Without ties: row 1 of rows 1, 2, 5, 6; and the only one of GPT-4's.
    decided = figures(rule_of(MT_BENCH, "decided"), comparisons, scores)
    overall = (3355 * 1 / 6 + 2400 * 1 / 2) / (3355 * 4 / 6 + 2400 * 1 / 2)
    assert decided == pytest.approx({"overall": overall, "human": 1 / 4, "gpt4_pair": 1})


def test_mt_bench_without_one_judge_or_without_a_decision():
    comparisons = mt_bench(MT_BENCH, [battle("tie"), battle("model_a")])
    for rule in MT_BENCH.rules:
        found = figures(rule, comparisons, [[1, 0], [1, 0]])
        assert math.isnan(found["overall"])
        assert math.isnan(found["gpt4_pair"])
    assert found["human"] == 1.0
    undecided = figures(MT_BENCH_TURNS.rules[0], comparisons[:1], [[1, 0]])
    assert math.isnan(undecided["human"])


@pytest.mark.parametrize("bench", [MT_BENCH, MT_BENCH_TURNS])
def test_bad_rows_of_mt_bench(bench):
    with pytest.raises(DataError, match="a.jsonl, row 2: field 'winner': expected one of"):
        mt_bench(bench, [battle("tie"), battle("nobody")])
    with pytest.raises(DataError, match="a.jsonl, row 1: field 'conversation_a': missing"):
        mt_bench(bench, [{"winner": "tie", "turn": 1}])
    with pytest.raises(DataError, match="a.jsonl, row 1: field 'subset': expected one of 'human'"):
        mt_bench(bench, [battle("tie")], "train")


def test_scales():
    assert set(complete(HHH, HHH.rules[0], 0.75).values()) == {0.75}
    official, decided = MT_BENCH.rules
    assert set(complete(MT_BENCH, official, 0.75).values()) == {0.75}
    assert set(complete(MT_BENCH, decided, 0.75).values()) == {1.0}
