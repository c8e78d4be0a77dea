"""Rotary embedding by hand; every scaling is held against transformers in test_parity."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.models.rotary import Dynamic, Linear, Llama3, Rope, turn


def _angles(rope: Rope, positions: list[int], length: int, head_dim: int):
    """What `rope` turns each position by, in radians below pi."""
    at = jnp.array([positions])
    cos, sin = rope.angles(at, jnp.full_like(at, length), head_dim)
    return np.arctan2(sin, cos)[0]


def test_halves_are_turned_by_hand():
    x = jnp.array([1.0, 0.0, 0.0, 2.0]).reshape(1, 1, 1, 4)
    at = jnp.array([[3]])
    found = turn(x, Rope(100.0).angles(at, at + 1, 4))
    # Features 0 and 2 turn by 3 radians, 1 and 3 by 3 / sqrt(100).
    expected = [np.cos(3.0), -2 * np.sin(0.3), np.sin(3.0), 2 * np.cos(0.3)]
    np.testing.assert_allclose(found[0, 0, 0], expected, rtol=1e-5)


def test_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, 1, 1, 8)).astype(np.float32)

    def turned(x: np.ndarray, position: int):
        at = jnp.array([[position]])
        return turn(jnp.asarray(x), Rope(50.0).angles(at, at + 1, 8))

    def product(i: int, j: int) -> float:
        return float((turned(q, i) * turned(k, j)).sum())

    assert product(9, 4) == pytest.approx(product(105, 100), abs=1e-4)
    assert product(9, 4) != pytest.approx(product(9, 8), abs=1e-2)


def test_linear_scaling_divides_every_turn():
    found = _angles(Rope(100.0, Linear(4.0)), [2, 3], 4, head_dim=4)
    np.testing.assert_allclose(found, [[0.5, 0.05], [0.75, 0.075]], rtol=1e-5)


def test_dynamic_scaling_goes_by_the_length_of_the_text():
    rope = Rope(100.0, Dynamic(factor=2.0, original_length=8))
    for length in (3, 8):
        np.testing.assert_allclose(_angles(rope, [1], length, 4), [[1.0, 0.1]], rtol=1e-5)
    # At twice the length: 2 * 16 / 8 - 1 = 3, and theta grows by 3 ** (4 / 2) to 900.
    np.testing.assert_allclose(_angles(rope, [1], 16, 4), [[1.0, 1 / 30]], rtol=1e-5)


def test_llama3_scaling_keeps_the_fast_and_slows_the_slow():
    # Frequencies 1, .1, .01: with 200 positions that is 31.8, 3.18 and .318 turns.
    scaling = Llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=200)
    found = _angles(Rope(1000.0, scaling), [1], 5, head_dim=6)[0]
    kept = (200 * 0.1 / (2 * math.pi) - 1) / 3
    np.testing.assert_allclose(found, [1.0, 0.1 * (kept + (1 - kept) / 8), 0.01 / 8], rtol=1e-5)


def test_only_dynamic_scaling_depends_on_the_length():
    assert Rope(1.0, Dynamic(2.0, 8)).depends_on_length
    assert not Rope(1.0, Linear(2.0)).depends_on_length
