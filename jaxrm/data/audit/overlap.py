"""Which prompts and responses of an evaluation set are also in a training set, or nearly.

Texts are compared as words: NFKC, case folded, runs of letters and digits, everything else
dropped; an ideograph is a word by itself. System messages are left out: they say how to answer, and
whole data sets share one. Raw text prompts are compared as they are.

Two documents stand for a prompt: the whole conversation, and its last user turn where that is
something else and has at least `TURN` words, so that "Yes, please." at the end of two conversations
is no copy. Prompts with the same documents are one prompt here. Each evaluation prompt is filed
under the first of these that holds for any source prompt:

- same: a document of one is a document of the other, word by word;
- near: the sets of words of two documents have a weighted Jaccard similarity (the weight of what
  they share over that of what either has) of at least `NEAR`. A word weighs log((N + 1) / n) where
  n of a set's N documents have it, the lesser of the weights in the two sets. So a template that
  fills nine tenths of every prompt weighs next to nothing, and two prompts are near if what sets
  them apart from their fellows is the same. Word sets rather than shingles of 5 words, because one
  changed word in a question of ten breaks most of those. Paraphrases and translations are not
  found. In real sets, pairs just below .8 ask for different things (the maximum, the minimum) as
  often as for the same;
- passage: the conversations share `PASSAGE` words in a row, the largest n-gram of the contamination
  analysis of GPT-3 (arXiv 2005.14165, appendix C). As there, an n-gram in more than `COMMON`
  documents (here: prompts of either set) is boilerplate and does not count. This is what finds a
  question that is quoted within a longer one; it is weaker evidence than the others. Its similarity
  is the share of the evaluation prompt's n-grams that the one source prompt has.

Responses are compared whole, word by word, if they have at least `TURN` words.

The join is exact, not MinHash: documents whose similarity reaches the threshold must share one of
the rarest words of each ("prefix filtering", Chaudhuri et al., ICDE 2006; Bayardo et al., WWW
2007), so only such pairs are compared.
"""

from __future__ import annotations

import collections
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.lib.stride_tricks import sliding_window_view

from jaxrm.data.comparison import Comparison, Conversation, plain_text

TURN = 8
"""Words that make a last turn or a response worth comparing by itself: the shortest n-gram that
GPT-3's analysis takes for more than coincidence."""
NEAR = 0.8
PASSAGE = 13
COMMON = 10

ROUNDING = 1e-12
"""Relative error of a sum of weights, on the side of comparing and reporting."""

IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"
"""Kana and Chinese characters, which no white space separates."""
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W_{IDEOGRAPHS}]+")

COPIES = ("same", "near")
KINDS = (*COPIES, "passage")

Pairs = Iterator[tuple[int, int, float]]
"""(evaluation item, source item, similarity)"""


@dataclass(frozen=True)
class Match:
    """An evaluation prompt and the source prompt that is most like it.

    Attributes:
        kind: one of `KINDS`, the first that holds.
        similarity: 1 for the same, else as the kind defines it.
        evaluation, source: ids of the first comparison with each prompt.
        evaluation_text, source_text: the two documents (conversations, for a passage) as words.
    """

    kind: str
    similarity: float
    evaluation: str
    source: str
    evaluation_text: str
    source_text: str


@dataclass(frozen=True)
class Copy:
    """A source comparison whose prompt is the same as an evaluation prompt, or near it.

    Attributes:
        place: among the source's comparisons, from 0.
        source: its id.
        kind: one of `COPIES`, the first that holds.
        similarity: as of a `Match`.
        evaluation: id of the first comparison with the evaluation prompt that is most like its own.
    """

    place: int
    source: str
    kind: str
    similarity: float
    evaluation: str


@dataclass(frozen=True)
class Overlap:
    """What an evaluation set shares with the source.

    Attributes:
        prompts: distinct evaluation prompts.
        wordless: comparisons whose prompt has no word, so that it is compared with nothing.
        matches: one for each prompt that has any, by kind, the most similar first.
        touched: ids of the evaluation comparisons whose prompt has a match.
        copies: the source comparisons whose prompt is the same as or near an evaluation prompt, in
            order.
        responses: distinct evaluation responses that are long enough to compare.
        shared_responses: those of them that are a response in the source.
    """

    prompts: int
    wordless: int
    matches: tuple[Match, ...]
    touched: tuple[str, ...]
    copies: tuple[Copy, ...]
    responses: int
    shared_responses: int


class Corpus:
    """The distinct prompts of some comparisons as documents, and their responses.

    Attributes:
        ids: of the comparisons.
        rows: by prompt, the places of its comparisons.
        conversations: by prompt, the words of its whole conversation, joined by spaces.
        documents: each distinct document, in the same form, and the prompts it stands for.
        responses: the distinct ones of at least TURN words, in the same form.
        wordless: comparisons whose prompt has no word; it is in none of the above.
    """

    def __init__(self, comparisons: Sequence[Comparison]):
        self.ids = [comparison.id for comparison in comparisons]
        places: dict[Conversation | str, list[int]] = collections.defaultdict(list)
        for i, comparison in enumerate(comparisons):
            places[comparison.prompt].append(i)
        rows: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
        for prompt, of_prompt in places.items():
            rows[_documents(prompt)] += of_prompt
        self.wordless = len(rows.pop(("", ""), []))
        self.rows = list(rows.values())
        self.conversations = [conversation for conversation, _ in rows]
        self.documents: dict[str, list[int]] = collections.defaultdict(list)
        for prompt, (conversation, last_turn) in enumerate(rows):
            for document in {conversation, last_turn} - {""}:
                self.documents[document].append(prompt)
        responses = {response for comparison in comparisons for response in comparison.responses}
        in_words = (words(plain_text(response)) for response in responses)
        self.responses = {" ".join(response) for response in in_words if len(response) >= TURN}

    def first_id(self, prompt: int) -> str:
        """The id of the first comparison with this prompt."""
        return self.ids[self.rows[prompt][0]]


def overlap(evaluation: Corpus, source: Corpus) -> Overlap:
    """What the prompts and responses of `evaluation` share with those of `source`."""
    best: dict[int, _Likeness] = {}
    copied: dict[int, _Likeness] = {}
    for likeness in _alike(evaluation, source):
        _keep_strongest(best, likeness.evaluation, likeness)
        _keep_strongest(copied, likeness.source, likeness)
    for likeness in _quoting(evaluation, source):
        _keep_strongest(best, likeness.evaluation, likeness)
    matches = [
        Match(
            KINDS[likeness.kind],
            -likeness.loss,
            evaluation.first_id(likeness.evaluation),
            source.first_id(likeness.source),
            *likeness.texts,
        )
        for likeness in sorted(best.values())
    ]
    touched = sorted(row for prompt in best for row in evaluation.rows[prompt])
    return Overlap(
        prompts=len(evaluation.rows),
        wordless=evaluation.wordless,
        matches=tuple(matches),
        touched=tuple(evaluation.ids[row] for row in touched),
        copies=_copies(copied, evaluation, source),
        responses=len(evaluation.responses),
        shared_responses=len(evaluation.responses & source.responses),
    )


def copies(evaluation: Corpus, source: Corpus) -> tuple[Copy, ...]:
    """Those of their `overlap`, without looking for passages."""
    copied: dict[int, _Likeness] = {}
    for likeness in _alike(evaluation, source):
        _keep_strongest(copied, likeness.source, likeness)
    return _copies(copied, evaluation, source)


def words(text: str) -> list[str]:
    """The words by which texts are compared."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def near_pairs(evaluation: Sequence[str], source: Sequence[str], threshold: float = NEAR) -> Pairs:
    """All pairs of documents whose weighted Jaccard similarity reaches the threshold.

    Args:
        evaluation, source: distinct documents, as words joined by spaces.
        threshold: above 0.
    """
    if not evaluation or not source:
        return
    vocabulary: dict[str, int] = {}
    sets = [
        [_numbers(dict.fromkeys(text.split()), vocabulary) for text in part]
        for part in (evaluation, source)
    ]
    weights = np.full(len(vocabulary), np.inf)
    for part in sets:
        having = np.bincount(np.concatenate(part), minlength=len(vocabulary))
        weights = np.minimum(weights, np.log((len(part) + 1) / np.maximum(having, 1)))
    # Columns from the heaviest word to the lightest, so that a row begins with its rarest words.
    order = np.argsort(-weights, kind="stable")
    column, weights = np.argsort(order), weights[order]
    ours, theirs = (_incidence([column[row] for row in part], len(weights)) for part in sets)
    our_sums, their_sums = ours @ weights, theirs @ weights
    their_prefixes = _prefixes(theirs, weights, threshold).T.tocsr()
    our_prefixes = _prefixes(ours, weights, threshold)
    for start in range(0, len(evaluation), 256):  # bounds the memory that candidates take
        candidates = (our_prefixes[start : start + 256] @ their_prefixes).tocoo()
        i, j = candidates.row + start, candidates.col
        lesser, greater = np.sort([our_sums[i], their_sums[j]], axis=0)
        plausible = lesser >= threshold * greater * (1 - ROUNDING)
        i, j = i[plausible], j[plausible]
        shared = ours[i].multiply(theirs[j]) @ weights
        similarity = shared / (our_sums[i] + their_sums[j] - shared)
        for place in np.flatnonzero(similarity >= threshold - ROUNDING):
            yield int(i[place]), int(j[place]), float(similarity[place])


def passage_pairs(evaluation: Sequence[str], source: Sequence[str]) -> Pairs:
    """All pairs of conversations that share an n-gram of PASSAGE words that is not boilerplate.

    The similarity is the share of the evaluation conversation's n-grams, boilerplate aside.
    """
    vocabulary: dict[str, int] = {}
    numbers = [_numbers(text.split(), vocabulary) for text in (*evaluation, *source)]
    random = np.random.default_rng(0)
    codes = random.integers(2**64, size=len(vocabulary), dtype=np.uint64)
    factors = random.integers(2**64, size=PASSAGE, dtype=np.uint64) | np.uint64(1)

    def hashes(row: np.ndarray) -> np.ndarray:
        """Of the distinct n-grams: 64 bits, so that no two of any corpus at hand collide."""
        if len(row) < PASSAGE:
            return np.zeros(0, np.uint64)
        return np.unique(sliding_window_view(codes[row], PASSAGE) @ factors)

    grams = [np.zeros(0, np.uint64), *map(hashes, numbers)]
    distinct, inverse = np.unique(np.concatenate(grams), return_inverse=True)
    rows = np.split(inverse, np.cumsum([len(row) for row in grams])[:-1])[1:]
    matrix = _incidence(rows, len(distinct))
    ours, theirs = matrix[: len(evaluation)], matrix[len(evaluation) :]
    rare = (ours.sum(axis=0) <= COMMON) & (theirs.sum(axis=0) <= COMMON)
    ours, theirs = ours[:, rare], theirs[:, rare]
    of_ours = ours.sum(axis=1)
    shared = (ours @ theirs.T).tocoo()
    for i, j, count in zip(shared.row, shared.col, shared.data, strict=True):
        yield int(i), int(j), float(count / of_ours[i])


class _Likeness(NamedTuple):
    """What two prompts share; the strongest is the least.

    Attributes:
        kind: its place in KINDS.
        loss: the similarity, negated.
        evaluation, source: the prompts.
        texts: the two documents that are alike.
    """

    kind: int
    loss: float
    evaluation: int
    source: int
    texts: tuple[str, str]


def _alike(evaluation: Corpus, source: Corpus) -> Iterator[_Likeness]:
    """All pairs of prompts with documents that are the same or near each other."""
    ours, theirs = list(evaluation.documents), list(source.documents)
    for i, j, similarity in near_pairs(ours, theirs):
        kind = KINDS.index("same" if ours[i] == theirs[j] else "near")
        prompts = evaluation.documents[ours[i]], source.documents[theirs[j]]
        for pair in itertools.product(*prompts):
            yield _Likeness(kind, -similarity, *pair, (ours[i], theirs[j]))


def _quoting(evaluation: Corpus, source: Corpus) -> Iterator[_Likeness]:
    """All pairs of prompts that share a passage."""
    ours, theirs = evaluation.conversations, source.conversations
    for i, j, similarity in passage_pairs(ours, theirs):
        yield _Likeness(KINDS.index("passage"), -similarity, i, j, (ours[i], theirs[j]))


def _keep_strongest(best: dict[int, _Likeness], prompt: int, likeness: _Likeness) -> None:
    best[prompt] = min(best.get(prompt, likeness), likeness)


def _copies(
    copied: Mapping[int, _Likeness], evaluation: Corpus, source: Corpus
) -> tuple[Copy, ...]:
    """The comparisons of source prompts, each with its strongest likeness."""
    unsorted = [
        Copy(
            place,
            source.ids[place],
            KINDS[likeness.kind],
            -likeness.loss,
            evaluation.first_id(likeness.evaluation),
        )
        for prompt, likeness in copied.items()
        for place in source.rows[prompt]
    ]
    return tuple(sorted(unsorted, key=lambda copy: copy.place))


def _documents(prompt: Conversation | str) -> tuple[str, str]:
    """A prompt's conversation, and its last user turn or "" where that is no document."""
    if isinstance(prompt, str):
        return " ".join(words(prompt)), ""
    turns = [message for message in prompt if message.role != "system"]
    conversation = words(plain_text(turns))
    last = words(next((m.content for m in reversed(turns) if m.role == "user"), ""))
    by_itself = TURN <= len(last) < len(conversation)
    return " ".join(conversation), " ".join(last) if by_itself else ""


def _numbers(text: Iterable[str], vocabulary: dict[str, int]) -> np.ndarray:
    """Int [words]: each word's place in the vocabulary, which grows as it must."""
    return np.array([vocabulary.setdefault(word, len(vocabulary)) for word in text], np.int64)


def _incidence(rows: Sequence[np.ndarray], columns: int) -> scipy.sparse.csr_array:
    """Int [rows, columns]: 1 where a row has the column, columns in order within each row."""
    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    indices = np.concatenate([np.zeros(0, np.int64), *rows])
    ones = np.ones(len(indices), np.int64)
    matrix = scipy.sparse.csr_array((ones, indices, ends), shape=(len(rows), columns))
    matrix.sort_indices()
    return matrix


def _prefixes(
    matrix: scipy.sparse.csr_array, weights: np.ndarray, threshold: float
) -> scipy.sparse.csr_array:
    """Each row without the light words at its end that weigh less than `threshold` of it.

    What a row shares with a similar one weighs at least `threshold` of it, so that it cannot all
    lie in what is cut off: the rarest shared word is left in both.
    """
    running = np.concatenate([[0.0], np.cumsum(weights[matrix.indices])])
    lengths = np.diff(matrix.indptr)
    whole = np.repeat(np.diff(running[matrix.indptr]), lengths)
    from_here = np.repeat(running[matrix.indptr[1:]], lengths) - running[:-1]
    kept = from_here >= threshold * whole - ROUNDING * running[-1]
    prefix = matrix.copy()
    prefix.data = kept.astype(np.int64)
    prefix.eliminate_zeros()
    return prefix
