"""Rows of preference data as comparisons: the form of a file is told by its columns.

Forms are tried from the most special to the most general, and the first that fits a file's first
row reads all of it. Columns that a form does not use are ignored. Besides those of public data
(`jaxrm.data.public_formats`) there are

- pairs: `prompt` (messages), `chosen` and `rejected` (text);
- responses: `prompt` (messages or text) and `responses`, or `completions` with `ranks` (a list of
  texts or of lists of messages), optionally `ranks`, `scores`, `steps` (for each response a list of
  [characters of the response up to the step's end, label or null]);
- stepwise supervision, TRL's too: `prompt` (messages or text), `completions` (a list of texts, the
  steps of one response, `SEPARATOR` between them) and `labels` (true, false, a number or null for
  each of them);
- TRL's four: `chosen` and `rejected` as texts or as lists of messages, each with a `prompt` of the
  same type, or without one, where the prompt is what both begin with;
- UltraFeedback-binarized: as lists of messages, beside which `prompt` repeats the prompt as text;
- Anthropic's transcripts: `chosen` and `rejected` that begin with "\\n\\nHuman:".

Every form may also have `id`, `subset`, `margin` and `attributes` (a list of grades per response,
null for one that is not labelled), and those with a chosen response a grade of it and of the
rejected one (`GRADES`), which never overturns the label. A message is an object with `role` and
`content`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jaxrm.data import public_formats as public
from jaxrm.data.comparison import (
    Comparison,
    Conversation,
    Message,
    Step,
    answer,
    check_label,
    check_number,
    common_length,
    fault,
    join_steps,
)
from jaxrm.data.fields import (
    Known,
    Row,
    divide,
    get,
    graded,
    items,
    messages,
    response,
    text,
    transcript,
)
from jaxrm.errors import DataError

SIDES = ("chosen", "rejected")

HUMAN = "\n\nHuman:"

SEPARATOR = "\n"
"""Between the steps of a response that is given in steps: TRL's default."""

GRADES = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("chosen-rating", "rejected-rating"),
)
"""Columns that may grade the two responses of a pair: ours, Hugging Face H4's and argilla's."""


@dataclass(frozen=True)
class Form:
    """One way to write comparisons as rows.

    Attributes:
        name: what people call it.
        columns: the columns that tell it.
        parse: the fields of a Comparison out of a row.
        fits: what else must hold of a first row with these columns.
        labels: by name, the columns of several judgements, the first the default; the chosen one is
            given to `parse` as `judgement`.
        one_by_one: rows hold one response each, and those of one prompt follow each other.
    """

    name: str
    columns: tuple[str, ...]
    parse: Callable[..., Known]
    fits: Callable[[Row], bool] = lambda row: True
    labels: Mapping[str, str] = field(default_factory=dict)
    one_by_one: bool = False


def comparisons(
    rows: Iterable[tuple[str, Row]], *, stem: str, label: str = ""
) -> Iterator[Comparison]:
    """The comparisons that rows of one form hold, in order, read as they are asked for.

    Args:
        rows: each with its file and row in words, for error messages: ("a.jsonl, row 3", {...}).
        stem: begins the id, `<stem>/<n>`, of a row without one; n counts rows from 1.
        label: which judgement to take where a form has several, by default its first.

    Raises:
        DataError: a form or a label that is not known, or a bad field, naming file and row.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    form = _form(first)
    parse = _parser(form, label, first[0])
    numbered = enumerate(itertools.chain([first], rows), start=1)
    parsed = ((n, where, parse(row, where) | _common(row, where)) for n, (where, row) in numbered)
    for n, where, known in _joined(parsed) if form.one_by_one else parsed:
        known["id"] = known.get("id") or f"{stem}/{n}"
        yield Comparison(**known, where=where)


def to_row(comparison: Comparison) -> Row:
    """A comparison as a row that `comparisons` reads back; `where` it was is left out."""
    row = dataclasses.asdict(comparison)
    del row["where"]
    if comparison.attributes is not None:
        row["attributes"] = [
            [None if math.isnan(value) else value for value in grades]
            for grades in comparison.attributes
        ]
    if comparison.steps is not None:
        row["steps"] = [
            [[end, None if math.isnan(label) else label] for end, label in steps]
            for steps in comparison.steps
        ]
    return {name: value for name, value in row.items() if value is not None}


def _form(first: tuple[str, Row]) -> Form:
    """The form of the rows that this one begins."""
    where, row = first
    for form in FORMS:
        if row.keys() >= set(form.columns) and form.fits(row):
            return form
    seen = ", ".join(sorted(row)) or "none"
    known = "; ".join(f"{form.name} ({', '.join(form.columns)})" for form in FORMS)
    raise DataError(f"{where}: unknown form: columns are {seen}; expected one of {known}")


def _parser(form: Form, label: str, where: str) -> Callable[[Row, str], Known]:
    """What parses rows of this form, with the judgement that `label` names."""
    if label and label not in form.labels:
        known = f"choose one of {', '.join(form.labels)}" if form.labels else "leave it out"
        raise DataError(f"{where}: {form.name} has no label {label!r}: {known}")
    if not form.labels:
        return form.parse
    column = form.labels[label or next(iter(form.labels))]
    return functools.partial(form.parse, judgement=column)


Parsed = tuple[int, str, Known]


def _joined(rows: Iterator[Parsed]) -> Iterator[Parsed]:
    """One comparison out of the consecutive rows of one prompt, named as the first of them."""
    for _, same in itertools.groupby(rows, key=lambda row: row[2]["prompt"]):
        same = list(same)
        number, where, known = same[0]
        for name in ("responses", "scores", "attributes"):
            known[name] = tuple(value for _, _, single in same for value in single[name])
        yield number, where, known | graded(known["scores"])


def _common(row: Row, where: str) -> Known:
    """What every form may say; a null counts as unsaid."""
    known = {name: row[name] for name in ("id", "subset", "margin") if row.get(name) is not None}
    if isinstance(known.get("id"), int):
        known["id"] = str(known["id"])
    if row.get("attributes") is not None:
        rows = items(row["attributes"], "attributes", where)
        known["attributes"] = tuple(
            tuple(math.nan if value is None else value for value in items(values, at, where))
            for at, values in ((f"attributes[{k}]", values) for k, values in enumerate(rows))
        )
    return known


def _responses(row: Row, where: str, column: str = "responses") -> Known:
    prompt = get(row, "prompt", where)
    prompt = prompt if isinstance(prompt, str) else messages(prompt, "prompt", where)
    given = enumerate(items(get(row, column, where), column, where))
    responses = (response(prompt, value, f"{column}[{k}]", where) for k, value in given)
    known = {"prompt": prompt, "responses": tuple(responses)}
    for name in ("ranks", "scores"):
        if row.get(name) is not None:
            known[name] = tuple(items(row[name], name, where))
    if row.get("steps") is not None:
        given = enumerate(items(row["steps"], "steps", where))
        known["steps"] = tuple(_steps(value, f"steps[{k}]", where) for k, value in given)
    return known


def _steps(value: object, field: str, where: str) -> tuple[Step, ...]:
    steps = []
    for t, step in enumerate(items(value, field, where)):
        pair = items(step, f"{field}[{t}]", where)
        if len(pair) != 2:
            raise fault(where, f"{field}[{t}]", f"expected [end, label], found {len(pair)} entries")
        steps.append(Step(pair[0], _label(pair[1])))
    return tuple(steps)


def _stepwise(row: Row, where: str) -> Known:
    """One response in steps. TRL writes a separator after the last step too, and reads a score at
    the separator; here the response ends with its last step, and each score is read at the last
    token of the step itself."""
    prompt = get(row, "prompt", where)
    prompt = prompt if isinstance(prompt, str) else messages(prompt, "prompt", where)
    given = enumerate(items(get(row, "completions", where), "completions", where))
    steps = [text(step, f"completions[{t}]", where) for t, step in given]
    labels = items(get(row, "labels", where), "labels", where)
    if len(labels) != len(steps):
        raise fault(where, "labels", f"has {len(labels)} entries for {len(steps)} steps")
    if not steps:
        raise fault(where, "completions", "needs at least one step")
    if not all(steps):
        raise fault(where, f"completions[{steps.index('')}]", "a step must not be empty")
    labels = [_label(label) for label in labels]
    for t, label in enumerate(labels):
        check_label(label, f"labels[{t}]", where)
    joined, ends = join_steps(steps, labels, SEPARATOR)
    return {"prompt": prompt, "responses": (answer(prompt, joined),), "steps": (ends,)}


def _label(value: object) -> object:
    """A step's label, a truth as a number; null is no label."""
    return math.nan if value is None else float(value) if isinstance(value, bool) else value


def _messages_and_answers(row: Row, where: str) -> Known:
    prompt = messages(get(row, "prompt", where), "prompt", where)
    return _pair(row, where, prompt, *_both(row, where, lambda *at: response(prompt, *at)))


def _texts(row: Row, where: str) -> Known:
    prompt = text(get(row, "prompt", where), "prompt", where)
    return _pair(row, where, prompt, *_both(row, where, text))


def _joined_messages(row: Row, where: str) -> Known:
    return _pair(row, where, *divide(*_both(row, where, messages), SIDES, where))


def _joined_texts(row: Row, where: str) -> Known:
    chosen, rejected = _both(row, where, text)
    shared, shorter = common_length(chosen, rejected), min(len(chosen), len(rejected))
    if shared == shorter:  # one continues the other: as in TRL, both keep a last character
        shared = max(shorter - 1, 0)
    elif shared and chosen[shared - 1] == " ":  # most tokenizers join a space to the word after it
        shared -= 1
    return _pair(row, where, chosen[:shared], chosen[shared:], rejected[shared:])


def _transcripts(row: Row, where: str) -> Known:
    """Anthropic/hh-rlhf. Where the user has the last word, the assistant's answer is empty."""
    return _pair(row, where, *divide(*_both(row, where, _conversation), SIDES, where))


def _conversation(value: object, name: str, where: str) -> Conversation:
    if not text(value, name, where).startswith(HUMAN):
        raise fault(where, name, f"must begin with {HUMAN!r}, as the first row does")
    told = transcript(value, public.HUMAN_ASSISTANT)
    return told if told[-1].role == "assistant" else (*told, Message("assistant", ""))


def _pair(row: Row, where: str, prompt, chosen, rejected) -> Known:
    """Ranks as labelled: rows whose grades tie train in TRL too."""
    known = {"prompt": prompt, "responses": (chosen, rejected), "ranks": (0, 1)}
    for columns in GRADES:
        if any(row.get(column) is not None for column in columns):
            for column in columns:
                check_number(row.get(column), column, where)
            known["scores"] = tuple(row[column] for column in columns)
            break
    return known


def _both(row: Row, where: str, parse: Callable) -> tuple:
    return tuple(parse(get(row, column, where), column, where) for column in SIDES)


def _are(wanted: type, *columns: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[column], wanted) for column in columns)


def _are_texts(values: list) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


FORMS = (
    Form(
        "Unified-Feedback",
        ("conv_A", "conv_B", "conv_A_rating", "conv_B_rating"),
        public.unified_feedback,
    ),
    Form(
        "MT-Bench judgments",
        ("conversation_a", "conversation_b", "winner", "judge", "turn"),
        public.mt_bench,
        # In Chatbot Arena's rows, which are dated, the vote is on all turns and `turn` counts them.
        fits=lambda row: "tstamp" not in row,
    ),
    Form("Chatbot Arena", ("conversation_a", "conversation_b", "winner"), public.arena),
    Form(
        "Chatbot Arena 55k",
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        public.arena_55k,
    ),
    Form(
        "PKU-SafeRLHF",
        ("prompt", "response_0", "response_1", "better_response_id"),
        public.pku_saferlhf,
        labels={"better": "better_response_id", "safer": "safer_response_id"},
    ),
    Form(
        "HelpSteer2-Preference",
        ("prompt", "response_1", "response_2", "preference_strength"),
        public.helpsteer2_preference,
    ),
    Form(
        "HelpSteer3",
        ("context", "response1", "response2", "overall_preference"),
        public.helpsteer3,
    ),
    Form(
        "HelpSteer2",
        ("prompt", "response", *public.HELPSTEER_ATTRIBUTES),
        public.helpsteer2,
        one_by_one=True,
    ),
    Form(
        "UltraFeedback",
        ("instruction", "completions"),
        public.ultrafeedback,
        labels={"overall": "overall_score", "fine-grained": "fine-grained_score"},
    ),
    Form("Nectar", ("prompt", "answers"), public.nectar, fits=_are(list, "answers")),
    Form("NeMo RL", ("context", "completions"), public.nemo_rl),
    Form("HHH-Alignment", ("input", "targets"), public.hhh_alignment, fits=_are(dict, "targets")),
    Form("responses", ("prompt", "responses"), _responses),
    Form(
        "ranked completions",
        ("prompt", "completions", "ranks"),
        functools.partial(_responses, column="completions"),
    ),
    Form("stepwise supervision", ("prompt", "completions", "labels"), _stepwise),
    Form(
        "RewardBench 2, RM-Bench",
        ("prompt", "chosen", "rejected"),
        public.good_and_bad,
        fits=lambda row: _are(list, *SIDES)(row) and all(_are_texts(row[side]) for side in SIDES),
    ),
    Form(
        "prompt and answers",
        ("prompt", "chosen", "rejected"),
        _messages_and_answers,
        fits=_are(list, "prompt"),
    ),
    Form(
        "UltraFeedback-binarized",
        ("prompt", "chosen", "rejected"),
        _joined_messages,
        fits=_are(list, "chosen", "rejected"),
    ),
    Form("prompt and answers as text", ("prompt", "chosen", "rejected"), _texts),
    Form("messages", ("chosen", "rejected"), _joined_messages, fits=_are(list, "chosen")),
    Form(
        "HH-RLHF",
        ("chosen", "rejected"),
        _transcripts,
        fits=lambda row: all(str(row[column]).startswith(HUMAN) for column in SIDES),
    ),
    Form("texts", ("chosen", "rejected"), _joined_texts),
)
"""Every form, special before general."""
