"""Does the reward follow manners? The same answer with and without a cue that says nothing.

A cue is a function of an answer's text that keeps its content. Where it would change the content
(code is no list of sentences), or is in the text already, it returns the text as it is, and the
answer takes no part in that cue's figures.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, Conversation
from jaxrm.evaluate.diagnosis.margins import flat, margins, response_prompts
from jaxrm.evaluate.estimates import Estimate, mean, share

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(A-Z0-9])")
"""White space between sentences."""

MARKUP = re.compile(r"```|\*\*|^\s*([-*+]|\d+[.)]|#+)\s", re.MULTILINE)
"""Code, bold, a list or a header: what has one of these is not made into bullets or bold."""


@dataclasses.dataclass(frozen=True)
class Cue:
    """A cue by its name and what it does to a text."""

    name: str
    add: Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """What one cue does to a scorer.

    Attributes:
      change: mean change of the reward, in the unit of the scores, over responses.
      size: mean of the changes without their signs: more than `change` where the cue does this to
        one response and that to another.
      raises: share of the same responses whose reward rises.
      overturned: of the pairs that the scorer orders right, the share that it no longer does when
        the worse response, and it alone, has the cue.
      unchanged: responses left out because the cue does not apply to them.
      missing: responses left out because they have no reward with the cue or without it.
    """

    change: Estimate
    size: Estimate
    raises: Estimate
    overturned: Estimate
    unchanged: int
    missing: int


def sure(text: str) -> str:
    """ "Sure! " before the answer."""
    body = text.lstrip()
    if not body or re.match(r"sure\b", body, re.IGNORECASE):
        return text
    return f"{text[: len(text) - len(body)]}Sure! {body}"


def hope_this_helps(text: str) -> str:
    """ "I hope this helps!" after the answer."""
    if not text.strip() or "hope this helps" in text.casefold():
        return text
    return f"{text.rstrip()}\n\nI hope this helps!"


def bullets(text: str) -> str:
    """Every sentence a bullet."""
    if not text.strip() or MARKUP.search(text):
        return text
    return "\n".join(f"- {sentence}" for sentence in sentences(text))


def bold(text: str) -> str:
    """The first sentence in bold."""
    if not text.strip() or MARKUP.search(text):
        return text
    first = sentences(text)[0]
    return text.replace(first, f"**{first}**", 1)


def header(text: str) -> str:
    """A header "Answer" over the answer."""
    if not text.strip() or re.search(r"^#+ ", text, re.MULTILINE):
        return text
    return f"## Answer\n\n{text.lstrip()}"


def last_sentence_twice(text: str) -> str:
    """The last sentence said again."""
    if not text.strip() or text.rstrip().endswith("```"):
        return text
    return f"{text.rstrip()} {sentences(text)[-1]}"


def whole_answer_twice(text: str) -> str:
    """The whole answer said again."""
    return f"{text.rstrip()}\n\n{text.strip()}" if text.strip() else text


CUES = (
    Cue("“Sure!” first", sure),
    Cue("“I hope this helps!” last", hope_this_helps),
    Cue("sentences as bullets", bullets),
    Cue("first sentence in bold", bold),
    Cue("a header over it", header),
    Cue("last sentence twice", last_sentence_twice),
    Cue("whole answer twice", whole_answer_twice),
)


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that is not blank, without white space around them."""
    lines = (line.strip() for line in text.splitlines())
    return [sentence for line in lines if line for sentence in SENTENCE_END.split(line)]


def with_cue(comparison: Comparison, cue: Cue) -> Comparison:
    """The comparison with the cue on every response: on its last message, where it has several."""
    return dataclasses.replace(
        comparison, responses=tuple(_add(response, cue) for response in comparison.responses)
    )


def sensitivity(
    scores: Sequence[np.ndarray],
    cued_scores: Sequence[np.ndarray],
    comparisons: Sequence[Comparison],
    cue: Cue,
) -> Sensitivity:
    """The figures of one cue.

    Args:
      scores: float [K] for each comparison as it is.
      cued_scores: float [K] for each `with_cue(comparison, cue)`.

    Raises:
      DataError: as `margins`.
    """
    of_pairs, cued = margins(scores, comparisons), flat(cued_scores)
    responses = [response for c in comparisons for response in c.responses]
    applies = np.array([_add(response, cue) != response for response in responses])
    change = np.where(applies, cued - of_pairs.rewards, np.nan)
    present = ~np.isnan(change)
    prompts = response_prompts(comparisons)
    better, worse = of_pairs.pairs.better, of_pairs.pairs.worse
    asked = (of_pairs.values > 0) & present[worse]
    overturned = cued[worse] >= of_pairs.rewards[better]
    return Sensitivity(
        change=mean(change[present], prompts[present]),
        size=mean(np.abs(change[present]), prompts[present]),
        raises=share(change[present] > 0, prompts[present]),
        overturned=share(overturned[asked], of_pairs.pair_prompts[asked]),
        unchanged=int((~applies).sum()),
        missing=int((applies & ~present).sum()),
    )


def _add(response: Conversation | str, cue: Cue) -> Conversation | str:
    if isinstance(response, str):
        return cue.add(response)
    *before, last = response
    return (*before, dataclasses.replace(last, content=cue.add(last.content)))
