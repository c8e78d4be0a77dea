"""What a reward model listens to, besides what it should: a page about one model.

    python -m jaxrm.evaluate.diagnose --model DIR_OR_NAME --data pairs.jsonl hhh.jsonl --out OUT

reads the comparisons as they are, under each other's prompts, and with cues that say nothing, and
writes OUT/diagnosis.json with every figure and OUT/report.html. The modules of
`jaxrm.evaluate.diagnosis` say how each figure is defined. They are functions of scores and
comparisons, and all but `geometry` and `language` work for any scorer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxrm import cli, files, parallel
from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import DataError, require, require_positive
from jaxrm.evaluate import probe, scorers
from jaxrm.evaluate.diagnosis import page
from jaxrm.evaluate.diagnosis.blind import Blind, blind, swap_prompts
from jaxrm.evaluate.diagnosis.calibration import Calibration, calibration
from jaxrm.evaluate.diagnosis.cues import CUES, Sensitivity, sensitivity, with_cue
from jaxrm.evaluate.diagnosis.geometry import Geometry, geometry
from jaxrm.evaluate.diagnosis.language import Language, language
from jaxrm.evaluate.diagnosis.length import Length, length
from jaxrm.evaluate.diagnosis.margins import margins
from jaxrm.evaluate.diagnosis.spread import Spread, spread
from jaxrm.evaluate.estimates import Estimate, share
from jaxrm.evaluate.scorers import Scorer
from jaxrm.huggingface import names, vocabulary
from jaxrm.models import heads, transformer
from jaxrm.read import scoring
from jaxrm.read.accuracy import require_order
from jaxrm.read.reading import read
from jaxrm.read.scoring import Scored


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """All figures of one scorer on one source of comparisons.

    Attributes:
      comparisons, responses: how many were read as they are.
      accuracy: strict, over comparisons that order anything.
      length, cues: rewards in these are in standard deviations of the rewards of all responses as
        they are, `spread.together.deviation`.
      blind, calibration, spread: of rewards as they are.
      geometry: of the states that the rewards are read from; None for a scorer that has none.
      language: None for a scorer without a language-model head.
    """

    comparisons: int
    responses: int
    accuracy: Estimate
    length: Length
    blind: Blind
    cues: Mapping[str, Sensitivity]
    calibration: Calibration
    spread: Spread
    geometry: Geometry | None = None
    language: Language | None = None


def diagnose(scorer: Scorer, comparisons: Sequence[Comparison], seed: int = 0) -> Diagnosis:
    """The diagnosis of any scorer, by its scores alone.

    Args:
      comparisons: with ranks, of two or more distinct prompts. Each is scored once as it is, once
        under another prompt, and once with each of `CUES`.
      seed: of the swap of prompts.

    Raises:
      DataError: a comparison has no ranks, none of them orders anything, or there are no two
        prompts to swap.
    """
    require_order(comparisons)
    places, swapped = swap_prompts(comparisons, seed)
    versions = [comparisons, swapped]
    versions += [[with_cue(comparison, cue) for comparison in comparisons] for cue in CUES]
    plain, under_swapped, *cued = map(scorer, versions)
    of_pairs, of_rewards = margins(plain, comparisons), spread(plain, comparisons)
    unit = of_rewards.together.deviation or 1.0
    in_deviations = [values / unit for values in plain]
    return Diagnosis(
        comparisons=len(comparisons),
        responses=len(of_pairs.rewards),
        accuracy=share(of_pairs.share(of_pairs.values > 0), of_pairs.prompts),
        length=length(in_deviations, comparisons),
        blind=blind(plain, under_swapped, comparisons, places),
        cues={
            cue.name: sensitivity(in_deviations, [s / unit for s in under_cue], comparisons, cue)
            for cue, under_cue in zip(CUES, cued, strict=True)
        },
        calibration=calibration(plain, comparisons),
        spread=of_rewards,
    )


def diagnose_model(
    model: Scored,
    tokenizer: ChatTokenizer,
    comparisons: Sequence[Comparison],
    seed: int = 0,
    *,
    progress: str = "",
    **options: Any,
) -> Diagnosis:
    """`diagnose`, and what only a model has: hidden states and, where it is kept, a language-model
    head.

    Args:
      model: with a reward head of one output, or the parts of a reward, of which only a single one
        has states and a language-model head that are the reward's own.
      tokenizer: the model's own.
      progress: title of the progress bars, each of which says how many are to come; none if empty.
      options: as for `jaxrm.read.reading.read`.
    """
    parts = scoring.parts_of(model)
    has_states = len(parts) == 1 and parts[0].model.reward_head is not None
    passes = ["as it is", "another prompt", *(cue.name for cue in CUES)]
    passes += ["states"] if has_states else []
    titles = iter(
        f"{progress}, {number} of {len(passes)}: {name}" if progress else ""
        for number, name in enumerate(passes, start=1)
    )

    def scorer(versions: Sequence[Comparison]) -> list[np.ndarray]:
        return scorers.of_model(model, tokenizer, progress=next(titles), **options)(versions)

    by_scores = diagnose(scorer, comparisons, seed)
    if not has_states:
        return by_scores
    model, trees = parts[0].model, chat.tokenize(comparisons, tokenizer)
    keeps_language = model.config.language_head
    readings = {"states": probe.final_states}
    readings |= {"logps": heads.response_logps} if keeps_language else {}
    options |= {"progress": next(titles), "ask": "all" if keeps_language else "none"}
    values = read(model, trees, readings, **options)
    of_language = None
    if keeps_language:
        tokens = [np.array([branch.targets.sum() for branch in t.branches]) for t in trees]
        of_language = language(values["logps"], tokens, comparisons)
    return dataclasses.replace(
        by_scores, geometry=geometry(values["states"], comparisons), language=of_language
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Diagnose a reward model: length, prompts, cues, calibration, rewards, states, language."""

    model: Path
    """A model in Hugging Face layout that holds a tokenizer and, unless the adapter does, a reward
    head, or a mixture of several: a directory, or a name on the Hub (owner/name or
    owner/name@revision)."""
    data: tuple[str, ...]
    """Sources of comparisons: files, directories, names on the Hub or in TFDS (see
    jaxrm.data.sources)."""
    out: Path
    """A directory for diagnosis.json and report.html."""
    adapter: Path | None = None
    """A LoRA adapter in PEFT's or GRM's layout, likewise, which may bring the reward head."""
    chat_template: Path | None = None
    """A file with the chat template, for a tokenizer that brings none."""
    items: int = 500
    """Comparisons of each source, at most, drawn at random; each is read ten times."""
    seed: int = 0
    """Of that draw, and of the swap of prompts."""
    rows: int = 8
    """Rows per batch."""
    row_length: int = 1024
    """Tokens per row; longer texts get longer rows."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in; heads and rewards are float32 always."""
    mesh: parallel.MeshShape = parallel.MeshShape()
    """How devices are used."""


def main(config: Config) -> None:
    """Reads, scores, writes both files, and prints where they are."""
    parallel.start()
    require_positive(config, "items", "rows", "row_length")
    require(bool(config.data), "--data", "one source or more", config.data)
    reads = [sources.Source.parse(text).location for text in config.data]
    of_model = (config.model, config.adapter, config.chat_template)
    files.check_apart(config.out, reads, of_model)
    files.check_writable(config.out / "diagnosis.json")
    found = names.local(config.model)
    adapter = names.local(config.adapter) if config.adapter else None
    splits, drawn = _read(config)
    mesh = parallel.make_mesh(config.mesh)
    tokenizer = load_tokenizer(found.directory, config.chat_template)
    vocabulary.check(scoring.read_config(found.directory), tokenizer, str(config.model))
    compute = transformer.Compute(dtype=config.dtype)
    of_adapter = adapter and adapter.directory
    model = scoring.load(found.directory, adapter=of_adapter, compute=compute, mesh=mesh)
    options = {"mesh": mesh, "rows": config.rows, "row_length": config.row_length}
    diagnoses = {
        name: diagnose_model(model, tokenizer, split, config.seed, progress=name, **options)
        for name, split in splits.items()
    }
    if jax.process_index() == 0:
        settings = dataclasses.asdict(config) | {"drawn": drawn}
        for option, place in {"model": found, "adapter": adapter}.items():
            if place is not None and place.revision:
                settings[f"{option}'s revision"] = place.revision
        write(config.out, str(config.adapter or config.model), diagnoses, settings)


def write(out: Path, name: str, diagnoses: Mapping[str, Diagnosis], settings: Mapping) -> None:
    """Writes OUT/diagnosis.json and OUT/report.html, each whole or not at all.

    Args:
      name: of the model.
      found: by name of the source.
      settings: what the figures depend on, shown as it is.
    """
    settings = {key: str(v) if isinstance(v, Path) else v for key, v in settings.items()}
    record = {"model": name, "settings": settings, "sources": diagnoses}
    files.write_json(out / "diagnosis.json", record)
    with files.replacing(out / "report.html") as draft:
        draft.write_text(page.page(name, diagnoses, settings), encoding="utf-8")
    print(f"page: {out / 'report.html'}\nevery figure: {out / 'diagnosis.json'}")


def _read(config: Config) -> tuple[dict[str, list[Comparison]], dict[str, str]]:
    """The comparisons of each source, no more than asked for, in their order; and how many of how
    many these are, which is printed too."""
    splits, drawn = {}, {}
    for text in config.data:
        name = sources.Source.parse(text).name
        if name in splits:
            raise DataError(f"{text}: two sources are named {name}: give one '?name=..'")
        comparisons = every = sources.read(text)
        if len(every) > config.items:
            generator = np.random.default_rng(config.seed)
            kept = generator.choice(len(every), config.items, replace=False)
            comparisons = [every[i] for i in sorted(kept)]
        drawn[name] = f"{len(comparisons):,} of {len(every):,} comparisons"
        print(f"{name}: {drawn[name]} (--items {config.items})")
        # Here, before another source has been scored for nothing.
        require_order(comparisons)
        swap_prompts(comparisons)
        splits[name] = comparisons
    return splits, drawn


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
