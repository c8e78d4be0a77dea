"""Rewards for any comparisons, and any number of them: packed, jitted, in input order.

    python -m jaxrm.score --model DIR IN.jsonl OUT.jsonl

writes one row {"id", "rewards": [...]} per comparison of IN, the rewards in the order of its
responses (chosen, then rejected). Everything is scored: empty answers, ties and texts of any
length; a reward that is not finite is null. IN may be larger than memory. The same command goes on
where it was killed (`jaxrm.partial`), and what it writes is what it would have written without,
also where a chat template writes the day: it stays the one that the file was begun on.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from jaxrm import cli, files, parallel
from jaxrm.data import chat, formats, packing, shown, sources
from jaxrm.data.comparison import Comparison, has_blank
from jaxrm.data.loader import prefetch
from jaxrm.data.packing import TokenTree
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import DataError, require
from jaxrm.huggingface import mixture, names, vocabulary
from jaxrm.models import transformer
from jaxrm.partial import Partial, begun, digest, digests
from jaxrm.read import scoring
from jaxrm.read.scoring import Scored
from jaxrm.read.scoring import score as score

log = logging.getLogger(__name__)

CHUNK = 4096
"""Responses that are tokenised, packed and written together: no more of the input is in memory than
a few times as many."""

OF_A_MODEL = (".json", ".jinja", ".safetensors", ".model", ".txt")
"""Files of a model directory that scores may depend on: weights, tokenizer, configuration."""

DAY = "day"
"""What the day is recorded as that the chat template writes, if it writes one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """Comparisons in input order, the same tokenised, and float32 [K] rewards of each."""

    comparisons: list[Comparison]
    trees: list[TokenTree]
    rewards: list[np.ndarray]


def stream(
    model: Scored,
    comparisons: Iterable[Comparison],
    tokenizer: ChatTokenizer,
    **options: Any,
) -> Iterator[tuple[Comparison, np.ndarray]]:
    """Each comparison with its rewards, float32 [K], in order: any number, in bounded memory.

    Comparisons are taken as they are needed, tokenised in a thread beside the device, and packed
    chunk by chunk.

    Args:
      model: as for `score`.
      comparisons: of any K; they need not exist together.
      tokenizer: the model's.
      options: chunk, the responses that a chunk holds at least, unless it is the last; and those of
        `jaxrm.read.reading.read`.

    Raises:
      TokenizerError, DataError: as `chat.tokenize`, and whatever `comparisons` raises.
    """
    for scored in in_chunks(model, comparisons, tokenizer, **options):
        yield from zip(scored.comparisons, scored.rewards, strict=True)


def in_chunks(
    model: Scored,
    comparisons: Iterable[Comparison],
    tokenizer: ChatTokenizer,
    *,
    chunk: int = CHUNK,
    progress: str = "",
    **options: Any,
) -> Iterator[Chunk]:
    """`stream`, chunk by chunk, with the tokens. Where a chunk ends follows from each K and `chunk`
    alone."""

    def load(part: list[Comparison]) -> tuple[list[Comparison], list[TokenTree]]:
        return part, chat.tokenize(part, tokenizer)

    start, tokens = time.monotonic(), 0
    with tqdm(desc=progress, unit=" responses", disable=not progress) as bar:
        for part, trees in prefetch(_chunks(comparisons, chunk), load, ahead=1):
            rewards = scoring.rewards(model, trees, advance=bar.update, **options)
            tokens += sum(map(packing.tree_length, trees))
            bar.set_postfix_str(f"{tokens / (time.monotonic() - start):,.0f} tokens/s")
            yield Chunk(part, trees, rewards)


def _chunks(comparisons: Iterable[Comparison], least: int) -> Iterator[list[Comparison]]:
    """Comparisons in order, in lists of `least` responses or just above."""
    part, responses = [], 0
    for comparison in comparisons:
        part.append(comparison)
        responses += len(comparison.responses)
        if responses >= least:
            yield part
            part, responses = [], 0
    if part:
        yield part


@dataclasses.dataclass(frozen=True)
class Config:
    """Score a file of comparisons with a reward model."""

    input: tyro.conf.Positional[str]
    """A source of comparisons: a file, a directory, a name on the Hub or in TFDS (see
    jaxrm.data.sources), of pairs or of prompts with any number of responses."""
    output: tyro.conf.Positional[Path]
    """JSONL, one {"id", "rewards"} per comparison, in input order. Written whole or not at all."""
    model: Path
    """A directory in Hugging Face layout that holds a tokenizer and, unless the adapter does, a
    reward head; or a mixture of several; or the Hub's owner/name of one."""
    adapter: Path | None = None
    """A LoRA adapter in PEFT's or GRM's layout beside it, which may bring the reward head; named
    likewise."""
    chat_template: Path | None = None
    """A file with the chat template, for a tokenizer that brings none."""
    rows: int = 8
    """Rows per batch."""
    row_length: int = 1024
    """Tokens per row; longer texts get longer rows."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in; heads and rewards are float32 always."""
    show: int = 0
    """How many of the comparisons to print as the model reads them, before they are scored."""
    mesh: parallel.MeshShape = parallel.MeshShape()
    """How devices are used."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """What is scored so far.

    Attributes:
      comparisons, responses: how many.
      empty: responses of white space alone.
      not_finite: rewards that are no finite number.
      content: SHA-256 of every comparison so far, and of what is known of it.
    """

    comparisons: int = 0
    responses: int = 0
    empty: int = 0
    not_finite: int = 0
    content: str = ""

    def plus(self, chunk: Chunk) -> Tally:
        """With one more chunk."""
        answers = [answer for comparison in chunk.comparisons for answer in comparison.responses]
        return Tally(
            comparisons=self.comparisons + len(chunk.comparisons),
            responses=self.responses + len(answers),
            empty=self.empty + sum(map(has_blank, answers)),
            not_finite=self.not_finite + int((~np.isfinite(np.concatenate(chunk.rewards))).sum()),
            content=functools.reduce(_content, chunk.comparisons, self.content),
        )


def main(config: Config) -> None:
    """Reads, scores and writes, chunk by chunk, and says what it read."""
    parallel.start()
    require(config.rows >= 1, "--rows", "at least 1", config.rows)
    require(config.row_length >= 1, "--row-length", "at least 1", config.row_length)
    require(config.show >= 0, "--show", "at least 0", config.show)
    config = _named(config)
    source = sources.Source.parse(config.input).location
    files.check_apart(config.output, [source, config.chat_template])
    files.check_writable(config.output)
    # What lies beside the weights may be a part of the model, so scores do not lie there.
    files.check_apart(config.output, [config.model, config.adapter])
    mesh = parallel.make_mesh(config.mesh)
    tokenizer = load_tokenizer(config.model, config.chat_template, day=_begun_on(config.output))
    partial = Partial(config.output, _run(config, mesh, tokenizer))
    tally = Tally(**(partial.state or {}))
    comparisons = _show(config.show, _left(config.input, tally, partial), tokenizer)
    # Every process has looked how far the scores are, and found the same, before one writes more.
    multihost_utils.assert_equal(
        np.array(tally.comparisons, np.int32),
        f"processes see different parts of {config.output}: put it on a disk that all share",
    )
    compute = transformer.Compute(dtype=config.dtype)
    parts = scoring.load(config.model, adapter=config.adapter, compute=compute, mesh=mesh)
    for part in parts:
        vocabulary.check(part.model.config, tokenizer, str(config.model))

    writes = jax.process_index() == 0
    before, start, tokens = tally.comparisons, time.monotonic(), 0
    options = {"rows": config.rows, "row_length": config.row_length, "chunk": CHUNK}
    options |= {"mesh": mesh, "progress": "scoring" if writes else ""}
    for chunk in in_chunks(parts, comparisons, tokenizer, **options):
        tally = tally.plus(chunk)
        tokens += sum(map(packing.tree_length, chunk.trees))
        if writes:
            partial.append(_lines(chunk), dataclasses.asdict(tally))
    if writes:
        partial.finish()
        print(f"{config.output}: {summary(tally, before, tokens, time.monotonic() - start)}")


def summary(tally: Tally, before: int, tokens: int, seconds: float) -> str:
    """One line about all that was scored, and how fast.

    Args:
      before: comparisons that an earlier run had scored.
      tokens: of the others, each prompt once.
      seconds: that those took.
    """
    parts = [
        f"{tally.comparisons:,} comparisons, {tally.responses:,} responses, none left out",
        f"{tokens:,} tokens in {seconds:,.1f} s "
        f"({(tally.comparisons - before) / seconds:,.1f} comparisons/s, "
        f"{tokens / seconds:,.0f} tokens/s)",
    ]
    if before:
        parts.insert(1, f"{before:,} of them scored before")
    if tally.empty:
        parts.append(f"empty answers: {tally.empty:,}")
    if tally.not_finite:
        parts.append(f"REWARDS THAT ARE NOT FINITE, null in the file: {tally.not_finite:,}")
    return "; ".join(parts)


def _named(config: Config) -> Config:
    """With the directories of what is given by name."""
    model = names.local(config.model).directory
    adapter = config.adapter and names.local(config.adapter).directory
    return dataclasses.replace(config, model=model, adapter=adapter)


def _show(
    count: int, comparisons: Iterator[Comparison], tokenizer: ChatTokenizer
) -> Iterator[Comparison]:
    """The same comparisons, the first of them printed as tokens."""
    first = list(itertools.islice(comparisons, count))
    for comparison, tree in zip(first, chat.tokenize(first, tokenizer), strict=True):
        if jax.process_index() == 0:
            print(shown.text(comparison, tree, tokenizer))
    return itertools.chain(first, comparisons)


def _begun_on(output: Path) -> date | None:
    """The day that the part of a file which is there has in its conversations, if it has one."""
    day = begun(output).get(DAY)
    return day and date.fromisoformat(day)


def _run(config: Config, mesh: Mesh, tokenizer: ChatTokenizer) -> dict[str, str]:
    """All that rewards depend on, but for rounding."""
    run = {
        "input": str(config.input),
        "dtype": config.dtype,
        "matmul_precision": str(jax.config.jax_default_matmul_precision),
        "platform": mesh.devices.flat[0].platform,
    }
    read_from = {"model": config.model, "adapter": config.adapter}
    for member in mixture.read(config.model) or ():
        read_from[f"model {member.directory}"] = config.model / member.directory
    for role, directory in read_from.items():
        if directory is not None:
            held = digests(directory, OF_A_MODEL)
            run |= {f"{role} {name}": content for name, content in held.items()}
    if config.chat_template is not None:
        run["chat template"] = digest(config.chat_template)
    if tokenizer.dated:
        run[DAY] = tokenizer.dated
    return run


def _left(source: str, done: Tally, partial: Partial) -> Iterator[Comparison]:
    """The comparisons of a source that are not scored yet.

    Raises DataError where those that are scored are others by now, or some are gone.
    """
    comparisons, content, count = sources.stream(source), "", 0
    for comparison in itertools.islice(comparisons, done.comparisons):
        content, count = _content(content, comparison), count + 1
    if (content, count) != (done.content, done.comparisons):
        problem = f"holds {count:,} comparisons now" if count < done.comparisons else "has changed"
        raise DataError(
            f"{source} {problem}, but its first {done.comparisons:,} as they were are scored in "
            f"{partial.path}: put them back, or remove {partial.path} and {partial.record} to "
            "begin again"
        )
    if count:
        log.info("%s: going on after %d comparisons", partial.path, count)
    # One ahead: what cannot be read is refused before a model is loaded.
    return itertools.chain(list(itertools.islice(comparisons, 1)), comparisons)


def _content(before: str, comparison: Comparison) -> str:
    """SHA-256 of a comparison and of all `before` it."""
    text = before + json.dumps(formats.to_row(comparison), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _lines(chunk: Chunk) -> str:
    """A line of JSON for each comparison."""
    rows = (
        {"id": comparison.id, "rewards": files.plain(rewards.astype(np.float64))}
        for comparison, rewards in zip(chunk.comparisons, chunk.rewards, strict=True)
    )
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
