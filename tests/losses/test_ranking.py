"""Listwise losses against hand-computed values, brute force over all orders, and identities."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data import packing, planning
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.losses import preference, ranking

kwise, plackett_luce = jax.jit(ranking.kwise), jax.jit(ranking.plackett_luce)
both = pytest.mark.parametrize("loss", [kwise, plackett_luce], ids=["kwise", "plackett_luce"])


def of_all(loss, rewards, ranks=None):
    """The loss of responses that are all there, best first where no ranks are given."""
    rewards = jnp.asarray(rewards, getattr(rewards, "dtype", np.float32))
    ranks = np.arange(rewards.shape[-1]) if ranks is None else np.asarray(ranks)
    return loss(rewards, np.broadcast_to(ranks, rewards.shape), np.ones(rewards.shape, bool))


def random_prompts(prompts=5, k=6):
    """Rewards, ranks with ties, and a mask with a few holes."""
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(prompts, k)).astype(np.float32)
    return rewards, rng.integers(0, 4, (prompts, k)), rng.random((prompts, k)) < 0.8


@pytest.mark.parametrize(
    ("loss", "rewards", "expected"),
    [
        # (2 softplus(-1) + softplus(-2)) / 3
        (kwise, [2.0, 1.0, 0.0], 0.251150),
        (kwise, [0.0, 0.0, 0.0], 0.693147),
        (plackett_luce, [2.0, 1.0, 0.0], 0.720868),
        (plackett_luce, [0.0, 0.0, 0.0], 1.791759),  # all 3! orders alike
        (plackett_luce, [0.0, 1.0, 2.0], 3.720868),  # 1 + 2 more than the other way round
    ],
)
def test_hand_values(loss, rewards, expected):
    np.testing.assert_allclose(of_all(loss, rewards), expected, atol=1e-6)


def test_hand_values_with_ties():
    # Two alike before a worse one: 2 of the 3 pairs have an order, of 3.
    rewards, ranks = [2.0, 1.0, 0.0], [0, 0, 1]
    np.testing.assert_allclose(of_all(kwise, rewards, ranks), 0.440190 / 3, atol=1e-6)
    np.testing.assert_allclose(of_all(plackett_luce, rewards, ranks), 0.440190, atol=1e-6)
    # One before two alike: softplus(logsumexp(1, 0) - 2) = softplus(-0.686738).
    ranks = [0, 1, 1]
    np.testing.assert_allclose(of_all(kwise, rewards, ranks), 0.440190 / 3, atol=1e-6)
    np.testing.assert_allclose(of_all(plackett_luce, rewards, ranks), 0.407606, atol=1e-6)


@both
def test_two_responses_are_a_bradley_terry_pair(loss):
    chosen, rejected = jnp.array([0.0, 3.0, -1000.0]), jnp.array([0.5, 1.0, 1000.0])
    pairs = preference.bradley_terry(chosen, rejected)
    np.testing.assert_allclose(of_all(loss, jnp.stack([chosen, rejected], -1)), pairs, rtol=1e-6)
    turned = of_all(loss, jnp.stack([rejected, chosen], -1), [[1, 0]] * 3)
    np.testing.assert_allclose(turned, pairs, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_the_probabilities_of_all_orders_sum_to_one(k):
    rewards = jnp.asarray(np.random.default_rng(k).normal(scale=2, size=k))
    orders = jnp.array(list(itertools.permutations(range(k))))
    losses = of_all(plackett_luce, jnp.broadcast_to(rewards, orders.shape), orders)
    np.testing.assert_allclose(jnp.exp(-losses).sum(), 1.0, rtol=1e-5)


def exact(rewards, ranks):
    """-log of the sum of Plackett-Luce probabilities over all ways to break the ties."""
    total = 0.0
    for order in itertools.permutations(range(len(rewards))):
        if all(ranks[a] <= ranks[b] for a, b in itertools.pairwise(order)):
            weights = [math.exp(rewards[i]) for i in order]
            total += math.prod(w / sum(weights[i:]) for i, w in enumerate(weights))
    return -math.log(total)


@pytest.mark.parametrize("ranks", [(0, 1, 1, 1), (0, 1, 2, 2), (1, 3, 0, 2)])
def test_ties_of_the_worst_have_the_exact_probability_of_what_is_known(ranks):
    rewards = [0.3, -1.2, 0.8, 2.0]
    found = of_all(plackett_luce, rewards, ranks)
    np.testing.assert_allclose(found, exact(rewards, ranks), rtol=1e-5)


@pytest.mark.parametrize("ranks", [(0, 0, 1, 1), (0, 0, 0, 1), (0, 1, 1, 2)])
def test_ties_of_better_ones_have_a_bound_of_it(ranks):
    rewards = [0.3, -1.2, 0.8, 2.0]
    assert of_all(plackett_luce, rewards, ranks) > exact(rewards, ranks) + 1e-3


@both
def test_the_order_of_the_input_does_not_matter(loss):
    rewards, ranks, mask = random_prompts()
    shuffled = np.random.default_rng(1).permutation(rewards.shape[1])
    expected = loss(rewards, ranks, mask)
    found = loss(rewards[:, shuffled], ranks[:, shuffled], mask[:, shuffled])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@both
def test_only_differences_of_rewards_and_the_order_of_ranks_count(loss):
    rewards, ranks, mask = random_prompts()
    expected = loss(rewards, ranks, mask)
    np.testing.assert_allclose(loss(rewards + 3, ranks, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(rewards, 2.5 * ranks - 7, mask), expected, rtol=1e-6)


@both
def test_masked_responses_count_for_nothing_whatever_they_hold(loss):
    rewards, ranks, mask = random_prompts()
    summed = jax.jit(jax.value_and_grad(lambda r, k: loss(r, k, mask).sum()))
    expected, gradient = summed(jnp.where(mask, rewards, 0.0), jnp.where(mask, ranks, 0.0))
    assert (np.asarray(gradient)[~mask] == 0).all()
    for bad in (np.inf, -np.inf, np.nan):
        found, of_bad = summed(jnp.where(mask, rewards, bad), jnp.where(mask, ranks, bad))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(of_bad, gradient)


@both
def test_a_prompt_counts_its_own_responses_alone(loss):
    rewards, ranks, mask = random_prompts()
    together = loss(rewards, ranks, mask)
    for i, present in enumerate(mask[:2]):
        alone = of_all(loss, rewards[i][present], ranks[i][present])
        np.testing.assert_allclose(together[i], alone, rtol=1e-5)


@both
def test_prompts_without_an_order_are_zero_without_a_gradient(loss):
    rewards = jnp.array([[3.0, 1.0, 2.0]] * 3)
    ranks = jnp.array([[0, 1, 2], [0, 0, 0], [0, 1, 2]])
    mask = jnp.array([[True, False, False], [True] * 3, [False] * 3])
    np.testing.assert_array_equal(loss(rewards, ranks, mask), np.zeros(3))
    gradient = jax.jit(jax.grad(lambda r: loss(r, ranks, mask).sum()))(rewards)
    np.testing.assert_array_equal(gradient, np.zeros((3, 3)))
    assert loss(jnp.zeros((0, 3)), jnp.zeros((0, 3)), jnp.zeros((0, 3))).shape == (0,)


def test_many_and_few_responses_weigh_alike_in_kwise():
    np.testing.assert_allclose(of_all(kwise, [0.0] * 9), of_all(kwise, [0.0] * 4), rtol=1e-6)


def test_gradients():
    # Of kwise: minus the probability of the wrong order for each pair, a third each.
    wrong = 1 / (1 + math.e), 1 / (1 + math.e**2)
    gradient = jax.jit(jax.grad(lambda r: of_all(kwise, r)))(jnp.array([2.0, 1.0, 0.0]))
    np.testing.assert_allclose(gradient, np.array([-sum(wrong), 0.0, sum(wrong)]) / 3, atol=1e-6)
    # Of Plackett-Luce: the softmax at each of the two draws, minus 1 for what was drawn.
    first = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()
    second = np.array([0.0, 1 - wrong[0], wrong[0]])
    gradient = jax.jit(jax.grad(lambda r: of_all(plackett_luce, r)))(jnp.array([2.0, 1.0, 0.0]))
    np.testing.assert_allclose(gradient, first + second - [1.0, 1.0, 0.0], atol=1e-6)


@both
def test_gradients_are_the_slopes_with_ties_and_masks(loss):
    rewards, ranks, mask = random_prompts()
    gradient = jax.jit(jax.grad(lambda r: loss(r, ranks, mask).sum()))(rewards)
    for place in [(0, 0), (1, 2), (2, 5), (4, 3)]:
        step = np.zeros_like(rewards)
        step[place] = 1e-2
        up, down = (float(loss(r, ranks, mask).sum()) for r in (rewards + step, rewards - step))
        np.testing.assert_allclose(gradient[place], (up - down) / 2e-2, atol=2e-3)


@pytest.mark.parametrize(
    ("loss", "expected", "slope"),
    [
        # 2000 + 1000 + 2000 + 0 + log 2 + 1000 over 6 pairs; three pairs of equals.
        (kwise, [6000.693147 / 6, 3 * 0.693147 / 6], -3 / 6),
        # 2000 + log 2, log 2 and 1000; then nothing, log 3 and log 2.
        (plackett_luce, [3001.386294, 1.791759], -1.0),
    ],
)
def test_extreme_rewards_give_finite_values_and_gradients(loss, expected, slope):
    rewards = jnp.array([[-1000.0, 1000.0, 0.0, 1000.0], [1000.0, -1000.0, -1000.0, -1000.0]])
    np.testing.assert_allclose(of_all(loss, rewards), expected, rtol=2e-5)  # float32 at 1000
    gradient = jax.jit(jax.grad(lambda r: of_all(loss, r).sum()))(rewards)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[:, 0], [slope, 0.0], atol=1e-6)


@both
def test_jit_and_vmap_change_nothing(loss):
    given = random_prompts()
    with jax.disable_jit():
        expected = loss(*given)
    np.testing.assert_allclose(loss(*given), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(*given), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(*(x[:, None] for x in given)), expected[:, None], rtol=1e-6)


@both
def test_low_precision_is_raised_to_float32_and_shapes_must_agree(loss):
    found = of_all(loss, jnp.array([256.0, 255.0], jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 0.313262, atol=1e-6)
    with pytest.raises(ValueError, match=r"one shape \[\.\.\., K\]"):
        loss(jnp.zeros((2, 3)), jnp.arange(3), jnp.ones((2, 3), bool))
    with pytest.raises(ValueError, match="one shape"):
        loss(jnp.float32(0), jnp.int32(0), jnp.bool_(True))


def tree(*ranks):
    """A comparison of one-token responses."""
    token = np.array([7], np.int32)
    branches = tuple(Branch(token, np.array([True])) for _ in ranks)
    return TokenTree(np.arange(1, 3, dtype=np.int32), branches, ranks=ranks)


def test_kwise_sums_to_bradley_terry_over_a_packed_batchs_weighted_pairs():
    trees = [tree(2, 0, 1), tree(0, 1), tree(1, 0, 1, 0), tree(0, 0)]
    shape = planning.fit_shape(trees, rows=2, length=12)
    batch = packing.pack(trees, [[0, 1], [2, 3]], shape)
    rewards = jnp.asarray(np.random.default_rng(0).normal(size=batch.response_mask.shape))
    ranks = batch.groups(batch.response_rank)
    np.testing.assert_array_equal(ranks[batch.group_mask], [0, 1, 2, 0, 1, 0, 0, 1, 1, 0, 0])
    prompts = kwise(batch.groups(rewards), ranks, batch.group_mask)
    weights = batch.pair_weight * batch.pair_mask
    pairs = preference.bradley_terry(*batch.pairs(rewards)) * weights
    np.testing.assert_allclose(prompts.sum(axis=1), pairs.sum(axis=1), rtol=1e-5)
    assert prompts.shape == (2, 2)
    assert prompts[1, 1] == 0 < prompts[1, 0]
