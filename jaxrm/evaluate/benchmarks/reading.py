"""Rows of benchmarks: what their readers have in common."""

from __future__ import annotations

from collections.abc import Iterable

from jaxrm.data.comparison import Conversation
from jaxrm.data.fields import Known, Row, choice, get, items, messages, response, text, user


def question(row: Row, where: str) -> Conversation:
    """Column `prompt`: messages, or text, which is a user's message and never raw."""
    if isinstance(get(row, "prompt", where), str):
        return user(row, "prompt", where)
    return messages(row["prompt"], "prompt", where)


def pair(row: Row, where: str) -> Known:
    """Columns `prompt`, `chosen` and `rejected`, the last two texts or messages."""
    prompt = question(row, where)
    chosen, rejected = (
        response(prompt, get(row, side, where), side, where) for side in ("chosen", "rejected")
    )
    return {"prompt": prompt, "responses": (chosen, rejected), "ranks": (0, 1)}


def good_and_bad(row: Row, where: str) -> Known:
    """RewardBench 2 and RM-Bench: several good responses and several bad ones, equal among
    themselves."""
    prompt, responses, ranks = question(row, where), [], []
    for rank, column in enumerate(("chosen", "rejected")):
        answers = items(get(row, column, where), column, where)
        responses += [response(prompt, at, f"{column}[{k}]", where) for k, at in enumerate(answers)]
        ranks += [rank] * len(answers)
    fields = {"prompt": prompt, "responses": tuple(responses), "ranks": tuple(ranks)}
    return fields | ({"subset": row["domain"]} if row.get("domain") is not None else {})


def subset(row: Row, names: Iterable[str], where: str, part: str = "") -> str:
    """Column `subset`, or what the part is called that the row comes from; one of `names`."""
    return choice(row.get("subset") or part or get(row, "subset", where), "subset", [*names], where)


def identity(row: Row, where: str, otherwise: str) -> str:
    """Column `id`, a text or a whole number; `otherwise` where there is none."""
    value = row.get("id")
    if value is None:
        return otherwise
    return str(value) if isinstance(value, int) else text(value, "id", where)
