"""Every method of the library: through the command, with LoRA, and against Bradley-Terry.

A new entry is tested by being there. What it needs beside pairs is in `DATA` by its words in
`Method.needs`.
"""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm import parallel, toy
from jaxrm.data import packing, planning
from jaxrm.data.comparison import Comparison, Message, join_steps
from jaxrm.methods.bench import Bench, WithText
from jaxrm.methods.library import METHODS
from jaxrm.methods.task import InMemory, Task
from jaxrm.models import transformer
from jaxrm.models.lora import LoraConfig
from jaxrm.parallel import MeshShape
from jaxrm.read import scoring
from jaxrm.study import command
from jaxrm.study.command import Config
from jaxrm.train.terms import Monitor, Term, weighted_sum
from tests.methods.small_base import small_base
from tests.rows_of_pairs import written

QUICK = ("bt", "margin", "grm_dpo", "odin", "dpo", "kwise", "process")
"""One of each kind; all others train in the slow run."""

PAIRS = toy.World(0).comparisons("train", 12)


def graded():
    return toy.World(0).rated(PAIRS)


def ranked():
    return toy.World(0).comparisons("train", 6, 4)


def half_unlabelled():
    return [dataclasses.replace(c, ranks=None) if i % 2 else c for i, c in enumerate(PAIRS)]


def with_ratios():
    return [dataclasses.replace(c, columns={"log_ratios": (0.5, -0.25)}) for c in PAIRS]


def worked():
    """Sums in steps, each labelled."""
    solutions = []
    for question, solution in toy.World(0).solutions("train", 8):
        text, ends = join_steps(list(solution.steps), list(map(float, solution.labels)), ", ")
        answer = (Message("assistant", text),)
        solutions.append(Comparison((Message("user", question),), (answer,), steps=(ends,)))
    return solutions


DATA = {
    "pairs with attributes": graded,
    "rankings": ranked,
    "pairs with an order, and others": half_unlabelled,
    "pairs with a column log_ratios": with_ratios,
    "responses with labelled steps": worked,
}
"""By how `Method.needs` begins; else pairs."""


SAME_LOSS = ("shuffled", "kwise", "l2", "frozen", "convex_da", "process")
"""Bradley-Terry's, of other comparisons, in batches of rankings, with a pull, or on less; and one
of which Bradley-Terry has nothing to say."""


def data_of(method):
    """What a method trains on, and the options of its source."""
    makers = [maker for words, maker in DATA.items() if method.needs.startswith(words)]
    columns = "?columns=log_ratios" if "log_ratios" in method.columns else ""
    return (makers[0]() if makers else PAIRS), columns


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """The command sees one device, as on a laptop."""
    with pytest.MonkeyPatch.context() as patch:
        one, make_mesh = jax.devices()[:1], parallel.make_mesh
        patch.setattr(
            parallel, "make_mesh", lambda shape=MeshShape(), devices=one: make_mesh(shape, one)
        )
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)
def test_every_method_trains_with_lora_and_leaves_an_export_that_scores_as_it_did(
    name, base, tmp_path
):
    method = METHODS[name]
    comparisons, columns = data_of(method)
    held_out = graded() if "attributes" in method.columns else PAIRS
    text = str(written(tmp_path / "text.jsonl", toy.World(0).pretraining_text(4)))
    cfg = Config(
        preset="gemma-2b-it-lora",
        method=name,
        base=base,
        data=(str(written(tmp_path / "train.jsonl", comparisons)) + columns,),
        eval=(str(written(tmp_path / "test.jsonl", held_out)),),
        text=(f"{text}?text=raw",) if method.text else (),
        run_dir=tmp_path / "run",
        train="lora",
        lora=LoraConfig(rank=2),
        steps=2,
        mesh=MeshShape(1, 1, 1),
        rows=2,
        row_length=160,
        max_length=160,
        learning_rate=1e-2,
        eval_sample=2,
    )
    command.main(cfg, METHODS)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    figures = results["models"][name]["test"]
    assert figures["n"] == len(PAIRS)
    assert 0 <= figures["accuracy"] <= 1
    export = tmp_path / "run" / name / "export"
    assert json.loads((export / "config.json").read_text())["model_type"]
    bench = Bench(base)
    parts = scoring.load(export, mesh=bench.devices)
    rewards = np.concatenate(
        scoring.rewards(parts, bench.trees(held_out), mesh=bench.devices, row_length=160)
    )
    expected = figures["rewards"]["mean"], figures["rewards"]["deviation"]
    np.testing.assert_allclose((rewards.mean(), rewards.std()), expected, rtol=2e-3, atol=2e-4)


def gradient(bench, method, strength, trees, text):
    """Of a method's loss on a batch, at the start, with respect to all parameters; and the loss."""
    batch = packing.pack(trees, [range(len(trees))], dataclasses.replace(
        bench.shape(bench, method, trees), rows=1))  # fmt: skip
    if method.text:
        batch = WithText(batch, text)
    params = bench.start(0, method.outputs)

    def loss(params):
        model = transformer.merge(bench.structure(method.outputs), params)
        terms = method.loss(strength)(model, batch, jax.random.key(0)).values()
        return sum(
            t.coefficient * (weighted_sum(t.values, t.weights) if isinstance(t, Term) else t.value)
            for t in terms
            if not isinstance(t, Monitor)
        )

    return jax.value_and_grad(loss)(params)


@pytest.fixture(scope="module")
def bench(base):
    return Bench(base, rows=1, length=512)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.train is None and n != "bt"])
def test_every_loss_differs_from_bradley_terry_on_the_same_batch(name, bench):
    method, plain = METHODS[name], METHODS["bt"]
    comparisons, _ = data_of(method)
    packed = bench.pack(comparisons[:4])
    task = Task(bench, InMemory(packed), packed, 1e-3, method.default, 1, 0)
    prepared = method.prepare(task) if method.prepare else None
    trees = InMemory(packed).prepared(bench, method, prepared).trees
    trees = trees[:: max(1, len(trees) // 4)][:4]  # of RRM's, pairs and ties
    texts = bench.trees(toy.World(0).pretraining_text(1))
    text = packing.pack(texts, [[0]], planning.reading_shape(1, 512, "all"))
    own = gradient(bench, method, method.default, trees, text)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own))
    if name in SAME_LOSS:
        return
    theirs = gradient(bench, plain, None, trees, None)
    apart = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), own[1]["layers"], theirs[1]["layers"]
    )
    assert max(jax.tree.leaves(apart)) > 1e-7


def test_every_method_says_what_it_is_and_needs():
    lines = command.listed(METHODS).splitlines()
    assert len(lines) == len(METHODS)
    for line, (name, method) in zip(lines, METHODS.items(), strict=True):
        assert line.startswith(f"{name} ")
        assert method.about in line
        assert method.needs in line
        assert bool(method.strengths) == bool(method.strength)
        assert len(set(method.strengths)) in (0, 3, 4)
