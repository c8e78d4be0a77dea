"""Verdicts against hand-computed values and identities, and the parsers' truth tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.losses import generation, judge, preference

finite = st.floats(-1000, 1000, width=32)


def test_the_verdict_s_cross_entropy_by_hand():
    # p(A) = .8 / (.8 + .1) = 8/9: -log(8/9) and -log(1/9); a tie is the mean of both.
    a, b = jnp.log(jnp.full(3, 0.8)), jnp.log(jnp.full(3, 0.1))
    loss = judge.verdict(a, b, jnp.array([1.0, 0.0, 0.5]))
    np.testing.assert_allclose(loss, [0.117783, 2.197225, 1.157504], atol=1e-6)


def test_the_verdict_is_bradley_terry_on_log_probs():
    a, b = jnp.array([-0.1, -3.0, -1000.0]), jnp.array([-2.5, -0.2, 0.0])
    np.testing.assert_allclose(judge.verdict(a, b, 1.0), preference.bradley_terry(a, b), rtol=1e-6)
    np.testing.assert_allclose(judge.verdict(a, b, 0.0), preference.bradley_terry(b, a), rtol=1e-6)
    np.testing.assert_allclose(
        judge.verdict(a, b, 1.0), generation.dpo_reference_free(a, b, 1.0), rtol=1e-6
    )


def test_the_verdict_s_gradient_is_probability_less_label():
    gradient = jax.grad(judge.verdict, (0, 1))
    np.testing.assert_allclose(gradient(1.0, 0.0, 1.0), (-0.268941, 0.268941), atol=1e-6)
    np.testing.assert_allclose(gradient(1.0, 0.0, 0.5), (0.231059, -0.231059), atol=1e-6)


def test_a_tie_is_least_where_the_judge_is_undecided():
    value, gradient = jax.value_and_grad(judge.verdict)(-3.0, -3.0, 0.5)
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    assert gradient == 0


@given(finite, finite, st.sampled_from([0.0, 0.3, 1.0]))
def test_values_and_gradients_stay_finite(a, b, label):
    value, gradient = jax.value_and_grad(judge.verdict)(a, b, label)
    assert np.isfinite(value)
    assert np.isfinite(gradient)


def test_both_orders_by_hand():
    # "A" is shown at odds of 8 to 1 (8/9), and after the exchange at 3 to 1 (so 1/4 for the first).
    logs = [jnp.log(jnp.float32(x)) for x in (0.8, 0.1, 0.6, 0.2)]
    np.testing.assert_allclose(judge.first_better(*logs), (8 / 9 + 1 / 4) / 2, rtol=1e-6)


@given(finite, finite, finite, finite)
def test_the_two_answers_probabilities_sum_to_one(a, b, swapped_a, swapped_b):
    first = judge.first_better(a, b, swapped_a, swapped_b)
    second = judge.first_better(swapped_a, swapped_b, a, b)
    np.testing.assert_allclose(first + second, 1, atol=1e-6)


def test_a_judge_that_hears_the_place_alone_is_undecided():
    np.testing.assert_allclose(judge.first_better(-0.1, -4.0, -0.1, -4.0), 0.5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_raised_to_float32(dtype):
    a, b = jnp.array([-255.0], dtype), jnp.array([-256.0], dtype)
    loss = judge.verdict(a, b, 1.0)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, [0.313262], atol=1e-6)
    assert judge.first_better(a, b, a, b).dtype == jnp.float32


def test_shapes_are_kept_and_must_agree():
    zeros = jnp.zeros((2, 3))
    assert judge.verdict(zeros, zeros, jnp.ones((2, 3))).shape == (2, 3)
    assert judge.first_better(zeros, zeros, zeros, zeros).shape == (2, 3)
    with pytest.raises(ValueError, match="differ"):
        judge.verdict(jnp.zeros(3), jnp.zeros((3, 1)), 1.0)


def test_jit_and_vmap_change_nothing():
    values = jnp.arange(12.0).reshape(4, 3) - 6
    labels = jnp.array([1.0, 0.0, 0.5])
    verdicts = judge.verdict(values[0], values[1], labels)
    np.testing.assert_allclose(jax.jit(judge.verdict)(values[0], values[1], labels), verdicts)
    np.testing.assert_allclose(jax.vmap(judge.verdict)(values[0], values[1], labels), verdicts)
    both = judge.first_better(*values)
    np.testing.assert_allclose(jax.jit(judge.first_better)(*values), both, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(judge.first_better)(*values), both, rtol=1e-6)


A, B = "<answer>[[A]]</answer>", "<answer>[[B]]</answer>"


@pytest.mark.parametrize(
    ("text", "for_a", "for_b"),
    [
        (f"So it is {A}", 1, -1),
        (f"So it is {B}", -1, 1),
        (f"{A} or {B}", -1, -1),
        ("no verdict", -1, -1),
        ("", -1, -1),
        (A + "." * (80 - len(A)), 1, -1),  # just within the last 80 characters
        (A + "." * (81 - len(A)), -1, -1),  # its first character is outside
        (f"{B}{'.' * 80}{A}", 1, -1),  # the other one is outside
        ("[[A]]", -1, -1),
        ("<answer>A</answer>", -1, -1),
        ("<answer>[[a]]</answer>", -1, -1),
        ("<answer> [[A]] </answer>", -1, -1),
    ],
)
def test_rm_r1_s_reward(text, for_a, for_b):
    assert judge.rm_r1_reward(text, "A") == for_a
    assert judge.rm_r1_reward(text, "B") == for_b


def test_only_two_answers_can_be_the_better_one():
    with pytest.raises(ValueError, match="'C'"):
        judge.rm_r1_reward(A, "C")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I prefer [[A]].", "A"),
        ("[[B]]", "B"),
        ("a tie: [[C]]", "C"),
        ("[[A]], as I said: [[A]]", "A"),
        ("[[A]] or [[B]]", None),
        ("[A]", None),
        ("[[D]]", None),
        ("", None),
    ],
)
def test_mt_bench_s_verdict(text, expected):
    assert judge.mt_bench_verdict(text) == expected
