"""The runs of a contest: methods x conditions x seeds, tuned on `val`, then measured.

Every method starts from the same base with the same head and sees the same comparisons in the same
order. Each is tuned on `val`, whose labels are as noisy as those of training; then the chosen
trials are measured on seeds of their own data. Every run is a job whose record is a file, so that
the same contest goes on where it was stopped (`jaxrm.train.sweep`). What can be known before the
first job is a `plan` of them, and a `look` at the data.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from jaxrm import files
from jaxrm.data.packing import TokenTree
from jaxrm.errors import DataError
from jaxrm.huggingface import hub, vocabulary
from jaxrm.methods.bench import Bench
from jaxrm.methods.library import METHODS
from jaxrm.methods.method import Method
from jaxrm.methods.task import InMemory, Task, Trained
from jaxrm.models.heads import HeadConfig
from jaxrm.read.accuracy import order_of
from jaxrm.read.packed import Packed
from jaxrm.study.contest import costs
from jaxrm.study.draws import Condition, Draw
from jaxrm.study.records import Choices, Trial
from jaxrm.study.tuning import choice
from jaxrm.train.sweep import Record, sweep

COSTLIER = 1.05
"""The ratio of training FLOPs to the baseline's from which a method has two budgets."""

Trials = Callable[[str, float], Sequence[Trial]]
"""(method, the baseline's chosen learning rate) -> the settings that it may choose from."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run, and all that its record depends on.

    Attributes:
      base: the base's fingerprint, and how it is trained where that is not a bench's usual way.
      budget: "labels" is all of its epochs, "flops" no more work than the baseline's.
      splits: what is measured: (split, comparisons) each, the endpoint first.
      validation: comparisons of `val` that a method may use, as to standardise an ensemble.
    """

    method: str
    trial: Trial
    condition: Condition
    seed: int
    budget: Literal["labels", "flops"]
    base: str
    splits: tuple[tuple[str, int], ...]
    rows: int = 8
    length: int = 160
    head: HeadConfig = HeadConfig()
    validation: int = 300

    def __str__(self) -> str:
        return f"{self.method}, {self.trial}, seed {self.seed}, {self.condition}, {self.budget}"

    def bench(self, base: Path, options: Mapping[str, Any]) -> Bench:
        """Where it trains: the base in a directory, and further options of `Bench`."""
        return Bench(base, head=self.head, rows=self.rows, length=self.length, **options)


@dataclasses.dataclass(frozen=True)
class Look:
    """What there is of a split.

    Attributes:
      asked, there: comparisons.
      fits: of those there, how many a row of training holds; elsewhere all count.
      key: the hash of those there.
    """

    split: str
    asked: int
    there: int
    fits: int
    key: str


Also = Callable[[Job, Trained], Mapping[str, Any]]
"""A job, and what its method made of it -> further figures of the record."""


def run(
    job: Job,
    base: Path,
    methods: Mapping[str, Method] = METHODS,
    also: Also | None = None,
    bench_options: Mapping[str, Any] = MappingProxyType({}),
) -> Record:
    """Trains from the base at `base`, measures, and returns the record (see `records`)."""
    bench = job.bench(base, bench_options)
    condition = job.condition
    data = packed(bench, condition.data, "train", condition.pairs, job.seed)
    # One Bradley-Terry training, on what a row holds: the unit of all costs.
    unit = condition.epochs * bench.flops(METHODS["bt"], bench.fitting(data.trees))
    task = Task(
        bench,
        InMemory(data),
        packed(bench, condition.data, "val", job.validation, job.seed),
        rate=job.trial.learning_rate,
        strength=job.trial.strength,
        epochs=condition.epochs,
        seed=job.seed,
        steps=condition.steps,
        flops=unit if job.budget == "flops" else None,
        texts=texts(bench, condition.data) if methods[job.method].text else (),
    )
    trained = task.train(methods[job.method])
    figures = {}
    for split, n in job.splits:
        held_out = packed(bench, condition.data, split, n, job.seed)
        figures[split] = order_of(trained.scores(held_out), held_out.comparisons)
    models = trained.models
    return {
        "method": job.method,
        **dataclasses.asdict(job.trial),
        "condition": str(condition),
        "seed": job.seed,
        "budget": job.budget,
        "splits": figures,
        "asked": {"train": condition.pairs, **dict(job.splits)},
        "drawn": len(data.comparisons),
        "cost": sum(model.flops for model in models) / unit,
        "steps": sum(model.fitted.steps for model in models),
        "seconds": round(sum(model.fitted.seconds for model in models), 2),
        "dropped": max((model.dropped for model in models), default=0),
        **({} if also is None else also(job, trained)),
    }


@functools.lru_cache(maxsize=16)
def packed(bench: Bench, data: Draw, split: str, n: int, seed: int) -> Packed:
    """What is trained or measured on, once for all methods of a seed."""
    return bench.pack(data.draw(split, n, seed))


@functools.lru_cache(maxsize=2)
def texts(bench: Bench, data: Draw) -> list[TokenTree]:
    """What a method with text has beside the comparisons, once for all seeds."""
    return bench.texts(data.text())


@dataclasses.dataclass(frozen=True)
class Contest:
    """Which methods meet, under which conditions, and how their runs are made.

    Attributes:
      methods: names, the baseline first.
      conditions: that are measured; methods are tuned at the first.
      trials: what a method is tuned by; the baseline's do not depend on the rate.
      base: a directory in Hugging Face layout.
      out: where the records of jobs go.
      items, val_items: comparisons of each split that is measured.
      run: of a job, as a function of a module; it gets `base` too.
      options: further fields of `Job`.
      keys: by a method's name, what else its records depend on, as a hash of its code.
      bench_options: further fields of `Bench`, which `run` gets too where there are some.
      workers: processes; one for each core without it.
    """

    methods: Sequence[str]
    conditions: Sequence[Condition]
    trials: Trials
    base: Path
    out: Path
    items: int
    val_items: int
    run: Callable[..., Record] = run
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bench_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    workers: int | None = None

    # Before the first job

    def plan(self, tuning: int, seeds: int, rate: float, *, second_budget: bool) -> str:
        """How many jobs there are, and of what: a line for each stage, and their sum.

        Args:
          tuning: seeds that choose, by `tune` with this `rate`; 0 where choices are made already.
          seeds, second_budget: of what is measured, as by `measure`.
        """
        baseline, *others = self.methods
        stages, total = [], 0
        for title, names in ((baseline, [baseline]), ("the others", others)):
            tried = sum(len(self.trials(name, rate)) for name in names) if tuning else 0
            if tried:
                jobs, total = tried * tuning, total + tried * tuning
                of = f"{len(names):,} methods, " if names == others else ""
                stages.append(f"tune {title}: {of}{tried:,} trials x {tuning} seeds = {jobs:,}")
        counts = len(self.methods), seeds, len(self.conditions)
        jobs = math.prod(counts)
        total += jobs
        words = "{} methods x {} seeds x {} conditions".format(*counts)
        stages.append(f"measure: {words} = {jobs:,}")
        if second_budget:
            stages.append(
                "measure again, with no more FLOPs than the baseline: those that cost more"
            )
        least = "at least " if second_budget else ""
        return "\n".join(
            [*stages, f"{least}{total:,} jobs, each one method's training and scoring"]
        )

    def look(self, seed: int) -> list[Look]:
        """What there is of the first condition's data at a seed, of `train` and every split.

        Raises:
          ModelFileError, TokenizerError, DataError: what each job would meet, before any is run.
        """
        condition = self.conditions[0]
        splits = self.splits(condition)
        job = self.job(self.methods[0], Trial(0.0, None), condition, seed, splits)
        bench = job.bench(self.base, self.bench_options)
        vocabulary.check(bench.config, bench.tokenizer, str(self.base))
        looks = []
        for split, asked in (("train", condition.pairs), *splits):
            there = condition.data.draw(split, asked, seed)
            if not there:
                raise DataError(f"{condition.data}: there is nothing in {split}: name more data")
            trees = bench.trees(there)
            fits = len(bench.fitting(trees)) if split == "train" else len(there)
            content = repr([(c.prompt, c.responses, c.ranks) for c in there])
            key = hashlib.sha256(content.encode()).hexdigest()
            looks.append(Look(split, asked, len(there), fits, key))
        if not looks[0].fits:
            longest = f"none of {looks[0].there:,} comparisons fits a row of {bench.length} tokens"
            raise DataError(f"{condition.data}: {longest}: raise --length")
        return looks

    # The jobs

    def tune(self, seeds: Sequence[int], rate: float) -> Choices:
        """Each method's best trial on `val`: {method: {learning_rate, strength, trials}}.

        Args:
          rate: that stands for the baseline's before it is chosen.
        """
        condition, splits = self.conditions[0], (("val", self.val_items),)

        def choose(names: Sequence[str], rate: float, title: str) -> Choices:
            jobs = [
                self.job(name, trial, condition, seed, splits)
                for seed in seeds
                for name in names
                for trial in self.trials(name, rate)
            ]
            records, figure = self.records(jobs, title), condition.data.figure
            return {
                name: choice([r for r in records if r["method"] == name], figure) for name in names
            }

        baseline, *others = self.methods
        first = choose([baseline], rate, f"tune {baseline}")
        rate = first[baseline]["learning_rate"]
        return first | choose(others, rate, "tune the others") if others else first

    def measure(
        self, choices: Choices, seeds: Sequence[int], *, second_budget: bool
    ) -> list[Record]:
        """The chosen trials on all splits at every condition.

        Args:
          second_budget: whether a method that costs more than the baseline is measured again with
            no more training FLOPs than that.
        """
        if missing := [name for name in self.methods if name not in choices]:
            raise DataError(f"there is no choice for {', '.join(missing)}")

        def jobs(names: Sequence[str], budget: str) -> list[Job]:
            return [
                self.job(
                    name,
                    Trial.of(choices[name]),
                    condition,
                    seed,
                    self.splits(condition),
                    budget=budget,
                )
                for seed in seeds
                for condition in self.conditions
                for name in names
            ]

        equal_labels = self.records(jobs(self.methods, "labels"), "equal labels")
        if not second_budget:
            return equal_labels
        cost = costs(equal_labels)
        costly = [name for name in self.methods if cost[name] > COSTLIER]
        return equal_labels + self.records(jobs(costly, "flops"), "equal FLOPs")

    def splits(self, condition: Condition) -> tuple[tuple[str, int], ...]:
        """All that is measured, the endpoint first."""
        sizes = {"val": self.val_items}
        return tuple((name, sizes.get(name, self.items)) for name in condition.data.splits)

    def job(
        self,
        method: str,
        trial: Trial,
        condition: Condition,
        seed: int,
        splits: tuple[tuple[str, int], ...],
        budget: Literal["labels", "flops"] = "labels",
    ) -> Job:
        """A run from the base."""
        base = " ".join([self.key, *([self.keys[method]] if method in self.keys else [])])
        return Job(method, trial, condition, seed, budget, base, splits, **self.options)

    @functools.cached_property
    def key(self) -> str:
        """The hash of the base, and how it is trained where that is not a bench's usual way."""
        # It reads all of the base's files, and a contest has hundreds of jobs.
        key = hub.fingerprint(self.base)
        if not self.bench_options:
            return key
        options = {name: _plain(value) for name, value in self.bench_options.items()}
        return f"{key} {json.dumps(options, sort_keys=True, default=str)}"

    def records(self, jobs: Sequence[Job], title: str) -> list[Record]:
        """The records of jobs, in order."""
        there = functools.partial(self.run, base=self.base)
        if self.bench_options:
            there = functools.partial(there, bench_options=self.bench_options)
        return sweep(jobs, there, self.out, workers=self.workers, progress=title)


def _plain(value: Any) -> Any:
    """An option as a key has it: of a file what is in it, for it may be changed or moved."""
    if isinstance(value, Path):
        return hashlib.sha256(value.read_bytes()).hexdigest()
    return files.plain(value)
