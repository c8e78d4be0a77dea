"""The study's methods: optimizers by hand, trials, and the choice among them."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import study_grm_methods
from experiments.study_grm_methods import (
    METHODS,
    RATES,
    pull_to_start,
    pulled_adam,
    trials,
)
from jaxrm.study.recipe import CLIP, adam
from jaxrm.train.optimizer import OptimizerConfig, make_optimizer, make_schedule


def test_the_pull_by_hand():
    params, gradient = {"w": jnp.array([1.0])}, {"w": jnp.array([0.5])}
    pull = pull_to_start(10.0)
    state = pull.init(params)
    updates, _ = pull.update(gradient, state, {"w": jnp.array([3.0])})
    assert updates["w"] == pytest.approx(20.5)  # 0.5 + 10 (3 - 1)
    pulled = pulled_adam(0.1, 2.0)
    updates, _ = pulled.update({"w": jnp.zeros(1)}, pulled.init(params), {"w": jnp.array([3.0])})
    assert updates["w"] == pytest.approx(-0.4)  # -0.1 x 2 (3 - 1), and nothing of Adam's


def test_adam_at_the_rates_of_a_schedule_is_the_optimizer_of_the_experiments():
    steps, config = 7, OptimizerConfig(learning_rate=1e-2, warmup=0.3, clip=CLIP)
    scheduled = make_optimizer(config, steps)
    params = {"weight": jnp.array([1.0, -2.0])}
    states = [scheduled.init(params), adam(0.0, None).init(params)]
    for step, rate in enumerate(make_schedule(config, steps)(np.arange(steps))):
        gradient = {"weight": jnp.array([4.0, 30.0 * step])}  # clipped from the second step on
        first, states[0] = scheduled.update(gradient, states[0], params)
        second, states[1] = adam(rate, None).update(gradient, states[1], params)
        np.testing.assert_allclose(first["weight"], second["weight"], rtol=1e-6)


def test_every_method_has_four_trials(monkeypatch):
    for method, rate in itertools.product(METHODS, RATES):
        assert len(set(trials(method, rate))) == 4, method
    monkeypatch.setattr(study_grm_methods, "RATES", (1.0, 2.0, 3.0, 4.0))

    def rates(method, rate):
        return {trial.learning_rate for trial in trials(method, rate)}

    assert rates("lp_ft", 3.0) == {1.0, 2.0, 3.0, 4.0}
    assert rates("l2", 3.0) == {3.0}
    assert rates("grm_dpo", 3.0) == {2.0, 3.0}
    assert rates("grm_dpo", 1.0) == {1.0, 2.0}
