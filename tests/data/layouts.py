"""Preference data in the columns that people have it in, all saying the same few conversations."""

from __future__ import annotations

import json
from pathlib import Path

from jaxrm.data.comparison import Message

FORMATS = Path(__file__).parent / "fixtures" / "formats"

QUESTION, GOOD, BAD = "How many moons has Mars?", "It has two moons.", "None that we know."
SYSTEM, HISTORY = "Answer as a pirate would.", ("Which planet is red?", "Mars is, matey.")
OTHER = "Some say there are five."

ASK = {"role": "user", "content": QUESTION}
BEFORE = [{"role": "user", "content": HISTORY[0]}, {"role": "assistant", "content": HISTORY[1]}]
RULE = {"role": "system", "content": SYSTEM}
HUMAN = {"from": "human", "value": QUESTION}
CALL = {"type": "function", "function": {"name": "moons", "arguments": {"planet": "Mars"}}}
TOOL = {"type": "function", "function": {"name": "moons", "description": "Counts the moons."}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "2 moons found", "name": "moons", "tool_call_id": "call_1"}


def says(content):
    return {"role": "assistant", "content": content}


def gpt(value):
    return {"from": "gpt", "value": value}


TEXTS = {"chosen": GOOD, "rejected": BAD}
ANSWERS = {"chosen": [says(GOOD)], "rejected": [says(BAD)]}
WHOLE = {"chosen": [ASK, says(GOOD)], "rejected": [ASK, says(BAD)]}
TOLD = {side: f"Human: {QUESTION}\n\nAssistant: {text}" for side, text in TEXTS.items()}

LAYOUTS = {
    "pairs": {"id": "a/1", "prompt": [ASK], **TEXTS, "source": "moons", "margin": 2},
    "orca": {"system": "", "question": QUESTION, **TEXTS},
    "orca, system": {"system": SYSTEM, "question": QUESTION, **TEXTS},
    "alpaca": {"instruction": QUESTION, "input": "", **TEXTS},
    "alpaca, input": {"instruction": "How many moons has", "input": "Mars?", **TEXTS},
    "alpaca, history": {
        "instruction": QUESTION,
        "input": None,
        "history": [list(HISTORY)],
        "system": SYSTEM,
        **TEXTS,
    },
    "sharegpt, objects": {
        "conversations": [HUMAN],
        "chosen": gpt(GOOD),
        "rejected": gpt(BAD),
        "system": SYSTEM,
    },
    "sharegpt, lists": {"conversations": [HUMAN], "chosen": [gpt(GOOD)], "rejected": [gpt(BAD)]},
    "sharegpt, tools": {
        "conversations": [HUMAN],
        "chosen": gpt(GOOD),
        "rejected": gpt(BAD),
        "tools": json.dumps([TOOL]),
    },
    "openai": {
        "input": {"messages": [ASK], "tools": [], "parallel_tool_calls": True},
        "preferred_output": ANSWERS["chosen"],
        "non_preferred_output": ANSWERS["rejected"],
    },
    "messages beside answers": {"messages": [ASK], **TEXTS},
    "query": {"query": QUESTION, **TEXTS},
    "question": {"question": QUESTION, **TEXTS, "answer_id": 7},
    "system beside text": {"system": SYSTEM, "prompt": QUESTION, **TEXTS},
    "system beside messages": {"system_prompt": SYSTEM, "prompt": [ASK], **ANSWERS},
    "system beside whole conversations": {"system": SYSTEM, **WHOLE},
    "one chosen, several rejected": {
        "prompt": [ASK],
        "chosen": GOOD,
        "rejected": [BAD, OTHER],
    },
    "one chosen, several rejected, as messages": {
        "question": QUESTION,
        "chosen": [says(GOOD)],
        "rejected": [[says(BAD)], [says(OTHER)]],
    },
    "text prompt, messages": {"prompt": QUESTION, **ANSWERS},
    "whole conversations": WHOLE,
    "whole conversations, prompt repeated": {"prompt": [ASK], **WHOLE},
    "whole conversations, prompt as text": {"prompt": QUESTION, "prompt_id": "1f", **WHOLE},
    "whole conversations, messages repeated": {"messages": WHOLE["chosen"], **WHOLE},
    "whole conversations, system in them": {
        "prompt": [ASK],
        "chosen": [RULE, ASK, says(GOOD)],
        "rejected": [RULE, ASK, says(BAD)],
    },
    "history in messages": {"prompt": [*BEFORE, ASK], **TEXTS},
    "history as messages": {"history": BEFORE, "question": QUESTION, **TEXTS},
    "a message as prompt": {"prompt": ASK, **ANSWERS},
    "two columns of one question": {"prompt": QUESTION, "question": QUESTION, **WHOLE},
    "a copy of the answer": {"question": QUESTION, "response": GOOD, **TEXTS},
    "transcripts": {side: "\n\n" + text for side, text in TOLD.items()},
    "transcripts, stripped": TOLD,
    "transcript as prompt": {
        "prompt": f"\n\nHuman: {QUESTION}\n\nAssistant:",
        **{side: " " + text for side, text in TEXTS.items()},
    },
    "messages as JSON": {side: json.dumps(turns) for side, turns in WHOLE.items()},
    "messages as Python": {side: str(turns) for side, turns in WHOLE.items()},
    "prompt as JSON": {"prompt": json.dumps([ASK]), **TEXTS},
    "content in parts": {
        "prompt": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        **TEXTS,
    },
    "human and gpt as roles": {
        "messages": [{"role": "human", "content": QUESTION}],
        "chosen": [{"role": "gpt", "content": GOOD}],
        "rejected": [{"role": "gpt", "content": BAD}],
    },
    "nulls, as Parquet fills them": {
        "prompt": [ASK | {"tool_calls": None, "name": None}],
        "chosen": [says(GOOD) | {"tool_calls": None, "reasoning_content": None}],
        "rejected": [says(BAD) | {"tool_calls": None}],
        "system": None,
        "tools": None,
    },
    "messages with ids": {
        "prompt": [ASK | {"id": "m1", "weight": 0, "timestamp": "2024-05-05 10:00"}],
        **ANSWERS,
    },
    "tool calls": {
        "prompt": [ASK],
        "tools": [TOOL],
        "chosen": [CALLS | {"content": None}],
        "rejected": [says(BAD)],
    },
    "tool turns": {
        "prompt": [ASK, CALLS, RESULT],
        "tools": [TOOL],
        "chosen": [says(GOOD) | {"reasoning_content": "The tool said two."}],
        "rejected": [says(BAD)],
    },
    "responses": {"prompt": [ASK], "responses": [GOOD, BAD, OTHER], "ranks": [0, 1, 2]},
    "responses, question and system": {
        "system": SYSTEM,
        "question": QUESTION,
        "responses": [GOOD, BAD],
        "scores": [2, 1],
    },
    "ranked completions": {"prompt": [ASK], "completions": [GOOD, BAD], "ranks": [0, 1]},
    "steps": {"prompt": [ASK], "completions": ["It has", "two moons."], "labels": [True, False]},
}
"""One row of each."""


def conversations(name):
    """The conversation of each response, best first, that a layout's row says."""
    row = LAYOUTS[name]
    asked = (Message("user", QUESTION),)
    if name == "alpaca, input":
        asked = (Message("user", "How many moons has\nMars?"),)
    if HISTORY[0] in json.dumps(row):
        asked = (*map(Message, ("user", "assistant"), HISTORY), *asked)
    if name == "tool turns":
        result = Message("tool", "2 moons found", name="moons", tool_call_id="call_1")
        asked = (*asked, Message("assistant", "", tool_calls=[CALL]), result)
    if SYSTEM in json.dumps(row):
        asked = (Message("system", SYSTEM), *asked)
    if name == "steps":
        return [(*asked, Message("assistant", "It has\ntwo moons."))]
    texts = [GOOD, BAD, OTHER][: 3 if OTHER in json.dumps(row) else 2]
    answers = [Message("assistant", text) for text in texts]
    if name == "tool calls":
        answers[0] = Message("assistant", "", tool_calls=[CALL])
    if name == "tool turns":
        answers[0] = Message("assistant", GOOD, reasoning_content="The tool said two.")
    return [(*asked, answer) for answer in answers]


def every_form():
    """Rows of each layout, and of each public data set, by name."""
    public = {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in sorted(FORMATS.glob("*.jsonl"))
    }
    return {name: [row, row] for name, row in LAYOUTS.items()} | public
