"""Rows of preference data as comparisons: the form of a file is told by its columns.

Forms are tried from the most special to the most general, and the first that fits a file's first
row reads all of it; null is no value. Besides those of public data (`jaxrm.data.public_formats`)
there are (`jaxrm.data.common_formats`)

- pairs: `chosen` and `rejected`, each text, messages (a list, or a single one as an object) or a
  list of several answers, to a question: `prompt` (messages or text), `messages`, `conversations`,
  `question`, `query`, or `instruction` with `input`; beside it `system`, `history` and `tools`.
  Messages may be whole conversations, which need no question beside them;
- OpenAI's preferences: `input` with messages, `preferred_output`, `non_preferred_output`;
- responses: a question and `responses`, or `completions` with `ranks` (a list of texts or of lists
  of messages), optionally `ranks`, `scores`, `steps` (for each response a list of [characters of
  the response up to the step's end, label or null]);
- stepwise supervision, TRL's too: a question, `completions` (a list of texts, the steps of one
  response) and `labels` (true, false, a number or null for each of them);
- Anthropic's transcripts: `chosen` and `rejected` that begin with "Human:";
- whole texts: `chosen` and `rejected` alone, whose prompt is the words that both begin with.

Every form may also have `id`, `subset`, `margin` and `attributes` (a list of grades per response,
null for one that is not labelled), and those with a chosen response a grade of it and of the
rejected one, which never overturns the label. A message is an object with `role` and `content`, or
ShareGPT's `from` and `value`; messages may also be written as text, in JSON or as Python does.

Every column of every row is accounted for: what a form does not read must be known to be harmless,
or it is said; what may hold context is an error (`jaxrm.data.columns`). Where a row is a whole
comparison, columns of numbers may be carried along under their own names (`Comparison.columns`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jaxrm.data import columns
from jaxrm.data import common_formats as common
from jaxrm.data import public_formats as public
from jaxrm.data.asked import Text, is_transcript, question_columns
from jaxrm.data.columns import Row
from jaxrm.data.comparison import Comparison, Values, fault
from jaxrm.data.fields import Known, graded, items
from jaxrm.data.prepared import prepared
from jaxrm.errors import DataError

log = logging.getLogger(__name__)

COMMON = ("id", "subset", "margin", "attributes")
"""What every form may say."""


@dataclass(frozen=True)
class Form:
    """One way to write comparisons as rows.

    Attributes:
        name: what people call it.
        columns: the columns that tell it.
        parse: the fields of a Comparison out of a row.
        fits: what else must hold of a first row with these columns.
        reads: further columns that it reads of a row.
        aside: columns of this data that say nothing of the conversation.
        labels: by name, the columns of several judgements, the first the default; the chosen one is
            given to `parse` as `judgement`.
        one_by_one: rows hold one response each, and those of one prompt follow each other.
        may_be_raw: texts may be meant in more than one way: `parse` is told which, as `how`.
    """

    name: str
    columns: tuple[str, ...]
    parse: Callable[..., Known]
    fits: Callable[[Row], bool] = lambda row: True
    reads: Callable[[Row], Iterable[str]] = lambda row: ()
    aside: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    one_by_one: bool = False
    may_be_raw: bool = False


def comparisons(
    rows: Iterable[tuple[str, Row]],
    *,
    stem: str,
    label: str = "",
    text: Text = "",
    ignore: Collection[str] = (),
    carried: Collection[str] = (),
) -> Iterator[Comparison]:
    """The comparisons that rows of one form hold, in order, read as they are asked for.

    Args:
        rows: each with its file and row in words, for error messages: ("a.jsonl, row 3", {...}).
        stem: begins the id, `<stem>/<n>`, of a row without one; n counts rows from 1.
        label: which judgement to take where a form has several, by default its first.
        text: whether a question and answers of text are a conversation or raw; where nobody says,
            the comparison is `undecided`.
        ignore: columns, and fields of messages, that are read as if they were not there.
        carried: columns that become the comparison's `columns`: a number, a list of one for each
            response, or of a list for each.

    Raises:
        DataError: a form or a label that is not known, a column that may hold context and is not
            read, one that is to be carried and missing, or a bad field, naming file and row.
    """
    plain = ((where, prepared(row, ignore, where)) for where, row in rows)
    first = next(plain, None)
    if first is None:
        return
    form = _form(first, text)
    if carried and form.one_by_one:
        problem = "has a row for each response, and columns are carried of rows of a comparison"
        raise DataError(f"{first[0]}: {form.name} {problem}: leave the source option columns out")
    parse, mentioned = _parser(form, label, text, first[0]), set()
    if form.parse is common.texts and not text:
        message = "%s: no column says what was asked, so these are whole texts, read as RAW TEXT, "
        message += "whose prompt is what both begin with; ?text=raw says the same"
        log.warning(message, first[0])

    def read(where: str, row: Row) -> Known:
        values = {name: _numbers(row, name, where) for name in carried}
        if values and (unread := values.keys() - _read(form, row)):
            row = {name: value for name, value in row.items() if name not in unread}
        try:
            left = _left(form, row)
        except RecursionError as error:
            raise DataError(f"{where}: an object is nested too deeply to be read") from error
        try:
            fields = parse(row, where)
        except DataError as error:
            if unread := [name for name, verdict in left.items() if verdict == "context"]:
                hint = f"?ignore={columns.listed(unread)} leaves out"
                raise DataError(f"{error} (not read: {', '.join(unread)}, which {hint})") from error
            raise
        _account(left, form, row, fields, where)
        if new := {name for name, verdict in left.items() if verdict == "mentioned"} - mentioned:
            mentioned.update(new)
            log.info("%s: columns that are not read: %s", where, ", ".join(sorted(new)))
        return fields | _common(row, where) | {"columns": values}

    numbered = enumerate(itertools.chain([first], plain), start=1)
    parsed = ((n, where, read(where, row)) for n, (where, row) in numbered)
    for n, where, fields in _joined(parsed) if form.one_by_one else parsed:
        fields["id"] = fields.get("id") or f"{stem}/{n}"
        yield Comparison(**fields, where=where)


def to_row(comparison: Comparison) -> Row:
    """A comparison as a row that `comparisons` reads back, its columns where they are `carried`;
    `where` it was is left out."""
    row = {part.name: getattr(comparison, part.name) for part in dataclasses.fields(comparison)}
    row |= row.pop("columns")
    del row["where"]
    row["raw"] = (isinstance(comparison.prompt, str) and not row.pop("undecided")) or None
    if not isinstance(comparison.prompt, str):
        row["prompt"] = [message.row() for message in comparison.prompt]
        row["responses"] = [[m.row() for m in response] for response in comparison.responses]
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
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in row.items()
        if value is not None
    }


def _form(first: tuple[str, Row], text: Text) -> Form:
    """The form of the rows that this one begins."""
    where, row = first
    present = {name for name, value in row.items() if value is not None}
    for form in FORMS:
        if text == "raw" and form.parse is common.transcripts:
            continue
        if present >= set(form.columns) and form.fits(row):
            return form
    seen = ", ".join(sorted(row)) or "none"
    expected = "; ".join(f"{form.name} ({', '.join(form.columns)})" for form in FORMS)
    raise DataError(f"{where}: unknown form: columns are {seen}; expected one of {expected}")


def _parser(form: Form, label: str, text: Text, where: str) -> Callable[[Row, str], Known]:
    """What parses rows of this form, with the judgement that `label` names."""
    if text == "raw" and not form.may_be_raw:
        problem = "holds conversations, not raw text: leave the source option text out"
        raise DataError(f"{where}: {form.name} {problem}")
    if form.may_be_raw:
        return functools.partial(form.parse, how=text)
    if label and label not in form.labels:
        advice = f"choose one of {', '.join(form.labels)}" if form.labels else "leave it out"
        raise DataError(f"{where}: {form.name} has no label {label!r}: {advice}")
    if not form.labels:
        return form.parse
    column = form.labels[label or next(iter(form.labels))]
    return functools.partial(form.parse, judgement=column)


def _numbers(row: Row, name: str, where: str) -> Values:
    """A column to be carried, lists as tuples; a null counts as missing."""
    if (value := row.get(name)) is None:
        problem = "missing, and ?columns= asks for it: expected a number of the pair, a list of one"
        raise fault(where, name, f"{problem} for each response, or of a list for each")
    wide = isinstance(value, list) and all(isinstance(entry, list) for entry in value)
    return tuple(map(tuple, value) if wide else value) if isinstance(value, list) else value


def _read(form: Form, row: Row) -> set[str]:
    """The columns of a row that a form knows."""
    return {*form.columns, *form.labels.values(), *form.aside, *COMMON, *form.reads(row)}


def _left(form: Form, row: Row) -> dict[str, columns.Verdict]:
    """What the columns that a form does not read of a row may be."""
    read = _read(form, row)
    return {name: columns.judge(name, value) for name, value in row.items() if name not in read}


def _account(
    left: Mapping[str, columns.Verdict], form: Form, row: Row, fields: Known, where: str
) -> None:
    """Refuses columns that may hold context and are not read, unless the conversation says the same
    already."""
    context = [name for name, verdict in left.items() if verdict == "context"]
    if not context:
        return
    said = columns.contents(fields["prompt"], fields["responses"])
    if context := [name for name in context if not columns.repeats(row[name], said)]:
        problem = f"may hold context, and {form.name} does not read it: rename it, or leave it out "
        problem += f"with the source option ?ignore={columns.listed(context)}"
        raise fault(where, context[0], problem)


Parsed = tuple[int, str, Known]


def _joined(rows: Iterator[Parsed]) -> Iterator[Parsed]:
    """One comparison out of the consecutive rows of one prompt, named as the first of them."""
    for _, same in itertools.groupby(rows, key=lambda row: row[2]["prompt"]):
        same = list(same)
        number, where, fields = same[0]
        for name in ("responses", "scores", "attributes"):
            fields[name] = tuple(value for _, _, single in same for value in single[name])
        yield number, where, fields | graded(fields["scores"])


def _common(row: Row, where: str) -> Known:
    """What every form may say; a null counts as unsaid."""
    fields = {name: row[name] for name in ("id", "subset", "margin") if row.get(name) is not None}
    for name in ("id", "subset"):
        if isinstance(fields.get(name), int | float):
            fields[name] = str(fields[name])
    if row.get("attributes") is not None:
        rows = items(row["attributes"], "attributes", where)
        fields["attributes"] = tuple(
            tuple(math.nan if value is None else value for value in items(values, at, where))
            for at, values in ((f"attributes[{k}]", values) for k, values in enumerate(rows))
        )
    return fields


def _are(wanted: type, *names: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row[name], wanted) for name in names)


def _are_objects(row: Row) -> bool:
    """Whether completions are a list of objects, or an empty one."""
    completions = row["completions"]
    return isinstance(completions, list) and all(isinstance(item, dict) for item in completions)


def _are_texts(row: Row) -> bool:
    """Whether both sides are lists of texts."""
    sides = [row[side] for side in common.SIDES]
    return all(
        isinstance(side, list) and side and all(isinstance(text, str) for text in side)
        for side in sides
    )


def _stand_alone(row: Row) -> bool:
    """Whether both sides are texts, and nothing says what was asked."""
    return _are(str, *common.SIDES)(row) and not question_columns(row)


def _is_dated(row: Row) -> bool:
    """Whether conversations are Chatbot Arena's, whose vote is on all turns and whose `turn` counts
    them; in MT-Bench's it says which one was judged."""
    return not {"tstamp", "timestamp", "anony"}.isdisjoint(row)


def _beside(*names: str) -> Callable[[Row], list[str]]:
    """The columns of the question, and these."""
    return lambda row: [*question_columns(row), *names]


GRADES = tuple(itertools.chain(*common.GRADES))

FORMS = (
    Form(
        "Unified-Feedback",
        ("conv_A", "conv_B", "conv_A_rating", "conv_B_rating"),
        public.unified_feedback,
        reads=lambda row: ["source"],
    ),
    Form(
        "MT-Bench judgments",
        ("conversation_a", "conversation_b", "winner", "judge", "turn"),
        public.mt_bench,
        fits=lambda row: not _is_dated(row),
    ),
    Form(
        "Chatbot Arena",
        ("conversation_a", "conversation_b", "winner"),
        public.arena,
        fits=lambda row: _is_dated(row) or not {"judge", "turn"} & row.keys(),
        reads=lambda row: ["question_id"],
        aside=("full_conversation",),
    ),
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
        reads=lambda row: ["split"],
        aside=(
            "preference_statement",
            "three_most_similar_preferences",
            "all_preferences_unprocessed",
        ),
    ),
    Form(
        "HelpSteer3",
        ("context", "response1", "response2", "overall_preference"),
        public.helpsteer3,
        reads=lambda row: ["domain"],
        aside=("individual_preference",),
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
        fits=lambda row: _are_objects(row),
        reads=lambda row: ["source"],
        aside=("correct_answers", "incorrect_answers"),
        labels={"overall": "overall_score", "fine-grained": "fine-grained_score"},
    ),
    Form("Nectar", ("prompt", "answers"), public.nectar, fits=_are(list, "answers")),
    Form(
        "NeMo RL",
        ("context", "completions"),
        public.nemo_rl,
        fits=lambda row: isinstance(row["context"], list) and _are_objects(row),
    ),
    Form("HHH-Alignment", ("input", "targets"), public.hhh_alignment, fits=_are(dict, "targets")),
    Form(
        "RewardBench 2, RM-Bench",
        ("prompt", "chosen", "rejected"),
        common.rm_bench,
        fits=_are_texts,
        reads=_beside("domain"),
        aside=("additional_metadata",),
        may_be_raw=True,
    ),
    Form(
        "OpenAI's preferences",
        ("input", "preferred_output", "non_preferred_output"),
        common.preferences,
        may_be_raw=True,
    ),
    Form(
        "HH-RLHF",
        common.SIDES,
        common.transcripts,
        fits=lambda row: (
            _stand_alone(row) and all(is_transcript(row[side]) for side in common.SIDES)
        ),
        reads=lambda row: GRADES,
    ),
    Form(
        "whole texts",
        common.SIDES,
        common.texts,
        fits=_stand_alone,
        reads=lambda row: GRADES,
        may_be_raw=True,
    ),
    Form("pairs", common.SIDES, common.pairs, reads=_beside(*GRADES), may_be_raw=True),
    Form(
        "responses",
        ("responses",),
        common.responses,
        reads=_beside("ranks", "scores", "steps", "raw"),
        may_be_raw=True,
    ),
    Form(
        "ranked completions",
        ("completions", "ranks"),
        functools.partial(common.responses, column="completions"),
        reads=_beside("scores", "steps"),
        may_be_raw=True,
    ),
    Form(
        "stepwise supervision",
        ("completions", "labels"),
        common.stepwise,
        reads=_beside(),
        may_be_raw=True,
    ),
)
"""Every form, special before general."""
