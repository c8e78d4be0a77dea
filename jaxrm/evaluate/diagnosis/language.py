"""What is left of a reward model's ability to write: the log-probs of its language-model head."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrm.data.comparison import Comparison
from jaxrm.evaluate.diagnosis.margins import flat, margins, response_prompts
from jaxrm.evaluate.estimates import Estimate, estimate, share


@dataclasses.dataclass(frozen=True)
class Language:
    """A language-model head on some comparisons.

    Attributes:
      token_logp: mean log-prob of a token of the best responses, in nats; every token counts alike.
      by_sum: strict accuracy of ordering responses by their summed log-prob.
      by_token: the same by log-prob per token, for which long responses are not at a disadvantage.
      without_tokens: best responses that have no token to predict.
    """

    token_logp: Estimate
    by_sum: Estimate
    by_token: Estimate
    without_tokens: int


def language(
    logps: Sequence[np.ndarray], tokens: Sequence[np.ndarray], comparisons: Sequence[Comparison]
) -> Language:
    """The figures of a language-model head.

    Args:
      logps: float [K] for each comparison, sums over a response's tokens: `heads.response_logps`.
      tokens: int [K], how many tokens those are.

    Raises:
      DataError: as `margins`.
    """
    summed, count = flat(logps), np.concatenate(tokens)
    best = np.concatenate([np.array(c.ranks) == min(c.ranks) for c in comparisons])
    spoken = best & (count > 0) & ~np.isnan(summed)

    def per_token(weight: np.ndarray) -> float:
        total = weight @ count[spoken]
        return float(weight @ summed[spoken] / total) if total else np.nan

    by_sum = margins(logps, comparisons)
    averages = [sums / np.maximum(n, 1) for sums, n in zip(logps, tokens, strict=True)]
    by_token = margins(averages, comparisons)
    return Language(
        token_logp=estimate(per_token, response_prompts(comparisons)[spoken]),
        by_sum=share(by_sum.share(by_sum.values > 0), by_sum.prompts),
        by_token=share(by_token.share(by_token.values > 0), by_token.prompts),
        without_tokens=int((best & (count == 0)).sum()),
    )
