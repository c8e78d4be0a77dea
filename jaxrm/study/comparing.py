"""The command that compares methods: all from one base, on one data set, tuned alike.

    def methods() -> dict[str, Method]:
        return {"my_method": MY_METHOD}

    if __name__ == "__main__":
        comparing.run(methods, __doc__)

Own methods come in a function of a module, because a loss cannot be sent to the processes that
train: each of them calls it. Beside one's own, the methods of the library can be named that learn
from the same data. Records of one's own methods are made anew when that function's file changes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxrm import cli, files, toy
from jaxrm.data import sources
from jaxrm.errors import OptionError, require, require_positive
from jaxrm.huggingface import names
from jaxrm.huggingface.names import Local
from jaxrm.methods.bench import Bench
from jaxrm.methods.library import COMPARED
from jaxrm.methods.method import Method
from jaxrm.methods.rankings import RANKED, RANKINGS
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute
from jaxrm.report import parts, webpage
from jaxrm.report.parts import Commands, Part
from jaxrm.report.tables import aligned, fill, number
from jaxrm.study import contest, keeping, trials
from jaxrm.study.contest import LEAST_SEEDS, Run
from jaxrm.study.draws import Condition, Files, Toy
from jaxrm.study.records import Record, Trial
from jaxrm.study.trials import Contest, Job, Look
from jaxrm.study.tuning import choices_table
from jaxrm.train import rundir
from jaxrm.train.rundir import check_inputs, open_run

Methods = Callable[[], Mapping[str, Method]]
"""A function of a module that returns methods by name."""

BASELINE = {"pairs": "bt", "rankings": "shuffled"}
"""What gains are measured against, without --baseline."""

RATES = (1e-4, 3e-4, 1e-3)
"""What a learning rate is chosen from; the library's methods have as many strengths, or none."""

TUNING_SEEDS, SEEDS, CONFIRMING_SEEDS = 2, 5, 12
FIRST_SEED, FIRST_CONFIRMING = 200, 300
"""Seeds that choose and explore, and those that confirm: no two worlds are the same."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare reward-model methods."""

    methods: str = ""
    """Which, as names between commas; without it all, or all in a file of one's own. The baseline
    is always among them."""
    baseline: str | None = None
    """What the others are measured against: Bradley-Terry without it, or of rankings the pairs that
    they are torn into. It is tuned by its learning rate, at its middle strength if it has one."""
    of: Literal["pairs", "rankings"] = "pairs"
    """What they learn from: pairs, or rankings of four, whose baseline has them torn into pairs."""
    choices: Path | None = None
    """What an earlier run chose: measure it on fresh seeds at every condition, and tune nothing."""
    report: tuple[Path, ...] = ()
    """Write the page again from directories with a run's records.jsonl and choices.json."""
    against: str | None = None
    """With --report: the method that gains are measured against; that of the runs without it."""
    methods_page: Path | None = None
    """With --report: a page of methods whose column `measured` is filled."""
    page: Path | None = None
    """Where the page goes, with its figures beside it; RUN/results.md without it."""
    run_dir: Path = Path("runs/compare")
    base: Path | None = None
    """A directory in Hugging Face layout, or a name on the Hub; the toy base without it."""
    chat_template: Path | None = None
    """A file with the chat template, for a base that brings none."""
    data: tuple[str, ...] = ()
    """Sources of pairs to train on (see jaxrm.data.sources); the toy world without them."""
    eval: tuple[str, ...] = ()
    """Sources of pairs to measure on; the first is the endpoint."""
    train: Literal["all", "lora", "head"] | None = None
    """Which parameters train: low-rank updates and the head with --base, all of them without it."""
    lora: LoraConfig = LoraConfig()
    """The low-rank updates of --train lora."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in, and is kept in where it is frozen."""
    rates: tuple[float, ...] = RATES
    """Learning rates that the baseline, and each method without a strength, chooses from."""
    length: int = 160
    """Tokens of a row. Longer comparisons are left out of training, and counted; none is left out
    of what is measured."""
    pairs: int = 1000
    """Comparisons to train on."""
    items: int = 1000
    """Comparisons of every split that is measured."""
    val_items: int = 1000
    """Comparisons of `val`, by which trials are chosen: a tenth of the prompts of --data."""
    seeds: int | None = None
    """How many; 5 without it, or 12 with --choices. Below 6 no interval excludes 0."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""

    def __post_init__(self):
        require_positive(self, "length", "pairs", "items", "val_items")
        require(self.seeds is None or self.seeds >= 1, "--seeds", "at least 1", self.seeds)
        require(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)
        usable = bool(self.rates) and all(0 < rate < math.inf for rate in self.rates)
        require(usable, "--rates", "numbers above 0", self.rates)
        distinct = len(set(self.rates)) == len(self.rates)
        require(distinct, "--rates", "different from each other", self.rates)
        if bool(self.data) != bool(self.eval):
            raise OptionError("--data and --eval go together: name sources for both or for neither")
        if self.against and not self.report:
            raise OptionError("--against is for --report: a run takes --baseline")
        if self.data and self.of == "rankings":
            raise OptionError("--of rankings is for the toy world")

    @property
    def trains(self) -> Literal["all", "lora", "head"]:
        """Which parameters do."""
        return self.train or ("all" if self.base is None else "lora")

    @property
    def measured(self) -> range:
        """The seeds that are measured."""
        if self.choices:
            return range(FIRST_CONFIRMING, FIRST_CONFIRMING + (self.seeds or CONFIRMING_SEEDS))
        return range(FIRST_SEED, FIRST_SEED + (self.seeds or SEEDS))


# Which methods meet


def library() -> dict[str, Method]:
    """Those of the library that learn from pairs alone, and those of rankings."""
    return {**COMPARED, **RANKINGS}


@functools.cache
def known(methods: Methods) -> dict[str, Method]:
    """The library's and one's own, made once in a process, so that runs share compilations.

    Raises OptionError where one of them has the name of another of the library.
    """
    own, shared = methods(), library()
    if taken := [name for name in own if name in shared and own[name] != shared[name]]:
        problem = "named as another of the library: give it a name of its own"
        raise OptionError(f"{', '.join(taken)}: a method of yours is {problem}")
    return {**shared, **own}


@dataclasses.dataclass(frozen=True)
class Entries:
    """The methods of a comparison.

    Attributes:
      baseline: the name of the one that gains are measured against.
      methods: by name, the baseline among them.
    """

    baseline: str
    methods: Mapping[str, Method]

    @property
    def names(self) -> list[str]:
        """The baseline first, as a contest has it."""
        return [self.baseline, *(name for name in self.methods if name != self.baseline)]

    def trials(self, rates: Sequence[float]) -> trials.Trials:
        """The baseline's are learning rates; the others' are strengths at the rate it chose, or
        rates where they have no strength."""

        def of(name: str, rate: float) -> list[Trial]:
            method = self.methods[name]
            if name == self.baseline or not method.strengths:
                return [Trial(each, method.default) for each in rates]
            return [Trial(rate, strength) for strength in method.strengths]

        return of


def entries(cfg: Config, methods: Methods) -> Entries:
    """The methods asked for. Raises OptionError for one that is not known for this data."""
    fitting = {
        name: method
        for name, method in known(methods).items()
        if (method.needs == RANKED) == (cfg.of == "rankings")
    }
    baseline = cfg.baseline or BASELINE[cfg.of]
    mine = [name for name in methods() if name in fitting]
    asked = cfg.methods.split(",") if cfg.methods else mine
    for option, named in (("--methods", asked), ("--baseline", [baseline])):
        if unknown := sorted(set(named) - {"", *fitting}):
            problem = f"is not among {', '.join(fitting)}"
            raise OptionError(f"{option}: {', '.join(unknown)} {problem}")
    chosen = dict.fromkeys([baseline, *filter(None, asked)])
    return Entries(baseline, {name: fitting[name] for name in chosen})


def run_job(job: Job, base: Path, methods: Methods, **options: Any) -> Record:
    """`trials.run`, in a process that gets the methods by itself."""
    return trials.run(job, base, known(methods), **options)


def source_key(methods: Methods) -> str:
    """The hash of the file that makes one's own methods."""
    path = inspect.getsourcefile(methods)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""


# On what


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


def bench_options(cfg: Config, base: Path, run_dir: Path) -> dict[str, Any]:
    """What the bench has beside the base, where it is not the usual.

    Raises TokenizerError where the base has no tokenizer, or the template cannot be read.
    """
    options: dict[str, Any] = {} if cfg.trains == "all" else {"train": cfg.trains}
    if cfg.trains == "lora":
        options["lora"] = cfg.lora
    if cfg.dtype != Compute().dtype:
        options["compute"] = Compute(cfg.dtype)
    if cfg.chat_template is not None:
        options["chat_template"] = cfg.chat_template
    day = rundir.day(run_dir)
    if Bench(base, **options, day=day).tokenizer.dated:
        options["day"] = day
    return options


def contest_of(cfg: Config, methods: Methods, base: Path, options: Mapping[str, Any]) -> Contest:
    """The contest that is asked for; `options` are the bench's."""
    asked, entered, shared = list(conditions(cfg).values()), entries(cfg, methods), library()
    own = [name for name in entered.names if name not in shared]
    return Contest(
        entered.names,
        asked if cfg.choices else asked[:1],
        entered.trials(cfg.rates),
        base,
        cfg.run_dir / "jobs",
        items=cfg.items,
        val_items=cfg.val_items,
        run=functools.partial(run_job, methods=methods),
        options={"length": cfg.length},
        bench_options=options,
        keys=dict.fromkeys(own, source_key(methods)) if own else {},
        workers=cfg.workers,
    )


# What is done


def run(methods: Methods, description: str | None, trained_by: str | None = None) -> None:
    """Parses the command line and compares.

    Args:
      methods: one's own, or `library`.
      trained_by: the module whose command (`jaxrm.study.command`) trains one's own methods, so that
        the page can say how to keep one.
    """
    there = functools.partial(main, methods=methods, description=description, trained_by=trained_by)
    cli.run(there, Config, description)


def main(
    cfg: Config,
    methods: Methods = library,
    description: str | None = "Methods compared",
    trained_by: str | None = None,
) -> None:
    """Tunes and measures, or measures what was chosen, and writes the page."""
    if cfg.report:
        show({path.name: contest.kept(path, cfg.against) for path in cfg.report}, cfg)
        return
    entered = entries(cfg, methods)
    check_sendable(cfg, methods)
    choices = json.loads(contest.left(cfg.choices)) if cfg.choices else None
    reads = [sources.Source.parse(text).location for text in (*cfg.data, *cfg.eval)]
    run_dir = open_run(cfg.run_dir, cfg, [*reads, cfg.base, cfg.chat_template, cfg.choices])
    found = Local(toy.shipped_base())
    if cfg.base is not None:
        # A name on the Hub means the commit that the comparison began with.
        found = names.local(cfg.base, rundir.recorded(run_dir, rundir.REVISION))
    options = bench_options(cfg, found.directory, run_dir)
    runs, seeds = contest_of(cfg, methods, found.directory, options), cfg.measured
    looks = runs.look(seeds[0])
    inputs = {"the base": runs.key, "the data": "".join(look.key for look in looks)}
    inputs |= {rundir.DAY: options["day"].isoformat()} if "day" in options else {}
    inputs |= {rundir.REVISION: found.revision} if found.revision else {}
    check_inputs(run_dir, inputs)
    tuning = 0 if cfg.choices else min(TUNING_SEEDS, len(seeds))
    confirms = cfg.choices is not None
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    print(before(cfg, looks, seeds[0]))
    print(runs.plan(tuning, len(seeds), cfg.rates[0], second_budget=confirms))
    for line in uneven(entered, cfg):
        print(line)
    if choices is None:
        choices = runs.tune(seeds[:TUNING_SEEDS], cfg.rates[0])
    print(choices_table(choices))
    records = runs.measure(choices, seeds, second_budget=confirms)
    contest.keep(run_dir, records, choices)
    measured = {"Methods": contest.kept(run_dir)}
    keeps = how_to_keep(cfg, measured["Methods"], trained_by)
    text = contest.as_text(measured)
    for part in keeps:
        text += f"\n\n{part.content[0]}\n\n" + "\n".join(part.content[1].lines)
    how = [Part("How to read this", [contest.READING]), *contest.shown(measured), *keeps]
    sections = [*parts.sections(how), webpage.configuration(dataclasses.asdict(cfg))]
    title = description or "Methods compared"
    webpage.leave(run_dir, title, contest.results(measured["Methods"]), text, sections)
    show(measured, cfg, keeps)


def check_sendable(cfg: Config, methods: Methods) -> None:
    """Raises OptionError where other processes could not find the methods."""
    if cfg.workers == 1:
        return
    try:
        pickle.dumps(methods)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise OptionError(
            f"{methods} is not a function that a module has by its name ({error}), so other "
            "processes cannot call it: define it at the top of its file, or ask for --workers 1"
        ) from error


def before(cfg: Config, looks: Sequence[Look], seed: int) -> str:
    """What there is to train and measure on, and what cannot come of it, for a terminal."""
    head = ["split", "asked for", "there", "fit a row", "± points"]
    rows = [
        [
            look.split,
            f"{look.asked:,}",
            f"{look.there:,}",
            f"{look.fits:,}" if look.split == "train" else "",
            "" if look.split == "train" else number(0.5 / math.sqrt(look.there)),
        ]
        for look in looks
    ]
    said = [
        f"Trains {cfg.trains} of {cfg.base or 'the toy base'}. Comparisons of seed {seed}; ± is "
        "one standard error of an accuracy of 50 % over them:",
        aligned(head, rows),
    ]
    train = looks[0]
    if train.fits < train.there:
        said.append(
            f"{train.there - train.fits:,} of {train.there:,} comparisons of train are longer than "
            f"a row of {cfg.length} tokens and are left out: --length takes more."
        )
    said += [
        f"{look.split}: {look.there:,} comparisons, where {look.asked:,} were asked for."
        for look in looks
        if look.there < look.asked
    ]
    if len(cfg.measured) < LEAST_SEEDS:
        said.append(
            f"--seeds {len(cfg.measured)}: with fewer than {LEAST_SEEDS} no interval can exclude "
            "0, so this can choose methods to look at, and claim nothing."
        )
    return "\n".join(said)


def uneven(entered: Entries, cfg: Config) -> list[str]:
    """A line where methods have more or fewer trials than the baseline."""
    trials_of = entered.trials(cfg.rates)
    counts = {name: len(trials_of(name, cfg.rates[0])) for name in entered.names}
    others = {name: n for name, n in counts.items() if n != len(cfg.rates)}
    if cfg.choices or not others:
        return []
    listed = ", ".join(f"{name} {n}" for name, n in others.items())
    return [
        f"The baseline has {len(cfg.rates)} trials; others have more or fewer, and who tries more "
        f"has more luck: {listed}."
    ]


def how_to_keep(cfg: Config, measured: Run, trained_by: str | None) -> list[Part]:
    """The part of the page with the commands that train and keep a model by each method, the best
    on the endpoint first; none for rankings, which that command has no toy data of."""
    if cfg.of == "rankings":
        return []
    runs = next(iter(contest.cells(measured.records).values()))
    shared, lines, own = library(), [], []
    for line in contest.ranking(runs, measured.baseline, measured.figure):
        name, module = line["method"], keeping.TRAINER
        if name not in shared:
            module = trained_by or keeping.UNNAMED
            own += [] if trained_by else [name]
        lines.append(keeping.command(cfg, name, line["trial"], module))
    drew = f"{cfg.pairs:,} comparisons of it"
    where = f"all of --data (a run here drew {drew})" if cfg.data else "the toy world that it has"
    text = (
        "No model was kept. Each of these trains one by its method and the trial that was chosen, "
        f"on {where}, and leaves it in `export`; the best on the endpoint comes first."
    )
    if own:
        text += (
            f" {keeping.UNNAMED} stands for a module of yours that ends in "
            f"`jaxrm.study.command.run(methods(), __doc__)`, for {', '.join(own)}."
        )
    return [Part("To keep a model", [text, Commands(lines)])]


def show(runs: Mapping[str, Run], cfg: Config, below: Sequence[Part] = ()) -> None:
    """Writes the page, and says where it is."""
    page = cfg.page or cfg.run_dir / "results.md"
    contest.write(runs, page, title="Methods compared", below=below)
    if cfg.methods_page is not None:
        toys = [run for run in runs.values() if run.figure == "macro"]
        text = fill(cfg.methods_page.read_text("utf-8"), "measured", contest.in_words(toys))
        with files.replacing(cfg.methods_page) as draft:
            draft.write_text(text, "utf-8")
    print(page)
