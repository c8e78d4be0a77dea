"""What one training run of a study measured, and the runs of a study by arm and seed.

A record holds

    method     one of `METHODS`; `learning_rate` and `strength` are its trial
    condition  {pairs, label_noise, cue_agreement, epochs}
    seed, head {kind, layers}
    part       of the study: main, sizes, strengths, heads, frozen or curves (the first that asked)
    splits     {split: {macro, accuracy, n, loss, language}}, shares in [0, 1]; language, how often
               the better response is the likelier one, may be null
    drift      {split: mean cosine distance of the states that rewards are read from to the base's}
    stopped    the step whose model counts, of `steps`
    curve      [{step, <split>/macro, <split>/loss}], of the part curves alone
    seconds, tokens   of training

and `choices` is what the screen chose on val, and from what:

    {method: {learning_rate, strength, trials: [{learning_rate, strength, mean, standard_error}]}}

Means that stand side by side are over the seeds that all of them have, or show their own n. What
no record has is shown as missing, with the cell and the seeds by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrm.errors import DataError

Record = Mapping[str, Any]
Runs = Mapping[int, Record]
"""The records of one arm by seed."""
Choices = Mapping[str, Mapping[str, Any]]
"""What the screen chose, by method."""
Value = Callable[[Record], float | None]
"""One number of a record, None where it was not measured."""

CONTROLS = ("bt", "bt_early", "lp_ft", "l2", "replay")
VARIANTS = ("grm_sft", "grm_dpo", "grm_dpo_reference_free")
MAIN = CONTROLS + VARIANTS
METHODS = (*MAIN, "frozen")

ENDPOINT = "ood_prompt"
SPLITS = (ENDPOINT, "id", "ood_response", "spurious", "val")


@dataclasses.dataclass(frozen=True)
class Condition:
    """What training data a run has: pairs, share of labels flipped, how often the style cue is on
    the better side, and epochs."""

    pairs: int
    label_noise: float
    cue_agreement: float
    epochs: int = 1

    def __str__(self) -> str:
        epochs = f", {self.epochs} epochs" if self.epochs > 1 else ""
        noise = f"{100 * self.label_noise:g} % label noise"
        return f"{self.pairs:,} pairs, {noise}, cue agreement {self.cue_agreement:g}{epochs}"


CONDITIONS = {
    "A": Condition(2000, 0.25, 0.7),
    "B": Condition(500, 0.25, 0.7),
    "C": Condition(2000, 0.0, 0.7),
}
"""Those of the part main; the first is the main one."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A method's setting: its learning rate, and its strength where it has one."""

    learning_rate: float
    strength: float | None

    @classmethod
    def of(cls, setting: Mapping[str, Any]) -> Trial:
        """That of a record, a choice, or a trial of the screen."""
        return cls(setting["learning_rate"], setting["strength"])

    def __str__(self) -> str:
        strength = "" if self.strength is None else f", strength {self.strength:g}"
        return f"lr {self.learning_rate:g}{strength}"


@dataclasses.dataclass(frozen=True)
class Arm:
    """What runs that differ in their seed alone have in common."""

    method: str
    trial: Trial
    condition: Condition
    head: tuple[str, int]

    @classmethod
    def of(cls, record: Record) -> Arm:
        """That of a record."""
        head = (record["head"]["kind"], record["head"]["layers"])
        return cls(record["method"], Trial.of(record), Condition(**record["condition"]), head)


@dataclasses.dataclass(frozen=True)
class Study:
    """Final evaluations by arm and seed, the runs that each part has of its own, and what was
    chosen and named beforehand."""

    runs: Mapping[Arm, Runs]
    parts: Mapping[str, Mapping[Arm, Runs]]
    trials: Mapping[str, Trial]
    head: tuple[str, int] | None
    conditions: Mapping[str, Condition]

    @property
    def main(self) -> str:
        """The main condition's name."""
        return next(iter(self.conditions))

    def chosen(self, method: str, condition: Condition) -> Runs:
        """The method's runs with its chosen trial and the study's head; {} without any."""
        if method not in self.trials or self.head is None:
            return {}
        return self.runs.get(Arm(method, self.trials[method], condition, self.head), {})

    def seeds(self, part: str) -> set[int]:
        """Those that a part was run on; other parts may lend it cells with more."""
        return set().union(*self.parts[part].values())


def read(records: Sequence[Record], choices: Choices, conditions: Mapping[str, Condition]) -> Study:
    """Records by arm and seed.

    Args:
      records: of all runs but the screen's, in any order.
      choices: the screen's.
      conditions: those of the part main by name, the main one first.

    Raises:
      DataError: two records of one run, an unknown method or main condition, or heads that differ
        outside the part heads.
    """
    final = [record for record in records if record["part"] != "curves"]
    runs = _by_arm(final)
    for record in final:
        condition = Condition(**record["condition"])
        if record["part"] == "main" and condition not in conditions.values():
            raise DataError(f"a record of the part main has none of its conditions: {condition}")
    heads = {Arm.of(record).head for record in final if record["part"] != "heads"}
    if len(heads) > 1:
        raise DataError(f"heads differ outside the part heads: {sorted(heads)}")
    names = sorted({record["part"] for record in records})
    return Study(
        runs,
        {part: _by_arm(r for r in records if r["part"] == part) for part in names},
        {method: Trial.of(choice) for method, choice in choices.items()},
        next(iter(heads), None),
        conditions,
    )


def _by_arm(records: Iterable[Record]) -> dict[Arm, Runs]:
    runs: dict[Arm, dict[int, Record]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        arm, seed = Arm.of(record), record["seed"]
        if arm.method not in METHODS:
            raise DataError(f"unknown method {arm.method!r}: known are {', '.join(METHODS)}")
        if seed in runs.setdefault(arm, {}):
            raise DataError(f"two records of seed {seed} of {arm}: keep one of them")
        runs[arm][seed] = record
    return runs


def common(
    cells: Mapping[str, Runs], planned: Collection[int] | None = None
) -> tuple[list[int], str]:
    """The seeds that all cells with runs have, and a sentence on them and on what is missing.

    Missing is a seed of `planned`, or of any cell without it, and a cell without runs.
    """
    present = [set(runs) for runs in cells.values() if runs]
    seeds = sorted(set.intersection(*present)) if present else []
    gaps = lacking(cells, set().union(*present) if planned is None else planned)
    if not gaps:
        return seeds, f"n = {len(seeds)} seeds."
    return seeds, f"n = {len(seeds)} seeds, those that all with runs have. Missing: {gaps}."


def lacking(cells: Mapping[str, Runs], planned: Collection[int]) -> str:
    """Which of the seeds each cell lacks, in words; "" where none lacks any."""
    gaps = []
    for name, runs in cells.items():
        gap = sorted(set(planned) - set(runs))
        if not runs:
            gaps.append(f"{name} (all seeds)")
        elif gap:
            seeds = ", ".join(map(str, gap))
            gaps.append(f"{name} (seed{'s' if len(gap) > 1 else ''} {seeds})")
    return "; ".join(gaps)


def macro(split: str) -> Value:
    """Family-macro accuracy on a split."""
    return lambda record: record["splits"].get(split, {}).get("macro")


def language(split: str) -> Value:
    """Family-macro accuracy of ranking a split's responses by their log-prob."""
    return lambda record: record["splits"].get(split, {}).get("language")


def drift(split: str) -> Value:
    """How far a split's states have moved from the base's."""
    return lambda record: record["drift"].get(split)


def stopped(record: Record) -> float:
    """The share of its steps after which a run's model was taken."""
    return record["stopped"] / record["steps"]


def scores(runs: Runs, seeds: Iterable[int], value: Value) -> np.ndarray:
    """Float64 [seeds], NaN where nothing was measured."""
    found = (value(runs[seed]) if seed in runs else None for seed in seeds)
    return np.array([np.nan if x is None else x for x in found], np.float64)


def standard_error(scores: np.ndarray) -> np.ndarray:
    """That of the mean over seeds, the last axis; NaN of a single one."""
    n = scores.shape[-1]
    return scores.std(-1, ddof=1) / np.sqrt(n) if n > 1 else np.full(scores.shape[:-1], np.nan)
