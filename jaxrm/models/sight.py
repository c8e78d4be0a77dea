"""Who sees whom in a row of token trees.

Nothing here goes by a token's index in its row: what a token sees is decided by comparison, branch
and position alone (see `jaxrm.data.packing`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxrm.data.packing import PackedBatch

# Finite, so that what a padding token gets, which sees nothing, is finite too.
MASKED = -1e30
"""The logit of what is not seen."""


class Tokens(NamedTuple):
    """What decides who sees whom, of any tokens.

    Attributes:
      comparison, branch, position: int, of one shape, as in a `PackedBatch`.
    """

    comparison: Int[Array, "*n"]
    branch: Int[Array, "*n"]
    position: Int[Array, "*n"]

    @classmethod
    def of(cls, batch: PackedBatch) -> Tokens:
        """Those of a batch, [rows, length]."""
        return cls(*map(jnp.asarray, (batch.comparison, batch.branch, batch.positions)))

    def see(
        self, keys: Tokens, window: int | Int[Array, ""] | None = None
    ) -> Bool[Array, "*m queries keys"]:
        """Whether each of these tokens sees each of those: own comparison, prompt or own branch,
        no later position, and within the window."""
        query, key = (..., slice(None), None), (..., None, slice(None))
        same = self.comparison[query] == keys.comparison[key]
        seen = same & (keys.comparison[key] >= 0)
        seen &= (keys.branch[key] == 0) | (keys.branch[key] == self.branch[query])
        back = self.position[query] - keys.position[key]
        seen &= back >= 0
        return seen if window is None else seen & (back < window)
