"""Does GRM generalise better than controls that were tuned as hard? A study on the toy world.

    python -m experiments.grm_gemma --lexicon dev --pretrain --run-dir runs/dev
    python -m experiments.study_grm --screen --base runs/dev/base/export --run-dir runs/screen
    python -m experiments.study_grm --confirm --run-dir runs/study_grm
    python -m experiments.study_grm --report docs/study_grm_records.jsonl --page docs/results_grm.md

GRM (arXiv 2406.10216) keeps the language model beside the reward head and claims better rewards
out of distribution. Here its three variants meet Bradley-Terry and what else might do the same:
early stopping, fitting the head before the rest (arXiv 2202.10054), a pull to the initial weights
(arXiv 1802.01483), and replay of the pretraining text. Every method gets four trials.

`--screen` tries them on the "dev" lexicon, reads `val` alone, and writes the choices. `--confirm`
takes the choices of `study_grm_choices.json` to the "report" lexicon and to seeds that no choice
has seen, evaluates on all splits, and writes the page. Every training run is a file of RUN/jobs;
the same command goes on where it was stopped. `--report` writes the page again from the records, of
which those of the results page are kept beside it.

The rules of the verdict were fixed before the runs, in docs/preregistration_grm.md, and how the
numbers read is in docs/grm.md: refuted in this world.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import numpy as np

from jaxrm import cli, files, statistics
from jaxrm.errors import require
from jaxrm.evaluate.probe import final_states
from jaxrm.methods.bench import Fitted
from jaxrm.methods.library import METHODS as LIBRARY
from jaxrm.methods.method import Fill, Method
from jaxrm.methods.task import Model, Part, Task, Trained
from jaxrm.models import heads
from jaxrm.read.accuracy import macro_accuracy
from jaxrm.read.packed import cosine_distance
from jaxrm.report.tables import markdown
from jaxrm.study import contest, trials, tuning
from jaxrm.study.config import StudyConfig
from jaxrm.study.draws import Condition, Toy
from jaxrm.study.records import Choices, Record, Trial

CONTROLS = ("bt", "bt_early", "lp_ft", "l2", "replay")
VARIANTS = ("grm_sft", "grm_dpo", "grm_dpo_reference_free")
MAIN = CONTROLS + VARIANTS
BOTH = ("bt", "grm_sft")
"""Those that meet in the other parts too."""
PARTS = {
    "main": "GRM and its controls",
    "sizes": "Training pairs and label noise",
    "strengths": "Strength of the text loss",
    "heads": "Depth of the reward head",
    "frozen": "A frozen trunk",
    "curves": "Longer training",
}
SCREENING, EXPLORING, LONGER = 3, 3, 2
"""How many seeds screen, and of those that confirm how many all parts but main have, and longer
training."""
RATES, HEAD_RATES = (3e-5, 1e-4, 3e-4, 1e-3), (3e-3, 1e-2, 3e-2, 1e-1)
"""What Bradley-Terry's learning rate is chosen from, and that of a head which trains alone."""
STRENGTHS = {"l2": (10.0, 30.0, 100.0, 300.0), "replay": (0.03, 0.1, 0.3, 0.6)}
STRENGTHS |= {"grm_sft": (0.01, 0.03, 0.1, 0.3), **dict.fromkeys(VARIANTS[1:], (0.1, 0.3))}
"""What a method's strength is chosen from: at Bradley-Terry's learning rate, and where there are
two strengths, at the next lower one too. A pull of L2 acts for `learning_rate x steps`, so that it
has to be large."""
LOOKS, LOOKED_AT, SAMPLE = 6, 500, 300
"""How often `bt_early` looks, and at how many comparisons of `val`; and of how many of a split, at
most, language ability and drift are."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """The GRM study: choose on one lexicon, confirm on another."""

    run_dir: Path = Path("runs/study_grm")
    """Where the results go; the same command goes on where it was stopped."""
    seed: int = 100
    """The first that confirms; those that screen begin at 0."""
    seeds: int = 12
    """How many confirm. Of them 3 have the parts other than main, 2 that of longer training."""
    screen: bool = False
    """Tune every method on `val` of the dev lexicon; needs --base, which has read it."""
    confirm: bool = False
    """Measure the chosen trials on the report lexicon."""
    report: Path | None = None
    """Write the page again from the records of a confirmation, RUN/records.jsonl."""
    page: Path | None = None
    """Where the page goes, with its figures beside it; RUN/results.md without it."""
    choices: Path = Path(__file__).with_name("study_grm_choices.json")
    """What the screen chose, as --confirm reads it. A screen writes RUN/choices.json."""
    parts: tuple[str, ...] = tuple(PARTS)
    """What --confirm runs."""
    pairs: int = 2000
    """Training pairs of the main condition; the other sizes are a quarter, half and double."""
    items: int = 2000
    """Comparisons of `ood_prompt`; of `val` there are half as many, of other splits a quarter."""

    def __post_init__(self):
        super().__post_init__()
        self.at_least(4, "pairs", "items")
        stages = (self.screen, self.confirm, self.report is not None)
        require(sum(stages) == 1, "--screen, --confirm, --report", "one of the three", stages)
        require(
            self.base is not None or not self.screen, "--base", "given with --screen", self.base
        )
        require(set(self.parts) <= set(PARTS), "--parts", f"among {', '.join(PARTS)}", self.parts)

    def runs(self, methods: tuple[str, ...], lexicon: str) -> trials.Contest:
        """With noisy labels, few of them, and clean ones."""
        sizes = ((0.25, self.pairs), (0.25, self.pairs // 4), (0.0, self.pairs))
        conditions = [Condition(Toy(noise, 0.7, lexicon=lexicon), pairs) for noise, pairs in sizes]
        job = {"run": run, "options": {"validation": LOOKED_AT}, "items": self.items}
        return self.contest(methods, conditions, trials_of, val_items=self.items // 2, **job)


def trials_of(method: str, rate: float) -> list[Trial]:
    """The four settings that a method may choose from, given Bradley-Terry's learning rate."""
    if method not in STRENGTHS:
        return [Trial(each, None) for each in (HEAD_RATES if method == "frozen" else RATES)]
    # The lowest rate has the next higher one beside it, so that there are always two.
    lower, strengths = RATES[abs(RATES.index(rate) - 1)], STRENGTHS[method]
    rates = (rate,) if len(strengths) == 4 else (lower, rate)
    return [Trial(*setting) for setting in itertools.product(rates, strengths)]


def stopped_early(task: Task, method: Method) -> Trained:
    """The model that was best on `val`, the first of equals, at equal parts of its training."""
    bench, best = task.bench, -1.0
    trees = task.data.prepared(bench, method, None).trees
    options = {"rate": task.rate, "epochs": task.epochs, "seed": task.seed, "count": LOOKS}
    for point in bench.points(method, trees, **options):
        read = bench.read(point.params, task.validation, {"rewards": heads.rewards})
        value = macro_accuracy(list(read["rewards"]), task.validation.comparisons)
        if value > best:
            # Copied, because the next step takes their memory.
            best, step, params = value, point.step, jax.tree.map(np.array, point.params)
    fitted = Fitted(bench.structure(), params, step, point.tokens, point.seconds)
    model = Model(bench, method, fitted)
    return Trained(model.scores, [model], [Part(model.reward_model)])


METHODS = LIBRARY | {"bt_early": Method("Bradley-Terry, stopped early", train=stopped_early)}


def confirm(cfg: Config, choices: Choices) -> list[Record]:
    """The records of all parts, each run once, under the first part that asks for it.

    The main part's are first, and that seed by seed: so what is there when it is stopped is
    balanced, and jobs in a row share their data.
    """
    runs, seeds, few = cfg.runs(MAIN, "report"), cfg.measured, cfg.items // 4
    splits = tuple(zip(Toy.splits, (cfg.items, few, few, few, cfg.items // 2), strict=True))
    planned: dict[trials.Job, str] = {}

    def plan(part, seeds, conditions, methods, strengths=(None,), depths=(0,)) -> None:
        every = itertools.product(seeds, conditions, methods, strengths, depths)
        for seed, condition, method, strength, depth in every if part in cfg.parts else ():
            trial = Trial.of(choices[method] | ({} if strength is None else {"strength": strength}))
            head = heads.HeadConfig("mlp", 256, depth) if depth else heads.HeadConfig()
            job = runs.job(method, trial, condition, seed, splits)
            planned.setdefault(dataclasses.replace(job, head=head), part)

    first, exploring = runs.conditions[0], seeds[:EXPLORING]
    sizes = (cfg.pairs // 4, cfg.pairs // 2, cfg.pairs, 2 * cfg.pairs)
    sized = [Condition(Toy(noise, 0.7), pairs) for pairs in sizes for noise in (0.0, 0.25)]
    plan("main", seeds, runs.conditions, MAIN)
    plan("sizes", exploring, sized, BOTH)
    plan("strengths", exploring, [first], ["grm_sft"], strengths=STRENGTHS["grm_sft"])
    plan("heads", exploring, [first], BOTH, depths=(1, 2))
    plan("frozen", exploring, [first], ["frozen"])
    plan("curves", seeds[:LONGER], [first, dataclasses.replace(first, epochs=4)], BOTH)
    made = zip(runs.records(list(planned), "confirm"), planned.values(), strict=True)
    return [record | {"part": part} for record, part in made]


def run(job: trials.Job, base: Path) -> Record:
    """Trains from the base at `base`, evaluates, and returns the record, without its part."""
    record = trials.run(job, base, METHODS, ability)
    for split, share in record.pop("language").items():
        record["splits"][split]["language"] = share
    del record["cost"]  # that of replay would not count its text
    return record


def ability(job: trials.Job, trained: Trained) -> Record:
    """What a record of this study has beside a contest's."""
    [model], condition, language, drift = trained.models, job.condition, {}, {}
    for split, n in job.splits:
        if split in ("id", "ood_prompt"):
            data = trials.packed(model.bench, condition.data, split, min(n, SAMPLE), job.seed)
            asked = model.bench.filled(data, (Fill("states", final_states, "all"),))
            before = np.stack([tree.columns["states"] for tree in asked.trees])
            read = model.read(asked, {"logps": heads.response_logps, "states": final_states})
            language[split] = macro_accuracy(list(read["logps"]), data.comparisons)
            drift[split] = cosine_distance(before, read["states"])
    return {
        "condition": {"pairs": condition.pairs, "epochs": condition.epochs} | vars(condition.data),
        "head": dataclasses.asdict(job.head),
        **{"language": language, "drift": drift, "tokens": model.fitted.tokens},
    }


def main(cfg: Config) -> None:
    """Runs the asked stage, and writes what it found."""
    page = cfg.page or cfg.run_dir / "results.md"
    files.check_apart(page, [cfg.base, cfg.report, cfg.choices])
    if cfg.screen:
        path, runs = cfg.open() / "choices.json", cfg.runs((*MAIN, "frozen"), "dev")
        choices = runs.tune(range(min(cfg.seeds, SCREENING)), RATES[0])
        files.write_json(path, choices)
        print(f"{tuning.choices_table(choices)}\n\n{path}")
        return
    choices = json.loads(contest.left(cfg.choices))
    if cfg.confirm:
        contest.keep(cfg.open(), confirm(cfg, choices), choices)
    lines = contest.left(cfg.report or cfg.run_dir / "records.jsonl").splitlines()
    write(list(map(json.loads, lines)), choices, page)
    print(page)


def write(every: list[Record], choices: Choices, page: Path) -> None:
    """Writes the page as Markdown, with its figures beside it.

    Args:
      every: the records of all runs but the screen's, those of the main condition first.
      choices: the screen's.
    """
    parts = {part: runs for part in PARTS if (runs := of_part(every, part))}
    hours, tokens = (sum(record[name] for record in every) for name in ("seconds", "tokens"))
    counts = (f"{split} {every[0]['splits'][split]['n']:,}" for split in Toy.splits)
    about = f"{ABOUT}\n\n{len(every)} runs: {hours / 3600:.1f} hours and {tokens / 1e6:.0f} "
    about += f"million tokens of training. Comparisons per seed: {', '.join(counts)}."
    if "main" in parts:
        about += f"\n\n{verdicts(parts['main'])}"
    options = {"choices": choices, "against": "bt", "beside": ("language", "drift")}
    runs = {PARTS[part]: contest.Run(runs, **options) for part, runs in parts.items()}
    contest.write(runs, page, title="GRM against its controls on the toy world", about=about)


def of_part(every: list[Record], name: str) -> list[Record]:
    """A part's runs as records of a contest.

    A part that varies one thing of the main condition for `bt` and `grm_sft` borrows their runs
    there: one that several parts asked for is kept by the first of them.
    """
    own = [record for record in every if record["part"] == name]
    if name == "main":
        return list(map(as_of_contest, own))
    first, seeds = every[0]["condition"], {record["seed"] for record in own}
    main = [r for r in every if r["part"] == "main" and r["method"] in BOTH and r["seed"] in seeds]
    own += [r for r in main if name == "sizes" or r["condition"] == first]
    # The published records have longer training's runs of one epoch twice.
    runs = {(r["condition"], r["method"], r["seed"]): r for r in map(as_of_contest, own)}
    return sorted(runs.values(), key=lambda record: record["order"])


def as_of_contest(record: Record) -> Record:
    """A run's record as a contest has it (see jaxrm.study.records)."""
    condition, layers, method = record["condition"], record["head"]["layers"], record["method"]
    words = f"{condition['pairs']:,} pairs, {100 * condition['label_noise']:g} % label noise"
    if condition["epochs"] > 1:
        words += f", {condition['epochs']} epochs"
    if record["head"]["kind"] != "linear":
        words += f", {layers} hidden layer{'s' if layers > 1 else ''}"
    if record["part"] == "strengths":
        method += f", {record['strength']:g}"
    splits = {s: record["splits"][s] | {"drift": record["drift"].get(s)} for s in Toy.splits}
    placed = {"order": (-condition["label_noise"], condition["pairs"], words), "budget": "labels"}
    return record | {"method": method, "condition": words, "splits": splits} | placed


def verdicts(main: list[Record]) -> str:
    """Each variant against the best control and against plain BT at each condition, and what that
    says of GRM at the first. The control is chosen on the endpoint, which favours the controls."""
    rows, verdicts = [], []
    for (condition, _), methods in contest.cells(main).items():
        ranked = [line["method"] for line in contest.ranking(methods, "bt")]
        best = next(method for method in ranked if method in CONTROLS)
        for control in dict.fromkeys((best, "bt")):
            compared = {name: methods[name] for name in (control, *VARIANTS)}
            lines = {line["method"]: line for line in contest.ranking(compared, control)}
            for variant in VARIANTS:
                gain, adjusted = lines[variant]["gain"], lines[variant]["adjusted"]
                verdicts.append((statistics.verdict(gain, worthwhile=0.02), adjusted))
                cells = [gain.n, *contest.gain_cells(gain, adjusted)[:4]]
                rows.append([condition, variant, control, *cells, f"**{verdicts[-1][0]}**"])
    head = ["condition", "variant", "against", "n", "gain", "95 % interval", "p", "Holm p", ""]
    claim = "refuted" if all(verdict == "refuted" for verdict, _ in verdicts[:3]) else "open"
    if any(verdict == "supported" and p < 0.05 for verdict, p in verdicts[:3]):
        claim = "supported"
    return f"## The claim: {claim}\n\n{RULES}\n\n{markdown(head, rows, left=3)}"


ABOUT = """\
Made from the records of `python -m experiments.study_grm --confirm`, by the rules of
`docs/preregistration_grm.md`; how the numbers read is in `docs/grm.md`, and what the base itself
knows (its own ranking, a linear probe) in `docs/toyworld.md`. Each seed redraws families, pairs,
head, order and items; the style cue agrees with 70 % of labels everywhere. Language: how often the
better response is the likelier one under the model's own language-model head. Drift: mean cosine
distance, in hundredths, of the states that rewards are read from to the base's."""
RULES = """\
At the first condition, against the best control, which is the one of `bt`, `bt_early`, `lp_ft`,
`l2` and `replay` with the highest mean on `ood_prompt` itself: the hardest comparison, and a choice
that favours the controls. GRM is supported if one variant is with a Holm p below .05, refuted if
all are, and open otherwise. A variant is supported if the interval of its gain, in points of
accuracy on `ood_prompt` over the control's of the same seed, lies above 0; else refuted if its
upper end is below 2 points; else open. p is adjusted over the three variants."""


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
