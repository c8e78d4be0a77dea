"""A small base made of a few texts: what it reads, that it learns, and that others can load it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import small_base
from experiments.small_base import SHORTEST, Config
from jaxrm.data import chat, packing
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, OptionError
from jaxrm.huggingface import hub
from jaxrm.models.heads import HeadConfig


@pytest.fixture
def files(tmp_path):
    texts, pairs = tmp_path / "text.jsonl", tmp_path / "pairs.jsonl"
    rows = [
        {"text": f"the cat number {i} sat on the mat and looked at the moon. " * 4}
        for i in range(40)
    ]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [
        {
            "prompt": [{"role": "user", "content": f"How many is {i} cats?"}],
            "chosen": [{"role": "assistant", "content": f"{i} cats."}],
            "rejected": [{"role": "assistant", "content": "the moon sat on the mat"}],
        }
        for i in range(20)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(texts), str(pairs)


def test_it_learns_to_read_and_leaves_a_base(tmp_path, files):
    texts, pairs = files
    sizes = {"vocabulary": 320, "hidden": 16, "layers": 1, "heads": 2, "context": 32, "rows": 8}
    cfg = Config((texts,), (pairs,), tmp_path / "run", steps=30, learning_rate=1e-2, **sizes)
    small_base.main(cfg)
    lines = (tmp_path / "run" / "base" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < losses[0] - 1
    model = hub.load(tmp_path / "run" / "export", HeadConfig(), seed=0)
    tokenizer = load_tokenizer(tmp_path / "run" / "export")
    assert model.config.vocab_size == len(tokenizer.hf) == 320
    message = (Message("user", "How many is 3 cats?"),)
    text = tokenizer.render(message, opened=True)
    assert text.endswith("<start_of_turn>model\n")
    before = (tmp_path / "run" / "export" / "model.safetensors").read_bytes()
    small_base.main(cfg)
    assert (tmp_path / "run" / "export" / "model.safetensors").read_bytes() == before


def test_texts_and_every_response_are_cut_to_the_context(tmp_path, files):
    small_base.train_tokenizer(["a b c d e f g"], 300, tmp_path / "tokenizer")
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    said = Comparison("Ask: ", ("one " * 8, "another " * 8), ranks=(0, 1))
    read = small_base.pieces(["x" * 50, "  "], [said], tokenizer, context=20)
    lengths = [len(tree.branches[0].tokens) for tree in read]
    (whole, spoken) = chat.tokenize([Comparison("", ("x" * 50,)), said], tokenizer)
    every = [packing.tree_length(whole)]
    every += [len(spoken.prompt) + len(branch.tokens) for branch in spoken.branches]
    assert sum(lengths) == sum(n if n % 20 >= SHORTEST else n - n % 20 for n in every)
    assert max(lengths) == 20
    assert all(branch.targets.all() for tree in read for branch in tree.branches)
    first = np.concatenate([spoken.prompt, spoken.branches[0].tokens])
    assert any((tree.branches[0].tokens[:5] == first[:5]).all() for tree in read)


def test_no_more_is_drawn_than_asked_for():
    tokens = [np.zeros(10, np.int32)] * 50
    trees = [
        packing.TokenTree(ids[:0], (packing.Branch(ids, np.ones(10, np.bool_)),)) for ids in tokens
    ]
    assert len(small_base.drawn(list(trees), Config(("x",), tokens=95))) == 10
    assert len(small_base.drawn(list(trees), Config(("x",), tokens=10_000))) == 50


def test_bad_input_is_named(tmp_path):
    with pytest.raises(OptionError, match="nothing to read"):
        Config()
    with pytest.raises(OptionError, match="multiple of --heads"):
        Config(("x",), hidden=10, heads=4)
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "fine"}\n{"text": 3}\n')
    with pytest.raises(DataError, match="row 2.*field 'text'"):
        list(small_base.read_texts(Config((str(path),))))
