"""A small base from nothing: a tokenizer and a Gemma of a few million parameters, of any text.

    python -m experiments.small_base --text TEXT.jsonl --pairs PAIRS.jsonl --run-dir runs/small_base

For studies on real preferences that have to fit a laptop: the base that a reward model starts from
should have read the kind of text that it is to judge. Reads rows with a column `text`, and of
comparisons every response after its prompt, in the chat template's form, good and bad alike. Leaves
RUN/export, a Hugging Face directory for `--base` of other experiments.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxrm import cli, parallel
from jaxrm.data import chat, rows, sources
from jaxrm.data.comparison import Comparison, plain_text
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import DataError, OptionError, require, require_positive
from jaxrm.huggingface import families, hub
from jaxrm.parallel import ShardingRules
from jaxrm.toy.tokenizer import train_tokenizer
from jaxrm.train.pretrain import pretrain
from jaxrm.train.rundir import open_run

SHORTEST = 8
"""Tokens of the shortest piece of text that is read."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Pretrain a small base."""

    text: tuple[str, ...] = ()
    """Files of rows with a column `text`."""
    pairs: tuple[str, ...] = ()
    """Sources of comparisons (see jaxrm.data.sources), whose responses are text too."""
    run_dir: Path = Path("runs/small_base")
    seed: int = 0
    steps: int | None = None
    """Optimizer steps; as many as --tokens take without it."""
    tokens: int = 4_000_000
    """To read, once each, drawn from all pieces of text."""
    vocabulary: int = 4096
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    context: int = 256
    """Tokens of a piece of text; longer texts are cut into several."""
    rows: int = 8
    learning_rate: float = 2e-3
    checkpoint_every: int = 500

    def __post_init__(self):
        require_positive(self, "tokens", "hidden", "layers", "heads", "rows", "checkpoint_every")
        require(self.vocabulary >= 300, "--vocabulary", "at least 300", self.vocabulary)
        require(self.context > SHORTEST, "--context", f"above {SHORTEST}", self.context)
        require(self.hidden % self.heads == 0, "--hidden", "a multiple of --heads", self.hidden)
        if not (self.text or self.pairs):
            raise OptionError("nothing to read: name --text, --pairs, or both")


def main(cfg: Config) -> None:
    """Makes the tokenizer, reads the text once, and leaves the base."""
    parallel.start()
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    reads = [sources.Source.parse(text).location for text in cfg.pairs]
    run = open_run(cfg.run_dir, cfg, [*cfg.text, *reads])
    texts = list(read_texts(cfg))
    comparisons = [c for source in cfg.pairs for c in sources.stream(source)]
    spoken = (plain_text(part) for c in comparisons for part in (c.prompt, *c.responses))
    if not (run / "tokenizer" / "tokenizer.json").is_file():
        train_tokenizer(itertools.chain(texts, spoken), cfg.vocabulary, run / "tokenizer")
    tokenizer = load_tokenizer(run / "tokenizer")
    trees = drawn(pieces(texts, comparisons, tokenizer, cfg.context), cfg)
    config = families.read(
        {
            "model_type": "gemma",
            "vocab_size": len(tokenizer.hf),
            "hidden_size": cfg.hidden,
            "intermediate_size": 3 * cfg.hidden,
            "num_hidden_layers": cfg.layers,
            "num_attention_heads": cfg.heads,
            "num_key_value_heads": cfg.heads,
            "head_dim": cfg.hidden // cfg.heads,
        }
    )
    print(f"{len(trees):,} pieces of text")
    model = pretrain(
        config,
        trees,
        run / "base",
        rows=cfg.rows,
        length=2 * cfg.context,
        mesh=parallel.make_mesh(),
        rules=ShardingRules(),
        learning_rate=cfg.learning_rate,
        steps=cfg.steps,
        seed=cfg.seed,
        checkpoint_every=cfg.checkpoint_every,
    )
    hub.save(model, run / "export", tokenizer)
    print(run / "export")


def read_texts(cfg: Config) -> Iterator[str]:
    """The column `text` of all rows."""
    for location in cfg.text:
        for where, row in rows.rows(location, "", "train"):
            if not isinstance(row.get("text"), str):
                raise DataError(f"{where}: field 'text': expected text")
            yield row["text"]


def pieces(
    texts: list[str], comparisons: list[Comparison], tokenizer: ChatTokenizer, context: int
) -> list[TokenTree]:
    """Texts, and prompts with each of their responses, cut to the context's length."""
    whole = [Comparison("", (text,)) for text in texts if text.strip()]
    every = [
        np.concatenate([tree.prompt, branch.tokens])
        for tree in chat.tokenize([*whole, *comparisons], tokenizer)
        for branch in tree.branches
    ]
    cut = (ids[i : i + context] for ids in every for i in range(0, len(ids), context))
    return [
        TokenTree(ids[:0], (Branch(ids, np.ones(len(ids), np.bool_)),), ranks=(0,))
        for ids in cut
        if len(ids) >= SHORTEST
    ]


def drawn(trees: list[TokenTree], cfg: Config) -> list[TokenTree]:
    """Pieces in random order, as many as hold the tokens that are to be read."""
    random.Random(cfg.seed).shuffle(trees)
    lengths = np.cumsum([len(tree.branches[0].tokens) for tree in trees])
    return trees[: int(np.searchsorted(lengths, cfg.tokens)) + 1]


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
