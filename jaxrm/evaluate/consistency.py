"""Contrast Instructions (arXiv 2309.16155) out of any set of comparisons.

A reward model that hears the prompt must prefer a good answer to this question over a good answer
to a similar one, and prefer an answer under its own question. Any preference data holds the means
to ask: prompts that are alike, and the best response to each.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxrm.data.comparison import Comparison, Conversation
from jaxrm.evaluate.similar import HIGH, LOW, Embed, best_response, borrowed, tf_idf


def contrast_instructions(
    comparisons: Sequence[Comparison],
    *,
    embed: Embed = tf_idf,
    low: float = LOW,
    high: float = HIGH,
) -> list[Comparison]:
    """Items of a query q and the most similar other prompt q', in two comparisons each.

    With y_q and y_q' the best responses to the two, an item is

    - "<item>/q": the prompt q, the responses (y_q, y_q'), ranks (0, 1);
    - "<item>/r": the prompt q', the responses (y_q', y_q), ranks (0, 1),

    one after the other. That is all that both metrics need: C_res asks for R(q, y_q) > R(q, y_q'),
    C_ins for R(q, y_q) > R(q', y_q), the first reward of "/q" against the second of "/r".

    Args:
      comparisons: with ranks, all of messages or all of raw text.
      embed, low, high: what is similar, as for `similar.borrowed`.

    Returns:
      Two comparisons for each distinct prompt that has a similar one with another best response,
      in order. The item is the id of the prompt's first comparison where all of those have one of
      their own, else its number.

    Raises:
      DataError: as `similar.borrowed`.
    """
    first: dict[Conversation | str, Comparison] = {}
    for comparison in comparisons:
        first.setdefault(comparison.prompt, comparison)
    queries = list(first.values())
    ids = [query.id for query in queries]
    if "" in ids or len(set(ids)) < len(ids):
        ids = [str(i) for i in range(len(queries))]
    lent = borrowed(queries, 1, embed=embed, low=low, high=high)
    return [
        comparison
        for query, item, places in zip(queries, ids, lent, strict=True)
        for place in places
        for comparison in _both_ways(query, queries[place], item)
    ]


def _both_ways(query: Comparison, similar: Comparison, item: str) -> tuple[Comparison, Comparison]:
    answer, other = best_response(query), best_response(similar)
    fields = {"subset": query.subset, "where": query.where}
    return (
        Comparison.pair(query.prompt, answer, other, id=f"{item}/q", **fields),
        Comparison.pair(similar.prompt, other, answer, id=f"{item}/r", **fields),
    )
