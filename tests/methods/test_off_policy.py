"""Density-ratio weights against hand-computed values, and on their way into a loss."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data import packing
from jaxrm.data.carried import Column
from jaxrm.data.packing import Branch, PackShape, TokenTree
from jaxrm.errors import OptionError
from jaxrm.losses import preference
from jaxrm.methods import off_policy
from jaxrm.train.terms import Term, total_weight, weighted_sum

BOTH = [off_policy.log_ratios, off_policy.relative_log_ratios]


@pytest.mark.parametrize(
    ("policy", "sft", "plain", "relative"),
    [
        (-10.0, -12.0, 2.0, 1.505971),
        (-12.0, -10.0, -2.0, -1.909565),
        (-500.0, -900.0, 400.0, 2.302585),
        (
            -900.0,
            -500.0,
            -400.0,
            -399.894639,
        ),  # .9 of SFT's probability is log .9 less to divide by
    ],
)
def test_by_hand(policy, sft, plain, relative):
    np.testing.assert_allclose(off_policy.log_ratios(policy, sft), plain)
    found = off_policy.relative_log_ratios(policy, sft)
    np.testing.assert_allclose(found, relative, rtol=2e-7, atol=1e-6)


def test_a_pair_by_hand():
    chosen, rejected = (off_policy.relative_log_ratios(*p) for p in ((-10.0, -12), (-12.0, -10)))
    weight = off_policy.pair_weights(chosen, rejected, 0.01)
    np.testing.assert_allclose(weight, 0.995972, atol=1e-6)
    np.testing.assert_allclose(weight * preference.bradley_terry(1.0, 0.0), 0.312000, atol=1e-6)


@pytest.mark.parametrize("ratios", BOTH)
def test_policies_that_agree_leave_every_pair_as_it_is(ratios):
    logps = jnp.array([-3.0, -300.0, -3000.0])
    same = ratios(logps, logps)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    np.testing.assert_allclose(off_policy.pair_weights(same, same, 1.0), 1, atol=1e-6)


def test_kappa_zero_is_bradley_terry():
    ratios = jnp.array([5.0, -90.0])
    np.testing.assert_array_equal(off_policy.pair_weights(ratios, ratios[::-1], 0.0), 1)


def test_a_relative_ratio_is_bounded_and_without_alpha_it_is_the_plain_one():
    policy, sft = jnp.array([-1.0, -5.0, -2000.0]), jnp.array([-2000.0, -4.0, -1.0])
    for alpha in (0.1, 0.5):
        bounded = off_policy.relative_log_ratios(policy, sft, alpha)
        assert (bounded <= -np.log(alpha) + 1e-6).all()
        np.testing.assert_allclose(bounded[0], -np.log(alpha), rtol=1e-6)
    plain = off_policy.relative_log_ratios(policy, sft, 0.0)
    np.testing.assert_array_equal(plain, off_policy.log_ratios(policy, sft))


def test_expectations_move_from_one_policy_to_the_other():
    """Every response of two symbols out of three: with kappa 1 SFT's mean becomes the policy's."""
    rng = np.random.default_rng(0)
    policy, sft = np.log(rng.dirichlet(np.ones(3))), np.log(rng.dirichlet(np.ones(3)))
    responses = np.array(list(itertools.product(range(3), repeat=2)))
    policy_logps, sft_logps = policy[responses].sum(1), sft[responses].sum(1)
    value = rng.normal(size=9)
    # A single response's weight is that of a pair whose other response says nothing.
    nothing = np.zeros(9)
    weights = off_policy.pair_weights(off_policy.log_ratios(policy_logps, sft_logps), nothing, 1.0)
    wanted = (np.exp(policy_logps) * value).sum()
    np.testing.assert_allclose((np.exp(sft_logps) * weights * value).sum(), wanted, rtol=1e-5)
    relative = off_policy.relative_log_ratios(policy_logps, sft_logps, 0.1)
    mixture = 0.1 * np.exp(policy_logps) + 0.9 * np.exp(sft_logps)
    weights = off_policy.pair_weights(relative, nothing, 1.0)
    np.testing.assert_allclose((mixture * weights * value).sum(), wanted, rtol=1e-5)


def test_normalized_weights_have_a_mean_of_one_however_large_the_ratios():
    chosen, rejected = jnp.array([1.0, 2.0, 0.0]), jnp.array([0.0, -1.0, 0.0])
    plain = off_policy.pair_weights(chosen, rejected, 0.5)
    found = off_policy.normalized_pair_weights(chosen, rejected, 0.5)
    np.testing.assert_allclose(found, plain / plain.mean(), rtol=1e-6)
    extreme = off_policy.normalized_pair_weights(jnp.array([400.0, 0.0]), jnp.zeros(2), 1.0)
    np.testing.assert_allclose(extreme, [2, 0])


def test_weights_are_constants():
    def total(policy):
        return off_policy.pair_weights(off_policy.log_ratios(policy, -1.0), policy, 1.0)

    assert jax.grad(total)(-2.0) == 0
    assert jax.grad(lambda p: off_policy.relative_log_ratios(p, -1.0))(-2.0) == 0
    normalized = off_policy.normalized_pair_weights
    assert (jax.jacobian(lambda c: normalized(c, jnp.zeros(2), 1.0))(jnp.ones(2)) == 0).all()


@pytest.mark.parametrize("ratios", BOTH)
def test_low_precision_is_raised_and_jit_and_vmap_change_nothing(ratios):
    policy, sft = jnp.array([[-2.0, -8.0]], jnp.bfloat16), jnp.array([[-4.0, -7.0]], jnp.bfloat16)
    found = ratios(policy, sft)
    assert (found.dtype, found.shape) == (jnp.float32, (1, 2))
    np.testing.assert_allclose(jax.jit(ratios)(policy, sft), found, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(ratios)(policy, sft), found, rtol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(OptionError, match="alpha"):
        off_policy.relative_log_ratios(-1.0, -1.0, 1.0)
    for function in (*BOTH, lambda a, b: off_policy.pair_weights(a, b, 1.0)):
        with pytest.raises(ValueError, match="differ"):
            function(jnp.zeros(3), jnp.zeros((3, 1)))


# Into training


def tree(lengths, ranks=(0, 1)):
    branches = tuple(Branch(np.arange(n), np.ones(n, np.bool_)) for n in lengths)
    return TokenTree(np.arange(2), branches, ranks=ranks)


TREES = [tree((3, 2)), tree((2, 2, 4), ranks=(0, 1, 2))]
SHAPE = PackShape(1, 32, slots=6, pairs=5, groups=3, group_size=3, columns=(Column("log_ratios"),))


def test_weights_reach_the_loss_through_the_batch():
    """Four pairs of two trees, one of them of three responses, and rewards of which all lose."""
    ratios = [np.array([1.0, 0.5]), np.array([0.0, 2.0, -1.0])]
    batch = packing.pack(off_policy.with_log_ratios(TREES, ratios), [[0, 1]], SHAPE)

    def loss(kappa):
        losses = preference.bradley_terry(*batch.pairs(jnp.zeros((1, 6))))
        weights = off_policy.pair_weights(*batch.pairs(batch.column("log_ratios")), kappa)
        term = Term(1.0, weights * losses, batch.pair_weight * batch.pair_mask)
        return weighted_sum(term.values, term.weights) / total_weight(term.weights)

    # Exponents are 1.5 of the first tree, and 2, -1 and 1 of the second, whose pairs weigh 1/3.
    mean = (np.exp(1.5) + np.exp([2.0, -1.0, 1.0]).mean()) / 2
    np.testing.assert_allclose(loss(1.0), mean * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(loss(0.0), np.log(2), rtol=1e-6)


def test_ratios_belong_to_branches():
    (tree,) = off_policy.with_log_ratios(TREES[:1], [[1.5, -2.0]])
    assert tree.columns["log_ratios"].tolist() == [1.5, -2.0]
    for wrong in ([[1.0, np.nan]], [[1.0, -np.inf]]):
        with pytest.raises(ValueError, match="tree 0: log-ratios"):
            off_policy.with_log_ratios(TREES[:1], wrong)
    with pytest.raises(ValueError, match=r"log_ratios of shape \[1\] for 2 responses"):
        off_policy.with_log_ratios(TREES[:1], [[1.0]])
    with pytest.raises(ValueError, match="log_ratios of 1 trees for 2"):
        off_policy.with_log_ratios(TREES, [[1.0, 2.0]])


def test_first_tokens_are_the_first_targets():
    targets = np.array([False, True, True, False, True])
    (found,) = off_policy.first_tokens(
        [
            TokenTree(
                np.arange(1), (Branch(np.arange(5), targets), Branch(np.arange(1), ~targets[:1]))
            )
        ],
        2,
    )
    assert found.branches[0].targets.tolist() == [False, True, True, False, False]
    assert found.branches[1].targets.tolist() == [True]
    assert found.branches[0].tokens.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(OptionError, match="count"):
        off_policy.first_tokens([], 0)
