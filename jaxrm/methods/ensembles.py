"""Several models as one: the mean of their rewards, or of their weights."""

from __future__ import annotations

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
    seeds = [task.seed + 1000 * m for m in range(MEMBERS)]
    models = [
        task.fit(method, name=f"member_{m}", share=1 / MEMBERS, seed=seed)
        for m, seed in enumerate(seeds)
    ]
    scales = [uncertainty.scale_of(model.scores(task.validation), "val") for model in models]

    def mean(data: Packed) -> np.ndarray:
        members = np.stack([model.scores(data) for model in models])
        return np.asarray(uncertainty.mean(uncertainty.standardise(members, scales)))

    parts = [
        Part(model.reward_model, weight=1 / (MEMBERS * scale.scale), offset=scale.offset)
        for model, scale in zip(models, scales, strict=True)
    ]
    return Trained(mean, models, parts)


def warm(task: Task, method: Method) -> Trained:
    """WARM (arXiv 2401.12187): the mean of the weights of models that start from one head and
    differ in learning rate and order of data."""
    models = [
        task.fit(
            method,
            name=f"member_{m}",
            share=1 / MEMBERS,
            rate=task.rate * factor,
            seed=task.seed + 1000 * m,
            head_seed=task.seed,
        )
        for m, factor in enumerate((1.0, 0.7, 1.4, 1.0))
    ]
    averaged = average.average_models(model.whole() for model in models)
    steps = sum(model.fitted.steps for model in models)
    mean = Model(task.bench, method, Fitted(*transformer.split(averaged), steps))
    return Trained(mean.scores, models, [Part(mean.reward_model)])


ENSEMBLES: dict[str, Method] = {
    "ensemble": Method(
        "the mean of four models' standardised rewards (arXiv 2310.02743)", train=ensemble
    ),
    "warm": Method("WARM: the mean of four models' weights (arXiv 2401.12187)", train=warm),
}
