"""What is in a list of comparisons: counts, contradictions among the labels, and lengths.

Rows that cannot teach a preference are counted here, each under every heading that it falls under;
`jaxrm.data.training` drops them, each under one, and `jaxrm.data.audit.cleaning` writes the rest.
"""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import scipy.sparse

from jaxrm.data.comparison import Comparison, Conversation, has_blank
from jaxrm.data.packing import TokenTree
from jaxrm.data.tally import LIMITS
from jaxrm.data.training import too_long_for

QUANTILES = (5, 25, 50, 75, 95, 99, 100)

Votes = dict[Hashable, collections.Counter]
"""By `question`: how many comparisons ranked a response (first of the key) above another."""


def question(comparison: Comparison) -> Hashable:
    """What the responses answer: the labels of comparisons of one question can be compared."""
    return comparison.prompt, json.dumps(comparison.tools, sort_keys=True)


def judgement(comparison: Comparison) -> Hashable:
    """What a comparison says: the same responses to the same question, in the same order of
    preference, whatever order they are listed in. Duplicates are equal in it."""
    return question(comparison), frozenset(collections.Counter(_labelled(comparison)).items())


def preferences(comparison: Comparison) -> set[tuple[Hashable, Hashable]]:
    """(better, worse) for every ordered pair of a comparison's different responses."""
    labelled = [] if comparison.ranks is None else list(_labelled(comparison))
    pairs = itertools.permutations(labelled, 2)
    return {(a, b) for (a, above), (b, below) in pairs if above < below and a != b}


def votes(comparisons: Iterable[Comparison]) -> Votes:
    """One vote of each comparison for each of its `preferences`."""
    counted: Votes = collections.defaultdict(collections.Counter)
    for comparison in comparisons:
        counted[question(comparison)].update(preferences(comparison))
    return counted


def count(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """How many comparisons there are, of how many prompts, and how many are of each kind.

    The keys, in order; all but the first two count comparisons:

    - comparisons; prompts: distinct ones, character by character, system message included;
    - raw_text: no messages; system: with a system message; multi_turn: with two or more user turns;
    - unranked: no order known; single: one response; tie: ranks, but no two that differ;
    - identical_responses: two responses that are the same; empty_responses, empty_prompts: a
      response, or a user or assistant message of the prompt, of white space alone;
    - duplicates: the same `judgement` as an earlier row.
    """
    chats = [c for c in comparisons if not isinstance(c.prompt, str)]
    return {
        "comparisons": len(comparisons),
        "prompts": len({c.prompt for c in comparisons}),
        "raw_text": len(comparisons) - len(chats),
        "system": sum(any(m.role == "system" for m in c.prompt) for c in chats),
        "multi_turn": sum(sum(m.role == "user" for m in c.prompt) > 1 for c in chats),
        "unranked": sum(c.ranks is None for c in comparisons),
        "single": sum(len(c.responses) == 1 for c in comparisons),
        "tie": sum(c.is_tie for c in comparisons),
        "identical_responses": sum(len(set(c.responses)) < len(c.responses) for c in comparisons),
        "empty_responses": sum(any(map(has_blank, c.responses)) for c in comparisons),
        "empty_prompts": sum(has_blank(c.prompt) for c in chats),
        "duplicates": len(comparisons) - len(set(map(judgement, comparisons))),
    }


def histograms(comparisons: Sequence[Comparison]) -> dict[str, dict[str, int]]:
    """Comparisons by number of `responses`, and by `subset` in order of appearance."""
    sizes = sorted(collections.Counter(len(c.responses) for c in comparisons).items())
    return {
        "responses": {str(size): n for size, n in sizes},
        "subsets": dict(collections.Counter(c.subset for c in comparisons)),
    }


def consistency(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """How far the labels of one question agree, over all its comparisons.

    Two responses are a pair where some comparison ranks one above the other; the same text is one
    response. A pair points where the majority of its comparisons does, and nowhere if they balance.

    Returns:
        pairs: distinct ones; contradicted_pairs: those ranked both ways; in_contradiction: the
        comparisons that hold such a pair; triples: of responses whose three pairs all point
        somewhere; intransitive_triples: those that go in a circle (a > b > c > a), and
        intransitive_prompts: the prompts that have one.
    """
    counted = votes(comparisons)
    tallies = [_consistency(of_question) for of_question in counted.values()]
    in_contradiction = sum(
        any((b, a) in counted[question(c)] for a, b in preferences(c)) for c in comparisons
    )
    pairs, contradicted, triples, circles = (sum(column) for column in zip(*tallies, strict=True))
    return {
        "pairs": pairs,
        "contradicted_pairs": contradicted,
        "in_contradiction": in_contradiction,
        "triples": triples,
        "intransitive_triples": circles,
        "intransitive_prompts": sum(circles > 0 for *_, circles in tallies),
    }


def characters(comparisons: Sequence[Comparison]) -> dict[str, dict[str, int]]:
    """Quantiles of lengths in characters: the contents of messages, without their roles."""
    prompts = [_characters(c.prompt) for c in comparisons]
    responses = [[_characters(response) for response in c.responses] for c in comparisons]
    return _lengths(comparisons, prompts, responses)


def tokens(
    comparisons: Sequence[Comparison], trees: Sequence[TokenTree]
) -> dict[str, dict[str, int]]:
    """Quantiles of lengths in tokens: the prompt is what all its responses share."""
    prompts = [len(tree.prompt) for tree in trees]
    responses = [[len(branch.tokens) for branch in tree.branches] for tree in trees]
    return _lengths(comparisons, prompts, responses)


def too_long(trees: Sequence[TokenTree], max_length: int, row_length: int) -> dict[str, list[int]]:
    """The places of comparisons that training would drop for their length, under the first reason
    that holds.

    over-length: a prompt and response of more than `max_length` tokens together; over-row: a prompt
    with all its responses of more than `row_length`.
    """
    reasons = [too_long_for(tree, max_length, row_length) for tree in trees]
    return {limit: [i for i, reason in enumerate(reasons) if reason == limit] for limit in LIMITS}


def _lengths(
    comparisons: Sequence[Comparison], prompts: Sequence[int], responses: Sequence[Sequence[int]]
) -> dict[str, dict[str, int]]:
    """n and quantiles of each part that occurs; responses without an order are a part of theirs."""
    parts = collections.defaultdict(list, {"prompt": list(prompts)})
    whole = [p + n for p, lengths in zip(prompts, responses, strict=True) for n in lengths]
    for comparison, lengths in zip(comparisons, responses, strict=True):
        ranks = comparison.ranks
        has_order = ranks is not None and len(set(ranks)) > 1
        for k, length in enumerate(lengths):
            part = ("best" if ranks[k] == min(ranks) else "others") if has_order else "unordered"
            parts[part].append(length)
    parts["prompt + response"] = whole
    return {part: _quantiles(values) for part, values in parts.items()}


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    """n and quantiles that are lengths of the data, not means of two."""
    lengths = np.percentile(values, QUANTILES, method="inverted_cdf")
    return {"n": len(values)} | {
        "max" if q == 100 else f"{q}%": int(value)
        for q, value in zip(QUANTILES, lengths, strict=True)
    }


def _characters(text: Conversation | str) -> int:
    return len(text) if isinstance(text, str) else sum(len(message.content) for message in text)


def _labelled(comparison: Comparison) -> Iterable[tuple[Conversation | str, int | None]]:
    """Each response with its place: ranks 0, 3, 3 and 1, 2, 2 say the same."""
    if comparison.ranks is None:
        return ((response, None) for response in comparison.responses)
    places = {rank: place for place, rank in enumerate(sorted(set(comparison.ranks)))}
    ranks = (places[rank] for rank in comparison.ranks)
    return zip(comparison.responses, ranks, strict=True)


def _consistency(wins: collections.Counter) -> tuple[int, int, int, int]:
    """Pairs, contradicted pairs, triples and intransitive triples of one question."""
    pairs = {frozenset(pair) for pair in wins}
    edges = [(a, b) for a, b in wins if wins[a, b] > wins[b, a]]
    contradicted = len(wins) - len(pairs)
    if len(edges) < 3:
        return len(pairs), contradicted, 0, 0
    nodes = {response: i for i, response in enumerate(dict.fromkeys(itertools.chain(*edges)))}
    ends = np.array([(nodes[a], nodes[b]) for a, b in edges])
    shape = (len(nodes), len(nodes))
    directed = scipy.sparse.csr_array((np.ones(len(edges), int), ends.T), shape=shape)
    undirected = directed + directed.T
    # A walk of three steps that ends where it began is a triple, once per corner and direction.
    circles = int((directed @ directed).multiply(directed.T).sum()) // 3
    triples = int((undirected @ undirected).multiply(undirected).sum()) // 6
    return len(pairs), contradicted, triples, circles
