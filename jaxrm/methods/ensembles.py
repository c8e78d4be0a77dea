"""Several models as one: the mean of their rewards, or of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrm.methods.bench import Fitted
from jaxrm.methods.method import Method
from jaxrm.methods.task import Model, Part, Task, Trained
from jaxrm.models import average, transformer, uncertainty
from jaxrm.read.packed import Packed

MEMBERS = 4


def ensemble(task: Task, method: Method) -> Trained:
    """The mean of models that differ in their head's draw and their order of data.

    Members are standardised on `val` first: Bradley-Terry leaves every one's offset and scale free.
    """
    models = members(task, method, [(task.rate, seed) for seed in seeds_of(task)])
    scales = [uncertainty.scale_of(model.scores(task.validation), "val") for model in models]

    def mean(data: Packed) -> np.ndarray:
        rewards = np.stack([model.scores(data) for model in models])
        return np.asarray(uncertainty.mean(uncertainty.standardise(rewards, scales)))

    parts = [
        Part(model.reward_model, weight=1 / (len(models) * scale.scale), offset=scale.offset)
        for model, scale in zip(models, scales, strict=True)
    ]
    return Trained(mean, models, parts)


def warm(task: Task, method: Method) -> Trained:
    """WARM (arXiv 2401.12187): the mean of the weights of models that start from one head and
    differ in learning rate and order of data."""
    rates = [task.rate * factor for factor in (1.0, 0.7, 1.4, 1.0)]
    trials = list(zip(rates, seeds_of(task), strict=True))
    models = members(task, method, trials, head_seed=task.seed)
    mean = averaged(models)
    return Trained(mean.scores, models, [Part(mean.reward_model)])


def seeds_of(task: Task) -> list[int]:
    """Those of the members."""
    return [task.seed + 1000 * m for m in range(MEMBERS)]


def members(
    task: Task, method: Method, trials: Sequence[tuple[float, int]], **start: Any
) -> list[Model]:
    """A model for each learning rate and seed, which share the work that may be done.

    Args:
      start: where all of them begin: `head_seed` or `params`, as for `Task.fit`.
    """
    return [
        task.fit(method, name=f"member_{m}", share=1 / len(trials), rate=rate, seed=seed, **start)
        for m, (rate, seed) in enumerate(trials)
    ]


def averaged(models: Sequence[Model]) -> Model:
    """The mean of models' weights, LoRA merged into them."""
    first, *_ = models
    mean = average.average_models(model.whole() for model in models)
    steps = sum(model.fitted.steps for model in models)
    return Model(first.bench, first.method, Fitted(*transformer.split(mean), steps))


ENSEMBLES: dict[str, Method] = {
    "ensemble": Method(
        "the mean of four models' standardised rewards (arXiv 2310.02743)", train=ensemble
    ),
    "warm": Method("WARM: the mean of four models' weights (arXiv 2401.12187)", train=warm),
}
