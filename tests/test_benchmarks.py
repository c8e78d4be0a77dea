"""What the benchmarks count, by hand, and that they run. Nothing here is timed."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import load, score, step
from jaxrm import toy
from jaxrm.data import packing, planning
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import OptionError
from jaxrm.huggingface import families, hub
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.parallel import MeshShape
from jaxrm.study.runconfig import PRESETS, RunConfig


def small_batch():
    def branch(count):
        return Branch(np.arange(count, dtype=np.int32), np.ones(count, bool))

    tree = TokenTree(np.arange(3, dtype=np.int32), (branch(2), branch(1)), ranks=(0, 1))
    shape = planning.fit_shape([tree], rows=1, length=16, ask="best")
    return packing.pack([tree], [[0]], shape)


# Two layers of 1024 + 512 + 512 + 1024 + 3 * 2048 weights; 6 tokens that see 1 + 2 + 3 + 4 + 5 + 4;
# 2 targets over 512 words of 32 features; LoRA of 2 * (2048 + 1536 + 1536 + 2048) weights.
TRUNK = 2 * 6 * 18432 + 4 * 19 * 2 * 16 * 2
VOCABULARY = 2 * 2 * 32 * 512


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("gemma-2b-it-full", 3 * (TRUNK + VOCABULARY)),
        ("gemma-2b-it-lora", 2 * (TRUNK + VOCABULARY) + 6 * 6 * 14336),
    ],
)
def test_useful_work_by_hand(preset, expected):
    decoder = families.read(step.SHAPES["tiny"])
    assert (
        step.useful_flops(decoder, small_batch(), RunConfig(preset=preset, **PRESETS[preset]))
        == expected
    )


def test_the_published_shapes_are_the_models():
    sizes = {}
    for name in ("gemma-2b", "gemma-2-2b"):
        declared = step.transformer.declare(families.read(step.SHAPES[name]), None)
        leaves = step.jax.tree.leaves(declared, is_leaf=lambda leaf: hasattr(leaf, "init"))
        sizes[name] = sum(np.prod(leaf.shape) for leaf in leaves)
    assert sizes == {"gemma-2b": 2_506_172_416, "gemma-2-2b": 2_614_341_888}


def test_a_step_is_measured(monkeypatch):
    tiny = PRESETS["gemma-2b-it-lora"] | {"row_length": 64, "max_length": 48}
    monkeypatch.setitem(step.PRESETS, "gemma-2b-it-lora", tiny)
    config = step.Config(shapes="tiny", rows=8, steps=2, peak=1.0, mesh=MeshShape(2, 2, 2))
    found = step.measure(config)
    assert found["pairs"] > 4
    assert 0.5 < found["token_efficiency"] <= 1
    assert found["memory_gib"]["state_and_batch"] > 0
    assert found["memory_gib"]["total"] > found["memory_gib"]["temporary"]
    rate = found["useful_tflops"] / found["seconds"] / 8
    assert found["mfu"] == pytest.approx(rate)
    assert found["pairs_per_second"] == pytest.approx(found["pairs"] / found["seconds"])


# 512 embeddings of 32 features, 18432 weights of two layers, five norms of 32.
TINY = 512 * 32 + 18432 + 5 * 32
MIB = 2**20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("load") / "tiny"
    load.write_checkpoint(step.SHAPES["tiny"], directory, shard_bytes=40_000)
    return directory


def test_a_random_checkpoint_is_a_model_in_several_files(tiny):
    index = json.loads((tiny / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) == 2
    assert files == {path.name for path in tiny.glob("*.safetensors")}
    assert index["metadata"] == {"total_size": 2 * TINY}
    model = hub.load(tiny, HeadConfig(), dtype="bfloat16")
    params = transformer.split(model)[1]
    del params["reward_head"]
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) == TINY
    assert all(jnp.isfinite(leaf).all() and jnp.unique(leaf).size > 10 for leaf in leaves)


def test_reading_through_counts_the_bytes_of_the_weights(tiny):
    held = load.read_through(tiny)
    assert held == sum(path.stat().st_size for path in tiny.glob("*.safetensors"))
    assert 2 * TINY < held < 2 * TINY + 8192  # the rest is headers


def test_a_checkpoint_is_used_again_but_nothing_else_is(tiny, tmp_path):
    written = {path: path.stat().st_mtime_ns for path in tiny.iterdir()}
    load.write_checkpoint(step.SHAPES["tiny"], tiny)
    assert {path: path.stat().st_mtime_ns for path in tiny.iterdir()} == written
    with pytest.raises(OptionError, match="new, or a checkpoint of the same shapes"):
        load.write_checkpoint(step.SHAPES["tiny"] | {"num_hidden_layers": 3}, tiny)
    with pytest.raises(OptionError, match="new, or a checkpoint of the same shapes"):
        load.write_checkpoint(step.SHAPES["tiny"], tmp_path)


def test_jaxrm_loads_it(tiny):
    # A head of 32 values, in float32.
    assert list(load.with_jaxrm(tiny, "bfloat16")) == [0, *[2 * TINY + 4 * 32] * 2]
    assert list(load.with_jaxrm(tiny, "float32")) == [0, *[4 * TINY + 4 * 32] * 2]


@pytest.mark.torch
def test_transformers_loads_it(tiny):
    pytest.importorskip("torch")
    # A head of 32 values, in the dtype of the rest.
    assert list(load.with_transformers(tiny, "bfloat16")) == [0, *[2 * (TINY + 32)] * 2]
    assert list(load.with_transformers(tiny, "float32")) == [0, *[4 * (TINY + 32)] * 2]


def known(directory, dtype):
    """A load that keeps 64 MiB, holds 96 MiB more for a while, and at last maps a file of 32."""
    yield 0
    kept = np.ones(64 * MIB, np.uint8)
    for_a_while = np.ones(96 * MIB, np.uint8)
    time.sleep(0.2)
    del for_a_while
    yield kept.nbytes
    time.sleep(0.2)
    mapped = np.memmap(directory / "file", np.uint8, "r")
    mapped.sum()
    yield kept.nbytes


def test_a_load_is_watched_from_its_beginning(tmp_path):
    (tmp_path / "file").write_bytes(bytes(32 * MIB))
    found = load.measure(known, tmp_path, "float32")
    assert found.model == 64 * MIB
    assert found.returned > 0.2
    assert found.ready > found.returned + 0.2
    assert 0 < found.cpu < found.ready  # much of it is sleep
    assert found.private == pytest.approx(160 * MIB, abs=8 * MIB)
    assert found.mapped == pytest.approx(32 * MIB, abs=8 * MIB)
    assert found.peak == pytest.approx(160 * MIB, abs=16 * MIB)  # not 192: never both at once


def fails(directory, dtype):
    yield 0
    raise ValueError(f"no {dtype} here")


def test_a_load_that_fails_says_so(tmp_path, capfd):
    with pytest.raises(RuntimeError, match="ended"):
        load.measure(fails, tmp_path, "float32")
    assert "no float32 here" in capfd.readouterr().err


def test_loads_are_summed_up_in_medians():
    gib = 2**30
    loads = [
        load.Load(1.0, 2.0, 1.5, 2 * gib, 3 * gib, 2 * gib, gib),
        load.Load(3.0, 4.0, 9.5, 2 * gib, 5 * gib, 4 * gib, gib),
        load.Load(4.0, 8.0, 3.5, 2 * gib, 4 * gib, 3 * gib, gib),
    ]
    last = load.summary({("jaxrm", "bfloat16"): loads}, 2 * gib).splitlines()[-1]
    times = "3.00 | 4.00 (2.00 to 8.00) | 3.50 | 0.50"
    assert last == f"| jaxrm | bfloat16 | {times} | 2.00 | 4.00 | 3.00 | 1.00 | 2.00 |"


def test_loaders_take_turns_and_leave_nothing(monkeypatch, capsys):
    taken = []

    def measure(way, directory, dtype):
        assert (directory / "config.json").exists()
        taken.append((way, dtype, directory))
        return load.Load(1.0, 1.0, 1.0, 2**30, 2**30, 2**30, 0)

    monkeypatch.setattr(load, "measure", measure)
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
    load.main(load.Config(shapes="tiny", repeats=2))
    assert [way for way, _, _ in taken] == [load.with_jaxrm] * 4
    assert [dtype for _, dtype, _ in taken] == ["bfloat16", "float32"] * 2
    assert not taken[0][2].exists()
    printed = capsys.readouterr().out
    assert "torch is not installed" in printed
    assert "| jaxrm | float32 | 1.00 |" in printed


def test_scorers_take_turns_after_one_that_is_not_timed():
    taken = []

    def way(name, seconds):
        def scored(comparisons):
            taken.append((name, comparisons))
            time.sleep(seconds)
            return np.array([len(taken)], np.float32)

        return scored

    found = score.take_turns({"a": way("a", 0.02), "b": way("b", 0.0)}, ["one"], repeats=3)
    assert taken == [("a", ["one"]), ("b", ["one"])] * 4
    assert len(found["a"].seconds) == len(found["b"].seconds) == 3
    assert min(found["a"].seconds) >= 0.02
    assert found["b"].rewards == 8  # of the last turn


def test_scorers_are_compared_turn_by_turn():
    ours = score.Timing([1.0, 2.0, 4.0], np.array([1.0, 2.0], np.float32))
    theirs = score.Timing([3.0, 1.0, 8.0], np.array([1.0, 2.5], np.float32))
    first, second = score.summary({"ours": ours, "theirs": theirs}, 6).splitlines()[-2:]
    same = "1.00 (1.00 to 1.00)"
    assert first == f"| ours | 2.00 (1.00 to 4.00) | 3.0 | {same} | 0.0e+00 |"
    ratio = "2.00 (0.50 to 3.00)"  # of 3, 1/2 and 2
    assert second == f"| theirs | 3.00 (1.00 to 8.00) | 2.0 | {ratio} | 5.0e-01 |"


def test_the_work_of_scoring_by_hand():
    def tree(prompt, *branches):
        tokens = (np.zeros(count, np.int32) for count in branches)
        return TokenTree(
            np.zeros(prompt, np.int32), tuple(Branch(t, np.ones(len(t), bool)) for t in tokens)
        )

    said = score.workload([tree(3, 2, 4), tree(5, 1, 1, 1)])
    # 3 + 2 and 3 + 4, then three times 5 + 1; shared, 3 + 2 + 4 and 5 + 3.
    assert said == (
        "2 comparisons, 5 responses, 30 tokens, of which 17 remain where prompts are shared"
    )


@pytest.mark.torch
def test_transformers_scores_the_same(tmp_path):
    pytest.importorskip("torch")
    comparisons = toy.World(0).comparisons("train", 10)
    directory = tmp_path / "model"
    score.write_model(score.MODELS["tiny"], load_tokenizer(toy.TOKENIZER), directory)
    ours = score.with_jaxrm(directory, rows=2, row_length=128)(comparisons)
    assert len(ours) == 20
    assert len(np.unique(ours)) > 10
    for by_length in (False, True):
        theirs = score.with_torch(directory, batch=3, by_length=by_length)(comparisons)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)


def test_scoring_is_compared_with_torch_or_not_at_all(monkeypatch):
    monkeypatch.setattr(score.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="torch is not installed"):
        score.main(score.Config(data="none.jsonl"))
    with pytest.raises(OptionError, match="--batch must be at least 1"):
        score.main(score.Config(data="none.jsonl", batch=0))
