"""What scoring costs: real comparisons through jaxrm and through transformers on torch.

    python -m benchmarks.score --data SOURCE --comparisons 2000 --repeats 3

Writes a random float32 reward model of a few shapes to choose from, with the tokenizer of a model
directory (--tokenizer; the toy world's without it), and scores the first comparisons of SOURCE with
it, from messages to rewards, rendering and tokenising included:

    jaxrm               `jaxrm.score.stream`: prompts shared, rows packed, tokenised in a thread
    torch, as they come `...ForSequenceClassification` on padded batches of --batch responses, in
                        input order
    torch, by length    the same on batches of texts of like length, sorted by it beforehand

All on the CPU, each with as many threads as it takes by itself. They take turns, --repeats times,
after one turn each that is not timed and in which jaxrm compiles. Prints a table in Markdown:
medians and ranges, the ratio to jaxrm of the same turn, and by how much the rewards differ.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.step import SHAPES
from jaxrm import cli, parallel, toy
from jaxrm import score as scoring
from jaxrm.data import chat, packing, sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import OptionError, require
from jaxrm.huggingface import families, hub, names
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.report.tables import markdown

Way = Callable[[Sequence[Comparison]], np.ndarray]
"""Comparisons -> float32 [responses], in order."""

LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "max_position_embeddings": 2**17}
MODELS: dict[str, dict[str, Any]] = {
    "tiny": SHAPES["tiny"],
    "small": LLAMA
    | {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
    "medium": LLAMA
    | {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
}
"""Shapes of decoders, as a `config.json` has them, but for the vocabulary."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to score, and with what."""

    data: str
    """A source of comparisons that are conversations (see jaxrm.data.sources)."""
    comparisons: int = 2000
    """Of the source, from its beginning."""
    model_shape: Literal["tiny", "small", "medium"] = "small"
    """About 0.02, 4 and 80 million weights, without the vocabulary's."""
    tokenizer: Path = toy.TOKENIZER
    """A model with a tokenizer, as a directory or by its name on the Hub; the toy world's cuts real
    words into many tokens."""
    chat_template: Path | None = None
    """A file with the chat template, for a tokenizer that brings none."""
    rows: int = 8
    """Rows of jaxrm's batches."""
    row_length: int = 1024
    batch: int = 16
    """Responses of torch's batches."""
    repeats: int = 3


@dataclasses.dataclass(frozen=True)
class Timing:
    """One way to score, over all turns.

    Attributes:
      seconds: of each turn.
      rewards: float32 [responses], of the last.
    """

    seconds: Sequence[float]
    rewards: np.ndarray


def main(cfg: Config) -> None:
    """Writes a model, scores with it, and prints."""
    for name in ("comparisons", "rows", "row_length", "batch", "repeats"):
        value = getattr(cfg, name)
        require(value >= 1, f"--{name.replace('_', '-')}", "at least 1", value)
    if importlib.util.find_spec("torch") is None:
        raise OptionError("torch is not installed, which this is to be compared with: install it")
    comparisons = list(itertools.islice(sources.stream(cfg.data), cfg.comparisons))
    raw = any(isinstance(comparison.prompt, str) for comparison in comparisons)
    require(not raw, "--data", "a source of conversations", "one with raw text")
    found = names.local(cfg.tokenizer, files=names.TOKENIZER)
    tokenizer = load_tokenizer(found.directory, cfg.chat_template)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "model"
        write_model(MODELS[cfg.model_shape], tokenizer, directory)
        ways = {
            "jaxrm": with_jaxrm(directory, cfg.rows, cfg.row_length),
            "torch, as they come": with_torch(directory, cfg.batch, by_length=False),
            "torch, by length": with_torch(directory, cfg.batch, by_length=True),
        }
        timings = take_turns(ways, comparisons, cfg.repeats)
    trees = chat.tokenize(comparisons, tokenizer)
    versions = (f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    print(f"{cfg.model_shape}, {os.cpu_count()} cores, {', '.join(versions)}; {workload(trees)}\n")
    print(summary(timings, len(comparisons)))


VERSIONS = ("jax", "torch", "transformers")


def write_model(shapes: Mapping[str, Any], tokenizer: ChatTokenizer, directory: Path) -> None:
    """A random reward model with a linear head and `tokenizer`, in float32."""
    hf = tokenizer.hf
    ids = {
        "pad_token_id": hf.pad_token_id,
        "bos_token_id": hf.bos_token_id,
        "eos_token_id": hf.eos_token_id,
    }
    config = families.read({**shapes, **ids, "vocab_size": len(hf)})
    hub.save(transformer.create(config, HeadConfig(), seed=0), directory, tokenizer)


def with_jaxrm(directory: Path, rows: int, row_length: int) -> Way:
    """`score.stream` on all devices."""
    mesh = parallel.make_mesh()
    model, tokenizer = hub.load(directory, None, mesh=mesh), load_tokenizer(directory)

    def way(comparisons: Sequence[Comparison]) -> np.ndarray:
        options = {"mesh": mesh, "rows": rows, "row_length": row_length}
        scored = scoring.stream(model, comparisons, tokenizer, **options)
        return np.concatenate([rewards for _, rewards in scored])

    return way


def with_torch(directory: Path, batch: int, *, by_length: bool) -> Way:
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


def take_turns(
    ways: Mapping[str, Way], comparisons: Sequence[Comparison], repeats: int
) -> dict[str, Timing]:
    """Every way once untimed, then all of them `repeats` times, one after the other."""
    for way in ways.values():
        way(comparisons)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rewards = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            rewards[name] = way(comparisons)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(seconds[name], rewards[name]) for name in ways}


def workload(trees: Sequence[packing.TokenTree]) -> str:
    """How many comparisons, responses and tokens, with a prompt for each and with shared ones."""
    branches = [branch for tree in trees for branch in tree.branches]
    shared = sum(map(packing.tree_length, trees))
    apart = shared + sum(len(tree.prompt) * (len(tree.branches) - 1) for tree in trees)
    return (
        f"{len(trees):,} comparisons, {len(branches):,} responses, {apart:,} tokens, of which "
        f"{shared:,} remain where prompts are shared"
    )


def summary(timings: Mapping[str, Timing], comparisons: int) -> str:
    """A table: medians over turns, and everything beside the first way, turn by turn.

    Args:
      timings: by the name of the way.
      comparisons: that each scored in a turn.
    """
    head = ("way", "s (range)", "comparisons/s", "time / jaxrm's (range)", "largest difference")
    ours, rows = next(iter(timings.values())), []
    for name, timing in timings.items():
        ratios = [theirs / mine for theirs, mine in zip(timing.seconds, ours.seconds, strict=True)]
        rows.append(
            (
                name,
                spread(timing.seconds),
                f"{comparisons / statistics.median(timing.seconds):.1f}",
                spread(ratios),
                f"{np.abs(timing.rewards - ours.rewards).max():.1e}",
            )
        )
    return markdown(head, rows, left=1)


def spread(values: Sequence[float]) -> str:
    """The median, and the smallest and largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
