"""A data set without what the audit finds in it: what is taken out, why, and because of which row.

A comparison is taken out for the first of these reasons that holds:

- same, near: its prompt is the same as an evaluation prompt, or near it (`overlap`);
- empty: a response, or a user or assistant message of the prompt, is blank;
- identical: two of its responses are the same;
- tie: it has ranks, and no two of them differ;
- contradiction: it ranks one response above another, and as many comparisons of the same question
  or more rank them the other way. So the minority goes, and of an even split both sides go, since
  nothing says which is right. Each row is a vote: judges who agree are rows that are the same;
- duplicate: an earlier comparison says the same (`contents.judgement`), whatever else the two rows
  hold (scores, margin, attributes, steps). The first of them stays.

Each rule is applied to what the rules before it left. All are applied again until nothing more is
taken out, because the rules for evaluation prompts weigh words by how many prompts have them, and
so depend on the set. What is kept therefore has none of these faults, and cleaning it again takes
nothing.

What is no fault stays: comparisons without an order or with a single response, which other
objectives learn from; prompts that share only a passage with an evaluation prompt, which in real
sets is most often a template; and circles of preferences, in which no single label is at fault.
"""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxrm import files
from jaxrm.data import formats, training
from jaxrm.data.audit import contents, overlap
from jaxrm.data.comparison import Comparison
from jaxrm.data.fields import Row

REASONS = (*overlap.COPIES, "empty", "identical", "tie", "contradiction", "duplicate")
"""In the order in which they are looked for."""


@dataclass(frozen=True)
class Fault:
    """Why a comparison is taken out.

    Attributes:
        reason: one of `REASONS`.
        because_of: the id of the comparison that it copies, contradicts or repeats: the evaluation
            prompt's first, the first that ranks the pair the other way, or the first of the
            duplicates. None where the fault is its own.
    """

    reason: str
    because_of: str | None = None


@dataclass(frozen=True)
class Cleaned:
    """A data set in two parts, each in the order in which it was read."""

    kept: tuple[Comparison, ...]
    taken: tuple[tuple[Comparison, Fault], ...]

    def counts(self) -> dict[str, int]:
        """How many comparisons were read, taken out for each reason, and kept."""
        reasons = [fault.reason for _, fault in self.taken]
        return {
            "read": len(self.kept) + len(self.taken),
            **{reason: reasons.count(reason) for reason in REASONS},
            "kept": len(self.kept),
        }


Rule = Callable[[Sequence[Comparison]], Iterator[tuple[int, Fault]]]
"""The places of comparisons that have a fault, each at most once."""


def clean(comparisons: Sequence[Comparison], evaluations: Sequence[overlap.Corpus] = ()) -> Cleaned:
    """Takes out every comparison that has one of the faults above.

    Args:
        comparisons: a data set, each comparison with an id.
        evaluations: the sets whose prompts it must not have.
    """
    copies = [functools.partial(_copies, evaluations)] if evaluations else []
    rules: list[Rule] = [*copies, _unusable, _contradictions, _duplicates]
    faults: dict[int, Fault] = {}
    left = list(range(len(comparisons)))
    before = None
    while before != len(left):
        before = len(left)
        for rule in rules:
            faulty = dict(rule([comparisons[i] for i in left]))
            faults |= {left[place]: fault for place, fault in faulty.items()}
            left = [i for place, i in enumerate(left) if place not in faulty]
    return Cleaned(
        kept=tuple(comparisons[i] for i in left),
        taken=tuple((comparisons[i], faults[i]) for i in sorted(faults)),
    )


def taken_path(path: Path) -> Path:
    """Where what is taken out goes, beside what is kept: CLEAN.taken.jsonl beside CLEAN.jsonl."""
    return path.with_suffix(".taken.jsonl")


def write(cleaned: Cleaned, path: Path) -> None:
    """Writes both parts as JSON lines, which can be read as sources.

    Rows are `formats.to_row`'s: ids stay, and columns that a comparison has no field for do not.

    What is kept goes to `path`, what was taken out to `taken_path(path)`, where a row begins with
    the `reason` and `because_of` of its `Fault`. An empty part is an empty file. Each is written
    whole or not at all, and neither if writing one of them fails.
    """
    kept = map(formats.to_row, cleaned.kept)
    taken = (asdict(fault) | formats.to_row(comparison) for comparison, fault in cleaned.taken)
    with files.replacing(path) as draft, files.replacing(taken_path(path)) as taken_draft:
        _write_rows(draft, kept)
        _write_rows(taken_draft, taken)


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _copies(
    evaluations: Sequence[overlap.Corpus], comparisons: Sequence[Comparison]
) -> Iterator[tuple[int, Fault]]:
    """Filed as `overlap` files a match: by kind, then the most similar, then the first set."""
    corpus = overlap.Corpus(comparisons)
    best: dict[int, tuple[int, float, int, str]] = {}
    for number, evaluation in enumerate(evaluations):
        for copy in overlap.copies(evaluation, corpus):
            strength = (overlap.COPIES.index(copy.kind), -copy.similarity)
            entry = (*strength, number, copy.evaluation)
            best[copy.place] = min(best.get(copy.place, entry), entry)
    for place, (kind, _, _, evaluation_id) in best.items():
        yield place, Fault(overlap.COPIES[kind], evaluation_id)


def _unusable(comparisons: Sequence[Comparison]) -> Iterator[tuple[int, Fault]]:
    for place, comparison in enumerate(comparisons):
        if training.is_empty(comparison):
            yield place, Fault("empty")
        elif len(set(comparison.responses)) < len(comparison.responses):
            yield place, Fault("identical")
        elif comparison.is_tie:
            yield place, Fault("tie")


def _contradictions(comparisons: Sequence[Comparison]) -> Iterator[tuple[int, Fault]]:
    votes = contents.votes(comparisons)
    first: dict[Hashable, dict[tuple, int]] = collections.defaultdict(dict)
    for place, comparison in enumerate(comparisons):
        of_question = first[contents.question(comparison)]
        for pair in contents.preferences(comparison):
            of_question.setdefault(pair, place)
    for place, comparison in enumerate(comparisons):
        question = contents.question(comparison)
        others = [
            first[question][worse, better]
            for better, worse in contents.preferences(comparison)
            if votes[question][better, worse] <= votes[question][worse, better]
        ]
        if others:
            yield place, Fault("contradiction", comparisons[min(others)].id)


def _duplicates(comparisons: Sequence[Comparison]) -> Iterator[tuple[int, Fault]]:
    first: dict[Hashable, int] = {}
    for place, comparison in enumerate(comparisons):
        earlier = first.setdefault(contents.judgement(comparison), place)
        if earlier != place:
            yield place, Fault("duplicate", comparisons[earlier].id)
