"""What scoring costs: real comparisons through jaxrm and through transformers on torch.

    python -m benchmarks.score --base DIR --data SOURCE --out FILE.json

Scores the first comparisons of SOURCE with a reward model in float32 (a language model gets a head
that is drawn), from messages to rewards, rendering and tokenising included:

    jaxrm                     `jaxrm.score.stream`: prompts shared, rows packed, tokenised in a
                              thread
    transformers, in order    `...ForSequenceClassification` on padded batches of --batch responses,
                              as they come
    transformers, by length   the same on batches of texts of like length, sorted by it beforehand

Each with as many threads as it takes by itself. They are seen to agree, and then take turns. Writes
one JSON object (see `benchmarks.turns`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import turns
from jaxrm import cli, parallel
from jaxrm import score as scoring
from jaxrm.data import chat, packing, sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import OptionError, require, require_positive
from jaxrm.huggingface import hub, names
from jaxrm.models.heads import HeadConfig

Scorer = Callable[[Sequence[Comparison]], np.ndarray]
"""Comparisons -> float32 [responses], in order."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to score, and with what."""

    base: Path
    """A reward model or a language model, as a directory or by its name on the Hub."""
    data: str
    """A source of comparisons that are conversations (see jaxrm.data.sources)."""
    out: Path
    """The record, a JSON file."""
    comparisons: int = 200
    """Of the source, from its beginning."""
    chat_template: Path | None = None
    """A file with the chat template, for a tokenizer that brings none."""
    rows: int = 8
    """Rows of jaxrm's batches."""
    row_length: int = 1024
    batch: int = 16
    """Responses of transformers' batches."""
    repeats: int = 3
    tolerance: float = 1e-3
    """By how much of their standard deviation the rewards may differ."""


def main(cfg: Config) -> None:
    """Measures, writes and prints."""
    require_positive(cfg, "comparisons", "rows", "row_length", "batch", "repeats")
    if importlib.util.find_spec("torch") is None:
        raise OptionError("torch is not installed, which this is to be compared with: install it")
    turns.keep(measure(cfg), cfg.out)


def measure(cfg: Config) -> turns.Record:
    """The record of one model and one source."""
    comparisons = list(itertools.islice(sources.stream(cfg.data), cfg.comparisons))
    raw = any(isinstance(comparison.prompt, str) for comparison in comparisons)
    require(not raw, "--data", "a source of conversations", "one with raw text")
    found = names.local(cfg.base)
    tokenizer = load_tokenizer(found.directory, cfg.chat_template)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "model"
        hub.save(hub.load(found.directory, HeadConfig(), seed=0), directory, tokenizer)
        scorers = {
            "jaxrm": with_jaxrm(directory, cfg.rows, cfg.row_length),
            "transformers, in order": with_torch(directory, cfg.batch, by_length=False),
            "transformers, by length": with_torch(directory, cfg.batch, by_length=True),
        }
        parity, seconds = turns.take_turns(
            {name: functools.partial(of, comparisons) for name, of in scorers.items()},
            cfg.repeats,
            lambda rewards: agreement(rewards, cfg.tolerance),
        )
    return turns.record(
        seconds,
        parity,
        base=found.directory.name,
        data=Path(cfg.data).name,
        work=work(chat.tokenize(comparisons, tokenizer)),
    )


def agreement(rewards: Mapping[str, np.ndarray], tolerance: float) -> dict[str, float]:
    """The largest difference of each scorer from ours, by the deviation of ours.

    Raises ParityError where one is above the tolerance.
    """
    ours = next(iter(rewards.values()))
    found = {name: float(np.abs(of - ours).max() / ours.std()) for name, of in rewards.items()}
    if not max(found.values()) <= tolerance:
        raise turns.ParityError(f"the scorers do not agree, by deviations of the rewards: {found}")
    return found


def with_jaxrm(directory: Path, rows: int, row_length: int) -> Scorer:
    """`score.stream` on all devices."""
    mesh = parallel.make_mesh()
    model, tokenizer = hub.load(directory, None, mesh=mesh), load_tokenizer(directory)

    def way(comparisons: Sequence[Comparison]) -> np.ndarray:
        options = {"mesh": mesh, "rows": rows, "row_length": row_length}
        scored = scoring.stream(model, comparisons, tokenizer, **options)
        return np.concatenate([rewards for _, rewards in scored])

    return way


def with_torch(directory: Path, batch: int, *, by_length: bool) -> Scorer:
    """transformers on the CPU, in batches of `batch` responses as they come or of like length."""
    import torch
    import transformers

    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(directory)
    hf = tokenizer.hf
    hf.padding_side = "right"

    def rewards_of(ids: list[list[int]]) -> np.ndarray:
        with torch.inference_mode():
            output = model(**hf.pad({"input_ids": ids}, return_tensors="pt"), use_cache=False)
        return output.logits[:, 0].numpy()

    def texts_of(comparison: Comparison) -> list[str]:
        messages = (comparison.prompt + response for response in comparison.responses)
        return [tokenizer.render(conversation, opened=False) for conversation in messages]

    def encode(texts: list[str]) -> list[list[int]]:
        return hf(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]

    def as_they_come(comparisons: Sequence[Comparison]) -> np.ndarray:
        texts = [text for comparison in comparisons for text in texts_of(comparison)]
        starts = range(0, len(texts), batch)
        return np.concatenate([rewards_of(encode(texts[i : i + batch])) for i in starts])

    def sorted_by_length(comparisons: Sequence[Comparison]) -> np.ndarray:
        ids = encode([text for comparison in comparisons for text in texts_of(comparison)])
        order = np.argsort([len(text) for text in ids], kind="stable")
        rewards = np.zeros(len(ids), np.float32)
        for start in range(0, len(ids), batch):
            places = order[start : start + batch]
            rewards[places] = rewards_of([ids[i] for i in places])
        return rewards

    return sorted_by_length if by_length else as_they_come


def work(trees: Sequence[packing.TokenTree]) -> dict[str, int]:
    """How many comparisons, responses and tokens, with a prompt for each and with shared ones."""
    shared = sum(map(packing.tree_length, trees))
    return {
        "comparisons": len(trees),
        "responses": sum(len(tree.branches) for tree in trees),
        "tokens": shared + sum(len(tree.prompt) * (len(tree.branches) - 1) for tree in trees),
        "tokens, prompts shared": shared,
    }


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
