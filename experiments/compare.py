"""Which reward-model method should I use? All of them from one base, on one data set, tuned alike.

    python -m experiments.compare --methods bt,label_smoothed,grm_sft,ensemble
    python -m experiments.compare --choices runs/compare/choices.json --run-dir runs/confirmed
    python -m experiments.compare --of rankings
    python -m experiments.compare --base DIR --data SOURCE --eval SOURCE SOURCE
    python -m experiments.compare --report docs/compare/{screen,confirmation,rankings,real} \\
        --page docs/results.md --methods-page docs/methods.md

Every method starts from the same base with the same head and sees the same comparisons in the same
order. First each is tuned on `val`, whose labels are as noisy as those of training, by the same
number of trials: Bradley-Terry by its learning rate, the others by their strength at that rate, or
by their own rate where they have no strength. Then the chosen trials are measured on seeds of their
own data, and every method's gain over Bradley-Terry is tested over seeds. With `--choices` nothing
is tuned: what another run chose is measured on seeds that no choice has seen, at every condition,
and a method that costs more than Bradley-Terry is also given no more training FLOPs than that.

Methods are those of jaxrm/methods. Every training run is a file of RUN/jobs; the same
command goes on where it was stopped, and `--report` writes one page of what several runs left:
their records.jsonl and choices.json.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jaxrm import cli, files, toy
from jaxrm.data import sources
from jaxrm.errors import OptionError, require
from jaxrm.methods.library import COMPARED, METHODS
from jaxrm.methods.method import Method
from jaxrm.methods.rankings import RANKINGS
from jaxrm.report.tables import fill
from jaxrm.report.webpage import leave
from jaxrm.study import contest
from jaxrm.study.contest import Run
from jaxrm.study.draws import Condition, Files, Toy
from jaxrm.study.records import Trial
from jaxrm.study.trials import Contest
from jaxrm.study.tuning import choices_table
from jaxrm.train.rundir import open_run

RATES = (1e-4, 3e-4, 1e-3)
"""What a learning rate is chosen from; as many strengths has every method that has one."""

TUNING_SEEDS, SEEDS, CONFIRMING_SEEDS = 2, 5, 12
FIRST_SEED, FIRST_CONFIRMING = 200, 300
"""Seeds that choose and explore, and those that confirm: no two worlds are the same."""


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
        return COMPARED if self.of == "pairs" else RANKINGS

    @property
    def chosen(self) -> list[str]:
        """The methods asked for, the baseline first."""
        asked = self.methods.split(",") if self.methods else list(self.known)
        return list(dict.fromkeys([next(iter(self.known)), *asked]))


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


def contest_of(cfg: Config, base: Path) -> Contest:
    """The contest that is asked for."""
    asked = list(conditions(cfg).values())

    def trials(name: str, rate: float) -> list[Trial]:
        rates = [Trial(each, None) for each in RATES]
        return [Trial(rate, strength) for strength in METHODS[name].strengths] or rates

    return Contest(
        cfg.chosen,
        asked if cfg.choices else asked[:1],
        trials,
        base,
        cfg.run_dir / "jobs",
        items=cfg.items,
        val_items=cfg.val_items,
        options={"length": cfg.length},
        workers=cfg.workers,
    )


# What comes of it


def main(cfg: Config) -> None:
    """Tunes and measures, or measures what was chosen, and writes the page."""
    if cfg.report:
        show({path.name: contest.kept(path, cfg.against) for path in cfg.report}, cfg)
        return
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    base = cfg.base or toy.shipped_base()
    reads = [sources.Source.parse(text).location for text in (*cfg.data, *cfg.eval)]
    run_dir = open_run(cfg.run_dir, cfg, [*reads, cfg.base, cfg.choices])
    runs, seeds = contest_of(cfg, base), range(FIRST_SEED, FIRST_SEED + (cfg.seeds or SEEDS))
    if cfg.choices:
        choices = json.loads(contest.left(cfg.choices))
        seeds = range(FIRST_CONFIRMING, FIRST_CONFIRMING + (cfg.seeds or CONFIRMING_SEEDS))
    else:
        choices = runs.tune(seeds[:TUNING_SEEDS], RATES[0])
    print(choices_table(choices))
    records = runs.measure(choices, seeds, second_budget=cfg.choices is not None)
    contest.keep(run_dir, records, choices)
    run = contest.kept(run_dir)
    leave(run_dir, __doc__, contest.results(run), contest.as_text({"Methods": run}))
    show({"Methods": run}, cfg)


def show(runs: Mapping[str, Run], cfg: Config) -> None:
    """Writes the page, and says where it is."""
    page = cfg.page or cfg.run_dir / "results.md"
    contest.write(runs, page, title="Methods compared")
    if cfg.methods_page is not None:
        toys = [run for run in runs.values() if run.figure == "macro"]
        text = fill(cfg.methods_page.read_text("utf-8"), "measured", contest.in_words(toys))
        with files.replacing(cfg.methods_page) as draft:
            draft.write_text(text, "utf-8")
    print(page)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
