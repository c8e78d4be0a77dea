"""What is in a preference data set, and does it touch an evaluation set?

    python -m jaxrm.data.audit TRAIN.jsonl --against EVAL.jsonl OTHER.jsonl \\
        --out audit.json --write CLEAN.jsonl

prints, of the source: counts (duplicates, ties, empty texts, contradictory labels), lengths, with
--tokenizer in tokens too and what training would drop for them; against each evaluation set: the
prompts that are copies or near copies of the source's; and the accuracy that length and choice of
words reach by themselves. `contents`, `overlap` and `floors` beside this say how each is defined.
Nothing is left out of these: what cannot take part in a table is counted in it.

With --write the source is written without its copies and near copies of evaluation prompts, empty
texts, identical responses, ties, contradictions and duplicates, each counted under the first reason
that holds (`cleaning`), and CLEAN.taken.jsonl holds what was taken out, with its reason and the id
of the row that it copies, contradicts or repeats.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from jaxrm import cli, files
from jaxrm.data import chat, sources, training
from jaxrm.data.audit import cleaning, contents, floors, overlap
from jaxrm.data.comparison import Comparison
from jaxrm.data.tally import LIMITS
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, OptionError, require
from jaxrm.huggingface import names
from jaxrm.report.tables import aligned, between, number

SHOWN = 80
"""Characters of a prompt that are shown."""


@dataclass(frozen=True)
class Config:
    """Audit a preference data set, by itself and against evaluation sets."""

    source: tyro.conf.Positional[str]
    """A source of comparisons: a file, a directory, a name on the Hub or in TFDS (see
    jaxrm.data.sources)."""
    against: tuple[str, ...] = ()
    """Evaluation sets that the source must not touch, named likewise."""
    tokenizer: Path | None = None
    """A model's directory with its tokenizer, or its name on the Hub (owner/name or
    owner/name@revision), to measure in tokens too."""
    chat_template: Path | None = None
    """A file with the chat template, for a tokenizer that brings none."""
    max_length: int = 1024
    """With --tokenizer: the longest prompt + response that training would take."""
    row_length: int = 2048
    """With --tokenizer: the longest prompt with all its responses that training would take."""
    examples: int = 5
    """Matching prompts to print for each evaluation set; --out has them all."""
    out: Path | None = None
    """JSON with every number and match. Written whole or not at all."""
    write: Path | None = None
    """JSONL for the source without what the audit finds; what is taken out goes beside it, to
    NAME.taken.jsonl. Written whole or not at all."""


def main(config: Config) -> None:
    """Reads everything, then prints each part as soon as it is known."""
    _check_outputs(config)
    tokenizer = None
    if config.tokenizer is not None:
        found = names.local(config.tokenizer, files=names.TOKENIZER)
        tokenizer = load_tokenizer(found.directory, config.chat_template)
    source = sources.read(config.source)
    evaluations = _read_all(config.against)
    report: dict[str, Any] = {
        "source": config.source,
        "against": list(config.against),
        "parameters": _parameters(config),
        "counts": contents.count(source),
        "histograms": contents.histograms(source),
        "consistency": contents.consistency(source),
        "characters": contents.characters(source),
    }
    _print_counts(report)
    _print_lengths("characters", report["characters"])
    if tokenizer is not None:
        if found.revision:
            report["parameters"]["tokenizer_revision"] = found.revision
        trees = chat.tokenize(source, tokenizer)
        report["tokens"] = contents.tokens(source, trees)
        dropped = contents.too_long(trees, config.max_length, config.row_length)
        report["dropped"] = {reason: len(places) for reason, places in dropped.items()}
        _print_lengths("tokens", report["tokens"])
        _print_dropped(dropped, config, source)
    corpora = {name: overlap.Corpus(split) for name, split in evaluations.items()}
    if evaluations:
        corpus = overlap.Corpus(source)
        overlaps = {name: overlap.overlap(of_split, corpus) for name, of_split in corpora.items()}
        report["overlap"] = {name: _overlap_json(of_split) for name, of_split in overlaps.items()}
        _print_overlap(overlaps, evaluations, config)
    report["floors"] = floors.floors(source, evaluations)
    _print_floors(report["floors"])
    if config.write is not None:
        cleaned = cleaning.clean(source, list(corpora.values()))
        report["cleaning"] = cleaned.counts()
        _print_cleaning(report["cleaning"])
        cleaning.write(cleaned, config.write)
        print(f"kept: {config.write}\ntaken out: {cleaning.taken_path(config.write)}")
    if config.out is not None:
        with files.replacing(config.out) as draft:
            text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
            draft.write_text(text + "\n", encoding="utf-8")
        print(f"every number and match: {config.out}")


def _check_outputs(config: Config) -> None:
    """Raises OptionError for a file to write that is read too, or named twice, and DataError where
    it cannot be written."""
    outputs = [] if config.out is None else [config.out]
    if config.write is not None:
        require(config.write.suffix == ".jsonl", "--write", "a name in .jsonl", str(config.write))
        outputs += [config.write, cleaning.taken_path(config.write)]
    reads = [sources.Source.parse(text).location for text in (config.source, *config.against)]
    for path in outputs:
        files.check_apart(path, reads, [config.tokenizer, config.chat_template])
        files.check_writable(path)
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OptionError(f"--out {config.out} is what --write writes too: name another")


def _read_all(paths: Sequence[str]) -> dict[str, list[Comparison]]:
    splits = {}
    for path in paths:
        name = sources.Source.parse(path).name
        if name in splits:
            raise DataError(
                f"{path}: two evaluation sets are named {name}: add ?name=ANOTHER to one"
            )
        splits[name] = sources.read(path)
    return splits


def _parameters(config: Config) -> dict[str, Any]:
    """What the numbers depend on, besides the files."""
    return {
        "tokenizer": config.tokenizer and str(config.tokenizer),
        "chat_template": config.chat_template and str(config.chat_template),
        "max_length": config.max_length,
        "row_length": config.row_length,
        "near": overlap.NEAR,
        "passage_words": overlap.PASSAGE,
        "passage_boilerplate": overlap.COMMON,
        "turn_words": overlap.TURN,
        "held_out_one_prompt_in": floors.HELD_OUT,
        "bag_vocabulary": floors.VOCABULARY,
        "bag_penalty": floors.PENALTY,
    }


def _overlap_json(of_split: overlap.Overlap) -> dict[str, Any]:
    matches = [asdict(match) for match in of_split.matches]
    for match in matches:
        for field in ("evaluation_text", "source_text"):
            match[field] = match[field][:SHOWN]
    return asdict(of_split) | _kinds(of_split) | {"matches": matches}


def _kinds(of_split: overlap.Overlap) -> dict[str, int]:
    kinds = collections.Counter(match.kind for match in of_split.matches)
    return {kind: kinds[kind] for kind in overlap.KINDS}


def _print_counts(report: Mapping[str, Any]) -> None:
    total = report["counts"]["comparisons"]
    rows = [(key.replace("_", " "), n, _share(n, total)) for key, n in report["counts"].items()]
    rows += [
        (f"of {size} responses", n, _share(n, total))
        for size, n in report["histograms"]["responses"].items()
    ]
    _print_table("contents", ("", "n", "of comparisons"), rows)
    subsets = report["histograms"]["subsets"]
    if set(subsets) != {""}:
        rows = [(subset or "(none)", n, _share(n, total)) for subset, n in subsets.items()]
        _print_table("subsets", ("", "n", "of comparisons"), rows)
    rows = [(key.replace("_", " "), n) for key, n in report["consistency"].items()]
    _print_table("agreement of the labels of one prompt", ("", "n"), rows)


def _print_lengths(unit: str, lengths: Mapping[str, Mapping[str, int]]) -> None:
    rows = [(part, *quantiles.values()) for part, quantiles in lengths.items()]
    _print_table(f"lengths in {unit}", ("", *next(iter(lengths.values()))), rows)


def _print_dropped(
    dropped: Mapping[str, Sequence[int]], config: Config, source: Sequence[Comparison]
) -> None:
    """The table names the options that change it, and the first rows are named below it."""
    limits = {"over-length": config.max_length, "over-row": config.row_length}
    rows = [
        (reason, f"{LIMITS[reason]} {limits[reason]}", len(of), _share(len(of), len(source)))
        for reason, of in dropped.items()
    ]
    headers = ("", "limit", "n", "of comparisons")
    _print_table("what training would drop for its length", headers, rows)
    for reason, of in dropped.items():
        named = [source[place].where for place in of[: training.SHOWN]]
        if len(of) > training.SHOWN:
            named.append(f"and {len(of) - training.SHOWN:,} more")
        if of:
            print(f"{reason}: {'; '.join(named)}")
    if any(dropped.values()):
        print("training takes them with higher limits, or shortens prompts by --truncate-prompt")


def _print_overlap(
    overlaps: Mapping[str, overlap.Overlap],
    evaluations: Mapping[str, Sequence[Comparison]],
    config: Config,
) -> None:
    headers = (
        "", "comparisons", "wordless", "prompts", *overlap.KINDS, "touched", "source touched",
        "responses", "shared",
    )  # fmt: skip
    rows = [
        (
            name, len(evaluations[name]), of_split.wordless, of_split.prompts,
            *_kinds(of_split).values(), len(of_split.touched), len(of_split.copies),
            of_split.responses, of_split.shared_responses,
        )
        for name, of_split in overlaps.items()
    ]  # fmt: skip
    _print_table("prompts and responses that the source also has", headers, rows)
    for name, of_split in overlaps.items():
        for match in of_split.matches[: config.examples]:
            print(f"{name}: {match.kind} {match.similarity:.3f}")
            print(f"  source      {match.source}: {match.source_text[:SHOWN]}")
            print(f"  evaluation  {match.evaluation}: {match.evaluation_text[:SHOWN]}")
        if len(of_split.matches) > config.examples:
            print(f"{name}: {len(of_split.matches) - config.examples} more (--examples, --out)")
    copies = {copy.place for of_split in overlaps.values() for copy in of_split.copies}
    if copies and config.write is None:
        print(f"same or near in the source: {len(copies):,} (--write FILE leaves these out)")


def _print_floors(by_split: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    rows = [
        (
            f"{name}: {subset}" if subset else name,
            of_subset["comparisons"],
            of_subset["longer"]["n"] if of_subset["longer"] else 0,
            _floor(of_subset["longer"]),
            number((of_subset["longer"] or {}).get("tied"), ".3f", 1),
            _floor(of_subset["bag_of_words"]),
        )
        for name, subsets in by_split.items()
        for subset, of_subset in subsets.items()
    ]
    headers = ("", "comparisons", "n with an order", "longer", "as long", "bag of words")
    _print_table("floors: strict accuracy (and its 95 % interval)", headers, rows)
    ordered = {name: (by_split[name][""]["longer"] or {"n": 0})["n"] for name in by_split}
    rest = ordered["source"] - ordered["held out"]
    print(
        f"The bag of words has learnt from {ordered['source']:,} comparisons with an order; that "
        f"of 'held out', one prompt in {floors.HELD_OUT}, from the other {rest:,}. —: nothing with "
        "an order to score or to learn from, or scored on 'held out' alone."
    )


def _floor(floor: Mapping[str, Any] | None) -> str:
    if floor is None:
        return "—"
    return f"{floor['accuracy']:.3f} ({between(floor['low'], floor['high'], '.3f', 1)})"


def _print_cleaning(counts: Mapping[str, int]) -> None:
    rows = [(key, n, _share(n, counts["read"])) for key, n in counts.items()]
    _print_table("what is taken out, by the first reason", ("", "n", "of comparisons"), rows)


def _share(n: int, total: int) -> str:
    return f"{n / total:.1%}"


def _print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}\n\n{aligned(headers, rows)}\n", flush=True)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
