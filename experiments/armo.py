"""ArmoRM (arXiv 2406.12845): grades on several attributes, weighed by a gate that reads the prompt.

    python -m experiments.armo

Raters grade seven attributes of each response, with errors, gaps, and up to .2 too much for long
answers; the eighth, verbosity, is its length. Gold is a weighted mean of the seven. In world A the
weights are the same for all families of questions, in world B each family has its own. So a gate
should gain nothing in A, and something in B where families are known; there is no way to know the
weights of families that training lacks (`ood_prompt`).

- bt: Bradley-Terry on the pairs, which is all that it sees. The others see the grades too.
- smorm: Bradley-Terry + MSE on the grades, one trunk (arXiv 2507.07375); its first output ranks.
- urm: a trunk trained on the Gaussian likelihood of grades (arXiv 2410.00847), its means gated.
- armo: ridge regression on the frozen states of bt, debiased of verbosity, gated.
- armo, no gate: the weights of attributes are fitted to the pairs too, but are constant.
- armo, no debias: the attributes as they were fitted, verbosity among them.
- qrm: quantiles on the states of bt (arXiv 2409.10164), their means gated, no debias.
- base: ...: the same on the states of the base, of which no reward model was trained. `base: bt` is
  a linear Bradley-Terry reward there.
- gold attributes: the true ones, with the weights of world A: what constant weights could reach.

Every method has two trials, chosen on `val`, whose labels are as noisy as training's (`base: bt`
has one). `val` is graded too: ridge regression chooses its strength there.

What it printed here, at the defaults (600 pairs, 6 seeds; family-macro accuracy ± one standard
error over seeds; "longer" is how often the longer response of a pair wins):

    world A, %           setting           id   ood_prompt  ood_response  longer, id
    bt                    0.0003   81.2 ± 0.7   72.3 ± 3.9    79.4 ± 1.1  32.3 ± 1.7
    smorm                    0.1   80.9 ± 1.3   71.8 ± 3.2    78.8 ± 1.7  32.8 ± 1.8
    armo                   0.003   81.3 ± 0.8   72.1 ± 3.4    79.8 ± 0.8  32.7 ± 1.7
    armo, no gate           0.03   82.3 ± 0.9   74.1 ± 3.7    80.5 ± 0.6  32.4 ± 1.9
    armo, no debias        0.001   80.4 ± 1.0   69.8 ± 4.4    78.8 ± 1.0  34.3 ± 1.9
    armo, neither           0.03   82.3 ± 0.8   73.6 ± 3.9    80.3 ± 0.7  32.7 ± 1.9
    base: bt                   0   76.9 ± 0.8   66.4 ± 4.4    76.8 ± 1.6  37.6 ± 2.3
    base: armo             0.001   81.6 ± 0.7   70.1 ± 4.8    80.1 ± 0.8  33.1 ± 1.1
    base: armo, no gate     0.01   82.2 ± 0.7   71.2 ± 5.0    80.4 ± 0.8  33.4 ± 1.4
    gold attributes            0  100.0 ± 0.0  100.0 ± 0.0   100.0 ± 0.0  37.2 ± 0.5

    world B, %           setting           id   ood_prompt  ood_response  longer, id
    bt                    0.0003   82.0 ± 0.9   72.3 ± 4.0    80.2 ± 1.2  38.1 ± 0.9
    smorm                    0.1   81.2 ± 1.4   70.9 ± 3.8    79.5 ± 2.2  38.5 ± 1.7
    armo                   0.003   83.5 ± 0.8   70.9 ± 4.0    80.9 ± 1.4  36.2 ± 1.9
    armo, no gate           0.03   83.9 ± 0.6   73.2 ± 4.3    81.7 ± 1.3  36.3 ± 1.9
    armo, no debias        0.003   82.4 ± 0.7   69.2 ± 4.5    79.1 ± 1.6  37.8 ± 1.9
    armo, neither           0.03   83.8 ± 0.6   73.0 ± 4.4    81.6 ± 1.4  36.4 ± 1.8
    base: bt                   0   79.0 ± 0.5   65.5 ± 5.7    76.6 ± 1.4  39.4 ± 1.9
    base: armo             0.003   83.4 ± 0.9   71.8 ± 4.5    81.8 ± 0.8  36.5 ± 1.8
    base: armo, no gate     0.03   83.1 ± 0.8   72.9 ± 4.8    82.0 ± 0.7  36.9 ± 1.7
    gold attributes            0   96.1 ± 0.4   98.2 ± 0.5    97.5 ± 0.2  40.9 ± 0.9

    points, 95 % sign-flip interval            id           ood_prompt        ood_response
    A: armo - bt               +0.1 [-4.2, +3.6]    -0.1 [-8.2, +5.8]   +0.4 [-3.2, +4.6]
    A: armo - armo, no gate    -0.9 [-1.6, +0.2]    -1.9 [-3.6, +0.2]   -0.7 [-2.2, +0.4]
    A: armo - smorm            +0.4 [-3.0, +5.0]  +0.3 [-10.4, +12.4]   +1.0 [-2.4, +7.4]
    A: armo - armo, no debias  +0.9 [-1.4, +3.2]    +2.4 [-1.2, +7.4]   +1.0 [-1.0, +2.6]
    B: armo - bt               +1.5 [-1.4, +3.8]    -1.4 [-7.6, +8.8]   +0.7 [-2.8, +4.0]
    B: armo - armo, no gate    -0.3 [-2.6, +1.4]    -2.3 [-4.0, -0.6]   -0.9 [-3.0, +0.8]
    B: armo - smorm            +2.4 [+0.2, +7.4]  -0.0 [-10.6, +16.4]   +1.4 [-3.0, +8.6]
    B: armo - armo, no debias  +1.2 [+0.4, +2.4]    +1.7 [-2.4, +4.2]   +1.7 [+0.4, +2.8]

- The gate: not supported. It gains nothing in A, as it should, and nothing in B either, where on
  families that it was not trained on it loses. There is little to gain: constant weights on the
  true attributes get 96 % in B. That armo beats smorm on B's `id` is not the gate's doing: without
  it the difference is as large (+2.7 [-0.2, +6.8]).
- The debias: with the gate it helps in B, and without a gate it changes nothing (at most .4).
  Armo's rewards prefer the longer response less often than gold does, debiased or not.
- The grades: open. No method with them is surely better than bt on its trunk, smorm least of all:
  it was best at the smallest weight of its grades. (Its trials were 1 and 3 at first; on two of
  these seeds both were worse than bt, on `val` too, and 0.1 and 0.3 took their place.)
  On states of the base they are worth a lot: there `armo, no gate` is better than `base: bt` by
  +5.3 [+2.4, +6.8] points on A's `id` and +4.1 [+0.6, +7.6] on B's, and no gap to bt shows, whose
  whole trunk was trained.
- Many intervals were looked at, none of them corrected for that.

`--methods urm qrm`, the same seeds and the same bt (points over bt, 95 % sign-flip interval):

                             id           ood_prompt         ood_response
    A: urm   -9.3 [-12.3, -6.8]   -4.4 [-8.0, +2.8]   -7.6 [-13.2, -2.4]
    A: qrm    -3.5 [-5.6, -1.0]   -1.8 [-9.0, +3.6]    -2.8 [-6.8, +0.0]
    B: urm   -9.0 [-13.0, -7.0]  -4.3 [-12.6, +5.0]   -9.0 [-15.7, -2.7]
    B: qrm    -1.7 [-6.4, +0.6]  -3.2 [-10.5, +2.2]    -2.0 [-6.4, +1.2]

A trunk of grades alone (urm) does not reach one of pairs; on the trunk of pairs quantiles (qrm) do
no better than ridge regression's means, at 19 times the outputs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxrm import cli, toy
from jaxrm.data.audit import floors
from jaxrm.data.comparison import Comparison
from jaxrm.errors import require
from jaxrm.evaluate.probe import fit_head
from jaxrm.methods import attributes
from jaxrm.methods.attributes import ATTRIBUTES, STATES
from jaxrm.methods.bench import Bench, Fitted
from jaxrm.methods.library import METHODS as LIBRARY
from jaxrm.methods.method import Method
from jaxrm.methods.task import InMemory, Model, Task, Trained
from jaxrm.models.gate import ConstantGate
from jaxrm.read.packed import Packed
from jaxrm.report.webpage import leave
from jaxrm.study import outcome, trials
from jaxrm.study.config import StudyConfig
from jaxrm.study.draws import Condition
from jaxrm.study.records import Record, Trial, macro
from jaxrm.study.trials import Job
from jaxrm.study.tuning import choices_table

WORLDS: Mapping[str, Literal["constant", "by_family"]] = {"A": "constant", "B": "by_family"}

RATES = (3e-4, 1e-3)
"""Of a trunk."""
MSE_STRENGTHS = (0.1, 0.3)
"""Smorm's coefficient of its MSE, at bt's learning rate."""
QUANTILE_RATES = (1e-2, 3e-2)
"""Of qrm's head."""
GATE_RATES, CONSTANT_RATES = (1e-3, 3e-3), (1e-2, 3e-2)

CONSTANT = ConstantGate(scale=attributes.GATE.scale)

DEFAULT = (
    *("bt", "smorm", "armo", "armo, no gate", "armo, no debias", "armo, neither"),
    *("base: bt", "base: armo", "base: armo, no gate", "gold attributes"),
)


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """ArmoRM beside Bradley-Terry and SMORM in two toy worlds."""

    run_dir: Path = Path("runs/armo")
    methods: tuple[str, ...] = DEFAULT
    """What is compared with bt; there are urm and qrm too."""
    seed: int = 100
    """The first; the gate and its rates were chosen on others."""
    pairs: int = 600
    """To train on, all of them graded."""
    val_items: int = 500
    items: int = 500
    """Pairs of each test split."""

    def __post_init__(self):
        super().__post_init__()
        self.at_least(1, "pairs", "val_items", "items")
        names = ", ".join(METHODS)
        require(set(self.methods) <= set(METHODS), "--methods", f"among {names}", self.methods)


# The data


@dataclasses.dataclass(frozen=True)
class Graded:
    """A world of raters; of verbosity, which is there to be counted, no grade lacks."""

    weighting: Literal["constant", "by_family"]

    splits = ("id", "ood_prompt", "ood_response", "val")
    figure = "macro"

    def draw(self, split: str, n: int, seed: int) -> list[Comparison]:
        """The first n comparisons of `train` or another split."""
        world = toy.World(seed=seed, weighting=self.weighting)
        return [with_verbosity(c) for c in world.rated(world.comparisons(split, n))]

    def __str__(self) -> str:
        return f"graded, {self.weighting}"


def with_verbosity(comparison: Comparison) -> Comparison:
    """The comparison with one attribute more, the lengths of its responses."""
    lengths = floors.longer(floors.response_texts([comparison])) / 80
    rows = zip(comparison.attributes, lengths, strict=True)
    grades = tuple((*row, min(float(length), 1.0)) for row, length in rows)
    return dataclasses.replace(comparison, attributes=grades)


# The models on whose states others are fitted, once for all methods


@dataclasses.dataclass(frozen=True, eq=False)
class Trunk(Model):
    """A model of which nothing but its states is asked."""

    states: dict[Packed, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    def read(self, data: Packed, readings: Any = STATES) -> Mapping[str, np.ndarray]:
        """The states, as `STATES` names them."""
        if data not in self.states:
            self.states[data] = super().read(data, STATES)
        return self.states[data]


def of_pairs(task: Task) -> Trunk:
    """What bt trains."""
    return trunk_of(task.bench, task.packed, task.rate, task.seed)


def of_base(task: Task) -> Trunk:
    """The base, of which no reward model was trained."""
    return trunk_of(task.bench, task.packed, None, task.seed)


@functools.lru_cache(maxsize=4)
def trunk_of(bench: Bench, data: Packed, rate: float | None, seed: int) -> Trunk:
    """Bradley-Terry at that learning rate; the base, without one."""
    if rate is None:
        return Trunk(bench, LIBRARY["bt"], Fitted(bench.structure(), bench.start(seed), steps=0))
    task = Task(bench, InMemory(data), data, rate=rate, strength=None, epochs=1, seed=seed)
    return Trunk(**vars(attributes.of_pairs(task)))


# The methods


def probed(task: Task, method: Method) -> Trained:
    """A linear Bradley-Terry reward on the states of the base."""
    trunk = of_base(task)
    weights = fit_head(list(trunk.read(task.packed)["states"]), task.data.comparisons)
    return Trained(lambda data: trunk.read(data)["states"] @ weights, [trunk], parts=[])


def gold(task: Task, method: Method) -> Trained:
    """The true attributes, with the weights of world A."""
    world = toy.World(seed=task.seed, weighting="constant")

    def scores(data: Packed) -> np.ndarray:
        return np.array(
            [[world.gold(c.prompt[0].content, r[-1].content) for r in c.responses]
             for c in data.comparisons]
        )  # fmt: skip

    return Trained(scores, models=[], parts=[])


def ridge(strengths: tuple[float, ...], **options: Any) -> Method:
    """ArmoRM, as options of `attributes.of_ridge` have it."""
    train = functools.partial(attributes.of_ridge, **{"trunk": of_pairs} | options)
    return Method("ArmoRM", strengths=strengths, train=train)


METHODS: Mapping[str, Method] = {
    "bt": LIBRARY["bt"],
    "smorm": dataclasses.replace(ATTRIBUTES["smorm"], strengths=MSE_STRENGTHS),
    "urm": ATTRIBUTES["urm"],
    "armo": ridge(GATE_RATES),
    "armo, no gate": ridge(CONSTANT_RATES, gate=CONSTANT),
    "armo, no debias": ridge(GATE_RATES, debias=False),
    "armo, neither": ridge(CONSTANT_RATES, gate=CONSTANT, debias=False),
    "qrm": dataclasses.replace(
        ATTRIBUTES["qrm"],
        strengths=QUANTILE_RATES,
        train=functools.partial(attributes.of_quantiles, trunk=of_pairs),
    ),
    "base: bt": Method("a probe", strengths=(0.0,), train=probed),
    "base: armo": ridge(GATE_RATES, trunk=of_base),
    "base: armo, no gate": ridge(CONSTANT_RATES, trunk=of_base, gate=CONSTANT),
    "gold attributes": Method("gold", strengths=(0.0,), train=gold),
}

CONTRASTS = (
    ("armo", "armo, no gate"),
    ("base: armo", "base: armo, no gate"),
    ("armo", "smorm"),
    ("armo, no gate", "smorm"),
    ("armo, no gate", "armo, neither"),
    ("armo", "armo, no debias"),
    ("base: armo, no gate", "base: bt"),
)
"""Beside every method over bt."""

FIGURES = {split: macro(split) for split in ("id", "ood_prompt", "ood_response")}
FIGURES |= {"longer": lambda record: record["longer"]}


def tried(name: str, rate: float) -> list[Trial]:
    """A method's trials, at bt's learning rate where it has others than that."""
    strengths = METHODS[name].strengths
    return [Trial(rate, each) for each in strengths] or [Trial(each, None) for each in RATES]


# What is run and found


def run(job: Job, base: Path) -> Record:
    """Trains and measures."""
    return trials.run(job, base, METHODS, functools.partial(longer, base))


def longer(base: Path, job: Job, trained: Trained) -> dict[str, float]:
    """Of the pairs of `id` that differ in length, the share whose longer response has more reward;
    nothing of a trial."""
    if (n := dict(job.splits).get("id")) is None:
        return {}
    bench = Bench(base, head=job.head, rows=job.rows, length=job.length)
    data = trials.packed(bench, job.condition.data, "id", n, job.seed)
    return {"longer": prefers_longer(trained.scores(data), data.comparisons)}


def prefers_longer(rewards: np.ndarray, comparisons: Sequence[Comparison]) -> float:
    """Of the pairs that differ in length, the share whose longer response has more reward."""
    lengths = floors.longer(floors.response_texts(comparisons)).reshape(-1, 2)
    margin, longer_by = rewards[:, 0] - rewards[:, 1], lengths[:, 0] - lengths[:, 1]
    return float((np.sign(margin) == np.sign(longer_by))[longer_by != 0].mean())


def measure(cfg: Config, weighting: Literal["constant", "by_family"]) -> dict[str, Any]:
    """The figures of a world."""
    contest = cfg.contest(
        dict.fromkeys(("bt", *cfg.methods)),
        [Condition(Graded(weighting), cfg.pairs)],
        tried,
        run=run,
        items=cfg.items,
        val_items=cfg.val_items,
        options={"validation": cfg.val_items},
    )
    choices = contest.tune(cfg.measured, RATES[0])
    records = contest.measure(choices, cfg.measured, second_budget=False)
    measured = outcome.values(records, FIGURES)
    contrasts = outcome.over(measured, "bt")
    contrasts += [pair for pair in CONTRASTS if set(pair) <= set(measured)]
    return outcome.summary(measured, contrasts) | {"choices": choices}


def table(world: str, results: Mapping[str, Any]) -> str:
    """What was chosen, the figures and the gains, in percent and points."""
    figures = outcome.tables(results, list(FIGURES))
    return "\n\n".join([f"world {world}", choices_table(results["choices"]), figures])


def main(cfg: Config) -> None:
    """Runs what is not yet there, and writes what was found."""
    directory = cfg.open()
    worlds = {world: measure(cfg, weighting) for world, weighting in WORLDS.items()}
    results = {"seeds": list(cfg.measured), "items": cfg.items, "worlds": worlds}
    text = "\n\n".join(table(world, of_world) for world, of_world in worlds.items())
    leave(directory, __doc__, results, text)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
