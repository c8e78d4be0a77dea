"""Evaluate a reward model, or anything else that scores responses, on benchmarks.

    python -m jaxrm.evaluate --model DIR_OR_NAME --benchmarks rewardbench,hhh --out OUT
    python -m jaxrm.evaluate --longer --sets my_pairs.jsonl --out OUT

leaves OUT/results.json, OUT/report.html, and every score in OUT/<benchmark>/items.jsonl. The same
command goes on where it was stopped: a benchmark that has its scores is not scored again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Literal

import jax

from jaxrm import cli, files, parallel
from jaxrm.cli.help import another
from jaxrm.data import sources
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, OptionError, RunDirError, require
from jaxrm.evaluate import benchmark, record, scorecard, scorers
from jaxrm.evaluate.assess import assess, finite
from jaxrm.evaluate.benchmark import Benchmark
from jaxrm.evaluate.benchmarks import BENCHMARKS, contrasts, pairs
from jaxrm.evaluate.scorers import Scorer
from jaxrm.huggingface import hub, names, vocabulary
from jaxrm.huggingface.names import Local
from jaxrm.models import transformer
from jaxrm.partial import digest
from jaxrm.read import scoring

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Config:
    """Evaluate a scorer: exactly one of --model, --recorded, --words and --longer."""

    out: Path
    """Where results go."""
    benchmarks: tuple[str, ...] = ()
    """Which benchmarks, with spaces or commas between them."""
    sets: tuple[str, ...] = ()
    """Sources of pairs or ranked responses of your own (see jaxrm.data.sources)."""
    contrast: tuple[str, ...] = ()
    """Sources of pairs or ranked responses to build Contrast Instructions from."""
    data: Path | None = None
    """A local copy of the benchmarks in place of the Hub: a directory that holds their data sets,
    each named as on the Hub without its owner, or, of a single benchmark, its data set or file."""
    model: Path | None = None
    """A reward model in Hugging Face layout, or a mixture of several, with its tokenizer: a
    directory, or a name on the Hub (owner/name or owner/name@revision)."""
    adapter: Path | None = None
    """A LoRA adapter in PEFT's or GRM's layout beside it, likewise, which may bring the reward
    head."""
    chat_template: Path | None = None
    """A file with the chat template, for a tokenizer that brings none."""
    recorded: Path | None = None
    """Scores that exist: rows {"id", "rewards"}, as jaxrm.score writes."""
    words: str | None = None
    """A source of comparisons: a linear model of words is fitted to it and is the scorer."""
    longer: bool = False
    """The longer answer scores higher."""
    items: record.Format = "jsonl"
    """How every response's score is left."""
    rows: int = 8
    """Rows per batch."""
    row_length: int = 1024
    """Tokens per row; longer texts get longer rows."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in; heads and rewards are float32 always."""
    mesh: parallel.MeshShape = parallel.MeshShape()
    """How devices are used."""

    def __post_init__(self):
        require(self.rows >= 1, "--rows", "at least 1", self.rows)
        require(self.row_length >= 1, "--row-length", "at least 1", self.row_length)


def main(config: Config) -> None:
    """Scores what has no scores yet, and writes the page after each benchmark."""
    parallel.start()
    wanted = chosen(config)
    _check_apart(config)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirError(f"{config.out} cannot be made ({error}): choose another --out") from error
    # All data is found, and found to be readable, before an hour is spent on the first of it.
    data = {name: benchmark.read(suite, place) for name, (suite, place) in wanted.items()}
    for name, (suite, _) in wanted.items():
        if short := benchmark.short_of(suite, data[name]):
            log.warning("%s: %s", name, benchmark.withheld(short))
    scorer, about = scorer_of(config)
    results: dict[str, Any] = {"scorer": about, "benchmarks": {}}
    for name, (suite, _) in wanted.items():
        comparisons, folder = data[name], config.out / name
        settings = about | {"data": record.key(comparisons)}
        scores = record.read(folder, settings)
        if scores is None:
            print(f"{name}: {len(comparisons):,} comparisons")
            scores = finite(scorer(comparisons))
            if jax.process_index() == 0:
                record.write(folder, suite, comparisons, scores, settings, config.items)
        results["benchmarks"][name] = files.plain(assess(suite, comparisons, scores))
        if jax.process_index() == 0:
            files.write_json(config.out / "results.json", results)
            with files.replacing(config.out / "report.html") as draft:
                draft.write_text(scorecard.page(results), "utf-8")
    if jax.process_index() == 0:
        print(
            f"{scorecard.table(results)}\n\n"
            f"every figure: {config.out / 'report.html'}\n"
            f"against another: {another('compare', 'jaxrm.evaluate.compare')} {config.out} OTHER"
        )


def _check_apart(config: Config) -> None:
    """Raises OptionError where results would go into what the options name to be read."""
    texts = (*config.sets, *config.contrast, *filter(None, [config.words]))
    places = [sources.Source.parse(text).location for text in texts]
    of_model = [config.model, config.adapter, config.chat_template]
    files.check_apart(config.out, [*places, config.data, config.recorded], of_model)


def chosen(config: Config) -> dict[str, tuple[Benchmark, Path | None]]:
    """The benchmarks by name, each with where its data is if not where it says.

    Raises OptionError for a name that is not known or comes twice, or for none.
    """
    names = [name for part in config.benchmarks for name in part.split(",") if name]
    of_sources = [*map(pairs, config.sets), *map(contrasts, config.contrast)]
    valid = ", ".join(BENCHMARKS)
    if not names and not of_sources:
        raise OptionError(f"name --benchmarks ({valid}), --sets or --contrast")
    by_name = {}
    for name in names:
        if name not in BENCHMARKS:
            raise OptionError(f"--benchmarks: {name!r} is not one of {valid}; other data is --sets")
        by_name[name] = BENCHMARKS[name], config.data
    for suite in of_sources:
        if suite.name in by_name:
            problem = f"two benchmarks are named {suite.name}"
            raise OptionError(f"{suite.title}: {problem}: add ?name=ANOTHER")
        by_name[suite.name] = suite, None
    return by_name


def scorer_of(config: Config) -> tuple[Scorer, dict[str, Any]]:
    """The scorer that the options name, and what tells it from all others.

    Raises OptionError unless they name exactly one.
    """
    ways = [way for way in ("model", "recorded", "words", "longer") if getattr(config, way)]
    if len(ways) != 1:
        named = " and ".join(f"--{way}" for way in ways) or "none"
        raise OptionError(f"name one of --model, --recorded, --words and --longer, not {named}")
    if config.longer:
        return scorers.longer, {"rule": "the longer answer"}
    if config.recorded is not None:
        scorer = scorers.recorded(config.recorded)
        return scorer, {"recorded": str(config.recorded), "content": digest(config.recorded)}
    if config.words is not None:
        train = sources.read(config.words)
        about = {"rule": f"a bag of words of {config.words}", "content": record.key(train)}
        try:
            return scorers.bag_of_words(train), about
        except DataError as error:
            raise DataError(f"--words {config.words}: {error}") from None
    return _model(config)


def _model(config: Config) -> tuple[Scorer, dict[str, Any]]:
    """The model as a scorer, which is loaded when it is first asked."""
    found = [_found(config, name) for name in (config.model, config.adapter) if name is not None]
    model, adapter = found[0].directory, found[1].directory if found[1:] else None
    tokenizer = load_tokenizer(model, config.chat_template)
    vocabulary.check(scoring.read_config(model), tokenizer, str(config.model))
    words = tokenizer.hf.backend_tokenizer.to_str() + str(tokenizer.hf.chat_template)
    about = {
        "model": str(config.model),
        "weights": hub.fingerprint(model),
        "adapter": adapter and hub.fingerprint(adapter),
        "tokenizer": hashlib.sha256(words.encode()).hexdigest(),
        "dtype": config.dtype,
    }
    if tokenizer.dated:
        about["day"] = tokenizer.dated
    named = zip((config.model, config.adapter), found, strict=False)
    if revisions := {str(name): place.revision for name, place in named if place.revision}:
        about["revisions"] = revisions

    @functools.cache
    def load() -> Scorer:
        mesh = parallel.make_mesh(config.mesh)
        compute = transformer.Compute(dtype=config.dtype)
        loaded = scoring.load(model, adapter=adapter, compute=compute, mesh=mesh)
        options = {"mesh": mesh, "rows": config.rows, "row_length": config.row_length}
        return scorers.of_model(loaded, tokenizer, **options, progress="scoring")

    return lambda comparisons: load()(comparisons), about


def _found(config: Config, name: Path) -> Local:
    """Where a model lies. A name on the Hub means the commit that the evaluation began with."""
    try:
        begun = json.loads((config.out / "results.json").read_text("utf-8"))["scorer"]
    except (OSError, ValueError, KeyError):
        begun = {}
    return names.local(name, begun.get("revisions", {}).get(str(name), ""))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
