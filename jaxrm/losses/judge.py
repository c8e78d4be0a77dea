"""Generative judges: a language model reads two answers, and its verdict is the next token.

A verdict is the token "A" (the first answer shown is better) or "B". That is a comparison of two
one-token responses to a prompt which holds the question and both answers, so the log-probs of the
two are what `heads.response_logps` gives, and the judge is trained by `verdict`. Judges lean
towards a place (Zheng et al., arXiv 2306.05685), so a pair is shown in both orders and the two
answers are averaged: `first_better`.

Critique-out-loud (arXiv 2408.11791) needs nothing of its own: the answer is followed by a critique,
whose tokens take a language-model loss (`generation.nll`), and the reward is read at its end, where
it takes a preference loss; two terms on one trunk.

Arrays in, per-example float32 arrays out; masks, weights and means belong to the caller. The last
two functions read verdicts off what a judge wrote: they take text, and stand here because
`rm_r1_reward` is the objective of a judge that is trained by reinforcement learning.
"""

from __future__ import annotations

import re
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

TAIL = 80
"""Characters at a judgment's end in which RM-R1 looks for the verdict."""


def verdict(
    logps_a: Float[Array, "*n"],
    logps_b: Float[Array, "*n"],
    first_is_better: Float[Array, "*n"] | float,
) -> Float[Array, "*n"]:
    """The cross-entropy of a verdict, of which there are two: "A" and "B".

    -t log p - (1 - t) log(1 - p), with p the softmax of the two log-probs at "A" and t the label.
    It is Bradley-Terry on the log-probs. Other tokens take no part, so that a judge whose verdict
    is sampled needs `generation.nll` of the right one (RM-R1's first stage) to say "A" or "B" at
    all.

    Args:
      logps_a: log-probs of the verdict "A", any shape.
      logps_b: of "B", same shape.
      first_is_better: 1 where the answer shown first is the better one, 0 where it is the other,
        between them for a label in doubt; .5 is a tie.

    Returns:
      Per-example loss, float32.
    """
    difference = _difference(logps_a, logps_b)
    label = jnp.asarray(first_is_better, jnp.float32)
    return label * jax.nn.softplus(-difference) + (1 - label) * jax.nn.softplus(difference)


def first_better(
    logps_a: Float[Array, "*n"],
    logps_b: Float[Array, "*n"],
    swapped_logps_a: Float[Array, "*n"],
    swapped_logps_b: Float[Array, "*n"],
) -> Float[Array, "*n"]:
    """How likely a judge finds the first of two answers better, over both orders.

    (p + 1 - p') / 2, where p is the probability of "A" among the two verdicts, and p' that of
    "A" with the answers exchanged (SSRM, arXiv 2409.06903). With the answers exchanged in the
    arguments too, the two probabilities sum to 1: no place is preferred.

    Args:
      logps_a, logps_b: log-probs of the verdicts where the first answer is shown first.
      swapped_logps_a, swapped_logps_b: where it is shown second, so that "B" is for it.

    Returns:
      Float32 in [0, 1].
    """
    shown = jax.nn.sigmoid(_difference(logps_a, logps_b))
    return (shown + jax.nn.sigmoid(_difference(swapped_logps_b, swapped_logps_a))) / 2


def rm_r1_reward(text: str, better: Literal["A", "B"]) -> float:
    """RM-R1's reward of a judgment (arXiv 2505.02387): 1 for the right verdict, else -1.

    Right is `<answer>[[A]]</answer>` (or B) letter by letter within the last `TAIL` characters,
    without the other one there.

    Raises ValueError where `better` is not "A" or "B".
    """
    if better not in ("A", "B"):
        raise ValueError(f"the better answer must be 'A' or 'B', not {better!r}")
    answers = {answer for answer in "AB" if f"<answer>[[{answer}]]</answer>" in text[-TAIL:]}
    return 1.0 if answers == {better} else -1.0


def mt_bench_verdict(text: str) -> Literal["A", "B", "C"] | None:
    """The verdict of a judgment in MT-Bench's form (arXiv 2306.05685): [[A]], [[B]], or [[C]] for a
    tie.

    None where there is none, or where several differ. (MT-Bench's own script takes the first of A,
    B and C that occurs anywhere, so that a judgment which names both is for A.)
    """
    verdicts = set(re.findall(r"\[\[([ABC])\]\]", text))
    return verdicts.pop() if len(verdicts) == 1 else None


def _difference(a: Float[Array, "*n"], b: Float[Array, "*n"]) -> Float[Array, "*n"]:
    if jnp.shape(a) != jnp.shape(b):
        raise ValueError(f"log-probs of the two verdicts differ: {jnp.shape(a)} and {jnp.shape(b)}")
    return jnp.asarray(a, jnp.float32) - jnp.asarray(b, jnp.float32)
