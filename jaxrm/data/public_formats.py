"""Rows of public preference data whose columns are their own, one parser each.

A parser takes a row and where it stands, and returns the fields of its Comparison. Responses stay
in the row's order. Columns that say nothing of the comparison (names of models, moderation, texts
of annotators) are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from jaxrm.data.comparison import Conversation, Message, fault, kind
from jaxrm.data.fields import (
    HUMAN_ASSISTANT,
    Known,
    Row,
    choice,
    divide,
    get,
    graded,
    items,
    json_list,
    messages,
    number,
    objects,
    ranked,
    refuse_context,
    response,
    text,
    transcript,
    user,
)

EXTRA_ID = re.compile(r"\n<extra_id_1>(User|Assistant)\n")
"""Opens a turn, after the first, in prompts of HelpSteer2."""

SUMMARIZE = "Generate one-sentence summary for the following post: "

TIE = (0, 0)
WINNERS = {
    "model_a": (0, 1),
    "model_b": (1, 0),
    "tie": TIE,
    "tie (bothbad)": TIE,
    "both_bad": TIE,
    "tie (inconsistent)": TIE,  # MT-Bench: the judge changed its mind with the order of the two
}

SIDES = ("conversation_a", "conversation_b")

HELPSTEER_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def unified_feedback(row: Row, where: str) -> Known:
    """llm-blender/Unified-Feedback: two conversations and their ratings; equal ratings tie.

    Posts to be summarised come bare, so they get the instruction that GRM (arXiv 2406.10216) puts
    before them.
    """
    fields = ("conv_A", "conv_B")
    source = text(get(row, "source", where), "source", where)
    both = [messages(get(row, field, where), field, where) for field in fields]
    if "summarize" in source:
        both = [
            (Message(first.role, SUMMARIZE + first.content.strip()), *rest) for first, *rest in both
        ]
    prompt, *responses = divide(both, fields, where)
    ratings = [number(row, f"{field}_rating", where) for field in fields]
    return {"prompt": prompt, "responses": tuple(responses), "subset": source} | graded(ratings)


def arena(row: Row, where: str) -> Known:
    """Chatbot Arena (lmsys, lmarena-ai): two whole conversations and the vote on them."""
    vote = _battle([messages(get(row, field, where), field, where) for field in SIDES], row, where)
    if isinstance(row.get("question_id"), str):
        vote["id"] = row["question_id"]
    return vote


def mt_bench(row: Row, where: str) -> Known:
    """lmsys/mt_bench_human_judgments: both conversations hold two exchanges, `turn` was judged.

    A judgement of turn 1 sees the first exchange only, one of turn 2 sees both.
    """
    turn = choice(get(row, "turn", where), "turn", (1, 2), where)
    both = []
    for field in SIDES:
        conversation = messages(get(row, field, where), field, where)
        ends = [i for i, message in enumerate(conversation, 1) if message.role == "assistant"]
        if len(ends) < turn:
            raise fault(where, field, f"turn {turn} was judged, but {len(ends)} are answered")
        both.append(conversation[: ends[turn - 1]])
    return _battle(both, row, where)


def _battle(both: list[Conversation], row: Row, where: str) -> Known:
    prompt, *responses = divide(both, SIDES, where)
    winner = choice(get(row, "winner", where), "winner", tuple(WINNERS), where)
    return {"prompt": prompt, "responses": tuple(responses), "ranks": WINNERS[winner]}


def arena_55k(row: Row, where: str) -> Known:
    """lmsys-arena-human-preference-55k: turns as lists in JSON, null where a model said nothing."""
    fields = ("response_a", "response_b")
    asked, *answered = (_said(row, field, where) for field in ("prompt", *fields))
    both = []
    for field, answers in zip(fields, answered, strict=True):
        if len(answers) != len(asked):
            problem = f"holds {len(answers)} turns, but 'prompt' {len(asked)}"
            raise fault(where, field, problem)
        exchanges = zip(asked, answers, strict=True)
        turns = ((Message("user", q), Message("assistant", a)) for q, a in exchanges)
        both.append(sum(turns, ()))
    prompt, *responses = divide(both, fields, where)
    outcomes = {"winner_model_a": (0, 1), "winner_model_b": (1, 0), "winner_tie": TIE}
    flags = [choice(get(row, name, where), name, (0, 1), where) for name in outcomes]
    if sum(flags) != 1:
        raise fault(where, "winner_tie", f"exactly one of {', '.join(outcomes)} must be 1")
    ranks = tuple(outcomes.values())[flags.index(1)]
    return {"prompt": prompt, "responses": tuple(responses), "ranks": ranks}


def _said(row: Row, field: str, where: str) -> list[str]:
    stored = json_list(text(get(row, field, where), field, where), field, where)
    turns = ["" if turn is None else turn for turn in stored]
    return [text(turn, f"{field}[{i}]", where) for i, turn in enumerate(turns)]


def pku_saferlhf(row: Row, where: str, *, judgement: str) -> Known:
    """PKU-SafeRLHF: two answers, and in column `judgement` which of them it prefers."""
    best = choice(get(row, judgement, where), judgement, (0, 1), where)
    fields = _two(row, where, user(row, "prompt", where), ("response_0", "response_1"))
    return fields | {"ranks": (best, 1 - best)}


def helpsteer2_preference(row: Row, where: str) -> Known:
    """nvidia/HelpSteer2, preference: -3 (the first is much better) to 3 (the second is).

    One file holds the training and the validation rows, so `split` is kept as the subset.
    """
    told = text(get(row, "prompt", where), "prompt", where)
    fields = _two(row, where, transcript(told, EXTRA_ID), ("response_1", "response_2"))
    strength = number(row, "preference_strength", where)
    return fields | _subset(row, "split", where) | _leaning(strength)


def helpsteer3(row: Row, where: str) -> Known:
    """nvidia/HelpSteer3, preference: as HelpSteer2's, after a list of messages."""
    prompt = messages(get(row, "context", where), "context", where)
    fields = _two(row, where, prompt, ("response1", "response2"))
    strength = number(row, "overall_preference", where)
    return fields | _subset(row, "domain", where) | _leaning(strength)


def _leaning(strength: float) -> Known:
    ranks = TIE if strength == 0 else (0, 1) if strength < 0 else (1, 0)
    return {"ranks": ranks, "margin": abs(strength)}


def _two(row: Row, where: str, prompt: Conversation, fields: tuple[str, str]) -> Known:
    answers = ((field, text(get(row, field, where), field, where)) for field in fields)
    responses = tuple(response(prompt, said, field, where) for field, said in answers)
    return {"prompt": prompt, "responses": responses}


def _subset(row: Row, field: str, where: str) -> Known:
    return {} if row.get(field) is None else {"subset": text(row[field], field, where)}


def helpsteer2(row: Row, where: str) -> Known:
    """nvidia/HelpSteer2 (and HelpSteer), ratings: one response, graded in five attributes.

    Helpfulness is its score.
    """
    prompt = transcript(text(get(row, "prompt", where), "prompt", where), EXTRA_ID)
    said = text(get(row, "response", where), "response", where)
    attributes = tuple(number(row, name, where) for name in HELPSTEER_ATTRIBUTES)
    return {
        "prompt": prompt,
        "responses": (response(prompt, said, "response", where),),
        "scores": attributes[:1],
        "attributes": (attributes,),
    }


def ultrafeedback(row: Row, where: str, *, judgement: str) -> Known:
    """openbmb/UltraFeedback: completions with a grade each in `judgement`.

    The system prompts that shaped single completions are no part of the conversation.
    """
    prompt = user(row, "instruction", where)
    about_one = ("custom_system_prompt", "principle", "annotations", "critique")
    responses, grades = _several(
        row, where, prompt, "completions", "response", judgement, aside=about_one
    )
    labels = _subset(row, "source", where) | graded(grades)
    return {"prompt": prompt, "responses": responses} | labels


def nectar(row: Row, where: str) -> Known:
    """berkeley-nest/Nectar: a transcript that opens the assistant's turn, and ranked answers."""
    prompt = transcript(text(get(row, "prompt", where), "prompt", where), HUMAN_ASSISTANT)
    if prompt[-1] == Message("assistant", ""):
        prompt = prompt[:-1]
    responses, ranks = _several(row, where, prompt, "answers", "answer", "rank")
    return {"prompt": prompt, "responses": responses, "ranks": ranked([-rank for rank in ranks])}


def nemo_rl(row: Row, where: str) -> Known:
    """NeMo RL's preference data: completions as messages, the lowest rank the best."""
    prompt = messages(get(row, "context", where), "context", where)
    responses, ranks = _several(row, where, prompt, "completions", "completion", "rank")
    return {"prompt": prompt, "responses": responses, "ranks": ranked([-rank for rank in ranks])}


def _several(
    row: Row,
    where: str,
    prompt: Conversation,
    field: str,
    content: str,
    grade: str,
    aside: Collection[str] = (),
) -> tuple[tuple, list[float]]:
    """The responses in a list of objects, and the number that each object gives its own.

    Raises DataError for what else an object has and may be context, but for what is `aside`.
    """
    located = objects(get(row, field, where), field, where)
    for path, item in located:
        refuse_context(item, (content, grade, *aside), path, where)
    responses = tuple(
        response(prompt, get(item, content, where, path), path + content, where)
        for path, item in located
    )
    return responses, [number(item, grade, where, path) for path, item in located]


def hhh_alignment(row: Row, where: str) -> Known:
    """HuggingFaceH4/hhh_alignment: choices labelled 1 (the better) and 0.

    The user opens `input` without a marker; later turns have one.
    """
    prompt = transcript(text(get(row, "input", where), "input", where), HUMAN_ASSISTANT)
    targets = get(row, "targets", where)
    if not isinstance(targets, dict):
        raise fault(where, "targets", f"expected an object, found {kind(targets)}")
    refuse_context(targets, ("choices", "labels"), "targets.", where)
    choices, labels = (
        items(get(targets, name, where, "targets."), f"targets.{name}", where)
        for name in ("choices", "labels")
    )
    responses = (
        response(prompt, said, f"targets.choices[{k}]", where) for k, said in enumerate(choices)
    )
    better = [
        choice(label, f"targets.labels[{k}]", (0, 1), where) for k, label in enumerate(labels)
    ]
    return {"prompt": prompt, "responses": tuple(responses), "ranks": ranked(better)}
