"""Log-probs per token by hand, and what has no tokens."""

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison
from jaxrm.evaluate.diagnosis.language import language
from tests.evaluate.planted import pair


def test_figures_by_hand():
    comparisons = [pair("1?", "a", "b"), pair("2?", "c", "d"), pair("3?", "e", "f")]
    logps = [np.array([-4.0, -3.0]), np.array([-1.0, -2.0]), np.array([-7.0, -6.0])]
    tokens = [np.array([4, 2]), np.array([1, 1]), np.array([2, 3])]
    found = language(logps, tokens, comparisons)
    # Tokens count alike: -(4 + 1 + 7) / (4 + 1 + 2). By sum only the second is right; by token
    # the first is too: -1 against -1.5.
    assert found.token_logp.value == pytest.approx(-12 / 7)
    assert found.token_logp.n == 3
    assert found.by_sum.value == pytest.approx(1 / 3)
    assert found.by_token.value == pytest.approx(2 / 3)


def test_every_best_response_is_spoken_and_empty_ones_are_counted():
    comparisons = [
        Comparison("p", ("a", "b", "c"), ranks=(2, 1, 1)),
        Comparison("q", ("a", "b"), ranks=(0, 1)),
    ]
    logps = [np.array([-9.0, -2.0, -4.0]), np.array([0.0, -1.0])]
    found = language(logps, [np.array([1, 1, 2]), np.array([0, 1])], comparisons)
    assert found.token_logp.value == pytest.approx(-6 / 3)
    assert (found.token_logp.n, found.without_tokens) == (2, 1)
    assert found.by_sum.value == 1.0
