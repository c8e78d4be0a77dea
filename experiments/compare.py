"""Which reward-model method should I use? All of them from one base, on one data set, tuned alike.

    python -m experiments.compare --methods bt,label_smoothed,grm_sft,ensemble
    python -m experiments.compare --choices runs/compare/choices.json --run-dir runs/confirmed
    python -m experiments.compare --of rankings
    python -m experiments.compare --base DIR --data SOURCE --eval SOURCE SOURCE
    python -m experiments.compare --report docs/compare/* --page docs/results.md

Every method starts from the same base with the same head and sees the same comparisons in the same
order. First each is tuned on `val`, whose labels are as noisy as those of training, by the same
number of trials: Bradley-Terry by its learning rate, the others by their strength at that rate, or
by their own rate where they have no strength. Then the chosen trials are measured on seeds of their
own data, and every method's gain over Bradley-Terry is tested over seeds. With `--choices` nothing
is tuned: what another run chose is measured on seeds that no choice has seen, at every condition,
and a method that costs more than Bradley-Terry is also given no more training FLOPs than that.

Methods are entries of compare_methods.py. Every training run is a file of RUN/jobs; the same
command goes on where it was stopped, and `--report` writes one page of what several runs left:
their records.jsonl and choices.json.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from experiments.compare_data import Files, Toy
from experiments.compare_methods import METHODS, RANKINGS
from jaxrm import cli, files, toy
from jaxrm.data import sources
from jaxrm.errors import DataError, OptionError, require
from jaxrm.huggingface import hub
from jaxrm.read.packed import Packed, order_of
from jaxrm.report.tables import fill
from jaxrm.report.webpage import leave
from jaxrm.study import contest
from jaxrm.study.contest import Run
from jaxrm.study.lab import Lab
from jaxrm.study.method import Method, Task
from jaxrm.study.recipe import Recipe
from jaxrm.study.records import Choices, Trial
from jaxrm.study.tuning import choice, choices_table
from jaxrm.train.rundir import open_run
from jaxrm.train.sweep import Record, sweep

RATES = (1e-4, 3e-4, 1e-3)
"""What a learning rate is chosen from; as many strengths has every method that has one."""

TUNING_SEEDS, SEEDS, CONFIRMING_SEEDS = 2, 5, 12
FIRST_SEED, FIRST_CONFIRMING = 200, 300
"""Seeds that choose and explore, and those that confirm: no two worlds are the same."""

STANDARDISED_ON = 300
"""Comparisons of `val` that a method may use, as to standardise an ensemble's members."""

COSTLIER = 1.05
"""The ratio of training FLOPs to Bradley-Terry's from which a method has two budgets."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare reward-model methods."""

    methods: str = ""
    """Which, as names between commas; all without it. The baseline is always among them."""
    of: Literal["pairs", "rankings"] = "pairs"
    """What they learn from: pairs, or rankings of four, whose baseline has them torn into pairs."""
    choices: Path | None = None
    """What an earlier run chose: measure it on fresh seeds at every condition, and tune nothing."""
    report: tuple[Path, ...] = ()
    """Write the page again from directories with a run's records.jsonl and choices.json."""
    against: str | None = None
    """With --report: the method that gains are measured against; Bradley-Terry without it."""
    methods_page: Path | None = None
    """With --report: a page of methods whose column `measured` is filled."""
    page: Path | None = None
    """Where the page goes, with its figures beside it; RUN/results.md without it."""
    run_dir: Path = Path("runs/compare")
    base: Path | None = None
    """A directory in Hugging Face layout; the toy base without it."""
    data: tuple[str, ...] = ()
    """Sources of pairs to train on (see jaxrm.data.sources); the toy world without them."""
    eval: tuple[str, ...] = ()
    """Sources of pairs to measure on; the first is the endpoint."""
    length: int = 160
    """Tokens of a row. Longer comparisons are left out of training, and counted; none is left out
    of what is measured."""
    pairs: int = 1000
    """Comparisons to train on."""
    items: int = 1000
    """Comparisons of every split that is measured."""
    val_items: int = 1000
    seeds: int | None = None
    """How many; 5 without it, or 12 with --choices."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""

    def __post_init__(self):
        for name in ("length", "pairs", "items", "val_items"):
            value = getattr(self, name)
            require(value >= 1, f"--{name.replace('_', '-')}", "at least 1", value)
        require(self.seeds is None or self.seeds >= 1, "--seeds", "at least 1", self.seeds)
        require(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)
        if bool(self.data) != bool(self.eval):
            raise OptionError("--data and --eval go together: name sources for both or for neither")
        if self.against and not self.report:
            raise OptionError("--against is for --report: runs are measured against the baseline")
        if self.data and self.of == "rankings":
            raise OptionError("--of rankings is for the toy world")
        unknown = set(self.methods.split(",")) - {"", *self.known}
        if unknown:
            known = ", ".join(self.known)
            raise OptionError(f"--methods: {', '.join(sorted(unknown))} is not among {known}")

    @property
    def known(self) -> Mapping[str, Method]:
        """All methods for this data, the baseline first."""
        return METHODS if self.of == "pairs" else RANKINGS

    @property
    def chosen(self) -> list[str]:
        """The methods asked for, the baseline first."""
        asked = self.methods.split(",") if self.methods else list(self.known)
        return list(dict.fromkeys([next(iter(self.known)), *asked]))


@dataclasses.dataclass(frozen=True)
class Condition:
    """What training data a run has, and for how long."""

    data: Toy | Files
    pairs: int
    epochs: int = 1

    def __str__(self) -> str:
        epochs = f", {self.epochs} epochs" if self.epochs > 1 else ""
        return f"{self.pairs:,} comparisons, {self.data}{epochs}"


def conditions(cfg: Config) -> dict[str, Condition]:
    """Those that are measured; methods are tuned at the first."""
    if cfg.data:
        return {"files": Condition(Files(cfg.data, cfg.eval), cfg.pairs)}
    if cfg.of == "rankings":
        data = Toy(0.0, 0.5, temperature=0.1, responses=4)
        return {f"{n} epochs": Condition(data, cfg.pairs, n) for n in (1, 3)}
    return {
        "mixed": Condition(Toy(label_noise=0.25, cue_agreement=0.7), cfg.pairs),
        "cue": Condition(Toy(label_noise=0.0, cue_agreement=0.9), cfg.pairs),
        "clean": Condition(Toy(label_noise=0.0, cue_agreement=0.5), cfg.pairs),
    }


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run, and all that its record depends on; `base` is the base's fingerprint."""

    of: str
    method: str
    trial: Trial
    condition: Condition
    seed: int
    budget: Literal["labels", "flops"]
    base: str
    length: int
    splits: tuple[tuple[str, int], ...]


# What is run


def tune(cfg: Config, base: Path) -> Choices:
    """Each method's best trial on `val`: {method: {learning_rate, strength, trials}}."""
    condition = next(iter(conditions(cfg).values()))
    seeds = range(FIRST_SEED, FIRST_SEED + min(TUNING_SEEDS, cfg.seeds or SEEDS))
    splits = (("val", cfg.val_items),)

    def choose(asked: Mapping[str, Sequence[Trial]], title: str) -> Choices:
        jobs = [
            job(cfg, base, name, trial, condition, seed, splits)
            for seed in seeds
            for name, trials in asked.items()
            for trial in trials
        ]
        records = run_all(jobs, cfg, base, title)
        return {
            name: choice([r for r in records if r["method"] == name], condition.data.figure)
            for name in asked
        }

    rates = [Trial(rate, None) for rate in RATES]
    baseline, *others = cfg.chosen
    first = choose({baseline: rates}, f"tune {baseline}")
    rate = first[baseline]["learning_rate"]
    asked = {
        name: [Trial(rate, strength) for strength in cfg.known[name].strengths] or rates
        for name in others
    }
    return first | choose(asked, "tune the others") if others else first


def measure(cfg: Config, base: Path, choices: Choices) -> list[Record]:
    """The chosen trials on all splits: at the first condition, or on fresh seeds at all of them."""
    confirming = cfg.choices is not None
    first = FIRST_CONFIRMING if confirming else FIRST_SEED
    count = cfg.seeds or (CONFIRMING_SEEDS if confirming else SEEDS)
    asked = conditions(cfg) if confirming else dict(list(conditions(cfg).items())[:1])
    if missing := [name for name in cfg.chosen if name not in choices]:
        raise DataError(f"{cfg.choices} has no choice for {', '.join(missing)}")

    def jobs(names: Sequence[str], budget: str) -> list[Job]:
        return [
            job(cfg, base, name, Trial.of(choices[name]), condition, seed, all_splits(cfg), budget)
            for seed in range(first, first + count)
            for condition in asked.values()
            for name in names
        ]

    equal_labels = run_all(jobs(cfg.chosen, "labels"), cfg, base, "equal labels")
    if not confirming:
        return equal_labels
    cost = contest.costs(equal_labels)
    costly = [name for name in cfg.chosen if cost[name] > COSTLIER]
    return equal_labels + run_all(jobs(costly, "flops"), cfg, base, "equal FLOPs")


def job(
    cfg: Config,
    base: Path,
    method: str,
    trial: Trial,
    condition: Condition,
    seed: int,
    splits: tuple[tuple[str, int], ...],
    budget: str = "labels",
) -> Job:
    """A run from the base with the options of `cfg`."""
    fingerprint = hub.fingerprint(base)
    return Job(cfg.of, method, trial, condition, seed, budget, fingerprint, cfg.length, splits)


def all_splits(cfg: Config) -> tuple[tuple[str, int], ...]:
    """All that is measured, the endpoint first."""
    names = next(iter(conditions(cfg).values())).data.splits
    return tuple((name, cfg.val_items if name == "val" else cfg.items) for name in names)


def run_all(jobs: Sequence[Job], cfg: Config, base: Path, title: str) -> list[Record]:
    """The records of jobs from one base, in order."""
    here = functools.partial(run, base=base)
    return sweep(jobs, here, cfg.run_dir / "jobs", workers=cfg.workers, progress=title)


def run(job: Job, base: Path) -> Record:
    """Trains from the base at `base`, measures, and returns the record."""
    lab, condition = Lab(base, length=job.length), job.condition
    methods = METHODS if job.of == "pairs" else RANKINGS
    data = packed(lab, condition.data, "train", condition.pairs, job.seed)
    # One Bradley-Terry training, on what a row holds: the unit of all costs.
    unit = condition.epochs * lab.flops(Recipe(), lab.fitting(data.trees))
    task = Task(
        lab,
        data,
        packed(lab, condition.data, "val", STANDARDISED_ON, job.seed),
        rate=job.trial.learning_rate,
        strength=job.trial.strength,
        epochs=condition.epochs,
        seed=job.seed,
        flops=unit if job.budget == "flops" else None,
    )
    trained = methods[job.method].train(task)
    figures = {}
    for split, n in job.splits:
        held_out = packed(lab, condition.data, split, n, job.seed)
        figures[split] = order_of(trained.scores(held_out), held_out.comparisons)
    models = trained.models
    return {
        "method": job.method,
        **dataclasses.asdict(job.trial),
        "condition": str(condition),
        "seed": job.seed,
        "budget": job.budget,
        "splits": figures,
        "cost": sum(model.flops for model in models) / unit,
        "steps": sum(model.fitted.steps for model in models),
        "seconds": round(sum(model.fitted.seconds for model in models), 2),
        "dropped": max(model.dropped for model in models),
    }


@functools.lru_cache(maxsize=16)
def packed(lab: Lab, data: Toy | Files, split: str, n: int, seed: int) -> Packed:
    """What is trained or measured on, once for all methods of a seed."""
    return lab.pack(data.draw(split, n, seed))


# What comes of it


def main(cfg: Config) -> None:
    """Tunes and measures, or measures what was chosen, and writes the page."""
    if cfg.report:
        show({path.name: kept_run(path, cfg.against) for path in cfg.report}, cfg)
        return
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    base = cfg.base or toy.shipped_base()
    reads = [sources.Source.parse(text).location for text in (*cfg.data, *cfg.eval)]
    run_dir = open_run(cfg.run_dir, cfg, [*reads, cfg.base, cfg.choices])
    choices = json.loads(_read(cfg.choices)) if cfg.choices else tune(cfg, base)
    print(choices_table(choices))
    records = measure(cfg, base, choices)
    files.write_json(run_dir / "choices.json", choices)
    with files.replacing(run_dir / "records.jsonl") as draft:
        draft.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    run = kept_run(run_dir)
    leave(run_dir, __doc__, contest.results(run), tables({"Methods": run}))
    show({"Methods": run}, cfg)


def kept_run(directory: Path, against: str | None = None) -> Run:
    """What a run left in a directory."""
    records = [json.loads(line) for line in _read(directory / "records.jsonl").splitlines()]
    choices = json.loads(_read(directory / "choices.json"))
    measured = Toy if records and Toy.splits[0] in records[0]["splits"] else Files
    return Run(records, choices, measured.figure, against)


def tables(runs: Mapping[str, Run]) -> str:
    """Every ranking as text."""
    return "\n\n".join(
        f"{name}: {condition}, {contest.BUDGETS[budget]}\n\n"
        f"{contest.text_table(methods, run.baseline, run.figure)}"
        for name, run in runs.items()
        for (condition, budget), methods in contest.cells(run.records).items()
    )


def show(runs: Mapping[str, Run], cfg: Config) -> None:
    """Writes the page, and says where it is."""
    page = cfg.page or cfg.run_dir / "results.md"
    contest.write(runs, page, title="Methods compared")
    if cfg.methods_page is not None:
        toys = [run for run in runs.values() if run.figure == "macro"]
        text = fill(_read(cfg.methods_page), "measured", contest.in_words(toys))
        with files.replacing(cfg.methods_page) as draft:
            draft.write_text(text, "utf-8")
    print(page)


def _read(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path} does not exist: a run that is done leaves it in its run directory")
    return path.read_text("utf-8")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
