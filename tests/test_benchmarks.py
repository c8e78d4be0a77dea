"""What the benchmarks count, by hand, and that they run. Nothing here is timed."""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import attention, memory, page, score, shapes, startup, train, turns
from benchmarks.recipe import Recipe, Taken
from jaxrm import toy
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.errors import DataError, OptionError
from jaxrm.huggingface import families, hub
from jaxrm.methods.bench import Bench
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.parallel import MeshShape
from jaxrm.study.runconfig import PRESETS
from tests.rows_of_pairs import written


def small_tree():
    def branch(count):
        return Branch(np.arange(count, dtype=np.int32), np.ones(count, bool))

    return TokenTree(np.arange(3, dtype=np.int32), (branch(2), branch(1)), ranks=(0, 1))


# Two layers of 1024 + 512 + 512 + 1024 + 3 * 2048 weights; 6 tokens that see 1 + 2 + 3 + 4 + 5 + 4;
# 2 targets over 512 words of 32 features; LoRA of 2 * (2048 + 1536 + 1536 + 2048) weights.
TRUNK = 2 * 6 * 18432 + 4 * 19 * 2 * 16 * 2
VOCABULARY = 2 * 2 * 32 * 512


@pytest.mark.parametrize(
    ("trains", "expected"),
    [("all", 3 * (TRUNK + VOCABULARY)), ("lora", 2 * (TRUNK + VOCABULARY) + 6 * 6 * 14336)],
)
def test_useful_work_by_hand(trains, expected, monkeypatch):
    bench = Bench(Path("none"), train=trains, lora=LoraConfig(rank=32))
    decoder = families.read(shapes.SHAPES["tiny"])
    monkeypatch.setattr(Bench, "config", decoder)
    assert train.useful_flops(bench, [small_tree()], "best") == expected


def test_the_published_shapes_are_the_models():
    sizes = {}
    for name in ("gemma-2b", "gemma-2-2b"):
        declared = transformer.declare(families.read(shapes.SHAPES[name]), None)
        leaves = jax.tree.leaves(declared, is_leaf=lambda leaf: hasattr(leaf, "init"))
        sizes[name] = sum(np.prod(leaf.shape) for leaf in leaves)
    assert sizes == {"gemma-2b": 2_506_172_416, "gemma-2-2b": 2_614_341_888}


def test_memory_is_the_compilers(monkeypatch):
    tiny = PRESETS["gemma-2b-it-lora"] | {"row_length": 64, "max_length": 48}
    monkeypatch.setitem(memory.PRESETS, "gemma-2b-it-lora", tiny)
    found = memory.measure(memory.Config(shapes="tiny", rows=8, mesh=MeshShape(2, 2, 2)))
    assert found["pairs"] > 4
    assert found["memory_gib"]["state_and_batch"] > 0
    assert found["memory_gib"]["total"] > found["memory_gib"]["temporary"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random model of tiny shapes with the toy's tokenizer."""
    directory = tmp_path_factory.mktemp("shapes") / "tiny"
    shapes.main(shapes.Config(directory, "tiny"))
    return directory


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Comparisons of the toy world as a file."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    return written(path, toy.World(0).comparisons("train", 60))


def of_train(base, pairs, out, **options):
    options = {"rows": 8, "row_length": 192, "repeats": 2} | options
    return train.Config(base, str(pairs), out, **options)


def test_a_step_alone_is_measured_where_there_is_no_torch(base, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    train.main(of_train(base, pairs, tmp_path / "out.json", peak=1.0))
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found["ways"]["jaxrm"]["seconds"]) == 2
    assert found["ratio"] == {}
    assert found["versions"]["jax"] == jax.__version__
    assert 0 < found["gflops"]["mfu"] < 1
    assert found["gflops"]["share"] > 0
    assert 2 < found["work"]["pairs"] < 60
    assert 0.5 < found["work"]["token efficiency"] <= 1


@pytest.mark.torch
@pytest.mark.parametrize("loss", ["bt", "sft", "dpo"])
@pytest.mark.parametrize("trains", ["all", "lora"])
def test_torch_takes_the_same_step(loss, trains, base, pairs, tmp_path):
    pytest.importorskip("torch")
    if trains == "lora":
        pytest.importorskip("peft")
    cfg = of_train(base, pairs, tmp_path / "out.json", loss=loss, train=trains, repeats=1)
    found = train.measure(dataclasses.replace(cfg, tolerance=1e-5))
    firsts = found["parity"]["first step"]
    assert list(firsts) == ["jaxrm", "torch, as GRM's code", "torch, sorted by length"]
    assert list(found["ratio"]) == list(firsts)[1:]
    assert firsts["jaxrm"]["grad_norm"] > 0


def test_ways_that_differ_are_not_timed():
    firsts = {"ours": Taken(1.0, 2.0), "theirs": Taken(1.0, 2.1)}
    assert train.agreement(firsts, 0.06)["largest difference"] == pytest.approx(0.05)
    with pytest.raises(turns.ParityError, match="do not compute the same"):
        train.agreement(firsts, 0.04)
    with pytest.raises(turns.ParityError):
        train.agreement(firsts | {"theirs": Taken(float("nan"), 2.0)}, 0.04)
    rewards = {"ours": np.array([0.0, 2.0]), "theirs": np.array([0.0, 2.5])}
    assert score.agreement(rewards, 0.6)["theirs"] == 0.5
    with pytest.raises(turns.ParityError, match="do not agree"):
        score.agreement(rewards, 0.4)


def test_a_recipe_of_bradley_terry_has_no_text():
    assert train.method_of(Recipe("bt")).ask == "none"
    assert train.method_of(Recipe("dpo")).fills


def test_a_source_without_pairs_is_refused(base, tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text('{"prompt": "Hi?", "chosen": "' + "a " * 999 + '", "rejected": "b"}\n')
    with pytest.raises(DataError, match="no pair fits a row of 192 tokens"):
        train.measure(of_train(base, path, tmp_path / "out.json"))


# 512 embeddings of 32 features, 18432 weights of two layers, five norms of 32.
TINY = 512 * 32 + 18432 + 5 * 32
MIB = 2**20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("load") / "tiny"
    startup.write_checkpoint(shapes.SHAPES["tiny"], directory, shard_bytes=40_000)
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
    held = startup.read_through(tiny)
    assert held == sum(path.stat().st_size for path in tiny.glob("*.safetensors"))
    assert 2 * TINY < held < 2 * TINY + 8192  # the rest is headers


def test_a_checkpoint_is_used_again_but_nothing_else_is(tiny, tmp_path):
    written = {path: path.stat().st_mtime_ns for path in tiny.iterdir()}
    startup.write_checkpoint(shapes.SHAPES["tiny"], tiny)
    assert {path: path.stat().st_mtime_ns for path in tiny.iterdir()} == written
    with pytest.raises(OptionError, match="new, or a checkpoint of the same shapes"):
        startup.write_checkpoint(shapes.SHAPES["tiny"] | {"num_hidden_layers": 3}, tiny)
    with pytest.raises(OptionError, match="new, or a checkpoint of the same shapes"):
        startup.write_checkpoint(shapes.SHAPES["tiny"], tmp_path)


def test_jaxrm_loads_it(tiny):
    # A head of 32 values, in float32.
    assert list(startup.with_jaxrm(tiny, "bfloat16")) == [0, *[2 * TINY + 4 * 32] * 2]
    assert list(startup.with_jaxrm(tiny, "float32")) == [0, *[4 * TINY + 4 * 32] * 2]


@pytest.mark.torch
def test_transformers_loads_it(tiny):
    pytest.importorskip("torch")
    # A head of 32 values, in the dtype of the rest.
    assert list(startup.with_transformers(tiny, "bfloat16")) == [0, *[2 * (TINY + 32)] * 2]
    assert list(startup.with_transformers(tiny, "float32")) == [0, *[4 * (TINY + 32)] * 2]


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
    found = startup.measure(known, tmp_path, "float32")
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
        startup.measure(fails, tmp_path, "float32")
    assert "no float32 here" in capfd.readouterr().err


def test_loads_are_summed_up_in_medians():
    gib = 2**30
    loads = [
        startup.Load(1.0, 2.0, 1.5, 2 * gib, 3 * gib, 2 * gib, gib),
        startup.Load(3.0, 4.0, 9.5, 2 * gib, 5 * gib, 4 * gib, gib),
        startup.Load(4.0, 8.0, 3.5, 2 * gib, 4 * gib, 3 * gib, gib),
    ]
    last = startup.summary({("jaxrm", "bfloat16"): loads}, 2 * gib).splitlines()[-1]
    times = "3.00 | 4.00 (2.00 to 8.00) | 3.50 | 0.50"
    assert last == f"| jaxrm | bfloat16 | {times} | 2.00 | 4.00 | 3.00 | 1.00 | 2.00 |"


def test_loaders_take_turns_and_leave_nothing(monkeypatch, capsys):
    taken = []

    def measure(way, directory, dtype):
        assert (directory / "config.json").exists()
        taken.append((way, dtype, directory))
        return startup.Load(1.0, 1.0, 1.0, 2**30, 2**30, 2**30, 0)

    monkeypatch.setattr(startup, "measure", measure)
    monkeypatch.setattr(startup.importlib.util, "find_spec", lambda name: None)
    startup.main(startup.Config(shapes="tiny", repeats=2))
    assert [way for way, _, _ in taken] == [startup.with_jaxrm] * 4
    assert [dtype for _, dtype, _ in taken] == ["bfloat16", "float32"] * 2
    assert not taken[0][2].exists()
    printed = capsys.readouterr().out
    assert "torch is not installed" in printed
    assert "| jaxrm | float32 | 1.00 |" in printed


def test_ways_take_turns_after_one_that_is_not_timed():
    taken = []

    def way(name, seconds):
        def turn():
            taken.append(name)
            time.sleep(seconds)

        return turn

    _, found = turns.take_turns({"a": way("a", 0.02), "b": way("b", 0.0)}, repeats=3)
    assert taken == ["a", "b"] * 4
    assert len(found["a"]) == len(found["b"]) == 3
    assert min(found["a"]) >= 0.02


def test_ways_are_compared_turn_by_turn(tmp_path, capsys):
    seconds = {"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 1.0, 8.0]}
    found = turns.record(seconds, {"largest": 0.0}, base="tiny")
    assert found["ways"]["theirs"]["seconds"] == [3.0, 1.0, 8.0]
    assert found["ratio"] == {"theirs": {"median": 2.0, "min": 0.5, "max": 3.0}}
    assert (found["base"], found["parity"]) == ("tiny", {"largest": 0.0})
    turns.keep(found, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == found
    lines = capsys.readouterr().out.splitlines()
    assert "| ours | 2.00 (1.00 to 4.00) | 1 |" in lines
    assert "| theirs | 3.00 (1.00 to 8.00) | 2.00 (0.50 to 3.00) |" in lines


def test_the_work_of_scoring_by_hand():
    def tree(prompt, *branches):
        tokens = (np.zeros(count, np.int32) for count in branches)
        return TokenTree(
            np.zeros(prompt, np.int32), tuple(Branch(t, np.ones(len(t), bool)) for t in tokens)
        )

    # 3 + 2 and 3 + 4, then three times 5 + 1; shared, 3 + 2 + 4 and 5 + 3.
    assert score.work([tree(3, 2, 4), tree(5, 1, 1, 1)]) == {
        "comparisons": 2,
        "responses": 5,
        "tokens": 30,
        "tokens, prompts shared": 17,
    }


@pytest.mark.torch
def test_transformers_scores_the_same(base, pairs, tmp_path):
    pytest.importorskip("torch")
    options = {"rows": 2, "row_length": 192, "batch": 3, "repeats": 1, "tolerance": 1e-4}
    score.main(score.Config(base, str(pairs), tmp_path / "out.json", **options))
    found = json.loads((tmp_path / "out.json").read_text())
    assert list(found["ratio"]) == ["transformers, in order", "transformers, by length"]
    assert found["work"]["responses"] == 120
    assert max(found["parity"].values()) < 1e-4


def test_scoring_is_compared_with_torch_or_not_at_all(monkeypatch):
    monkeypatch.setattr(score.importlib.util, "find_spec", lambda name: None)
    config = score.Config(Path("none"), "none.jsonl", Path("none.json"))
    with pytest.raises(OptionError, match="torch is not installed"):
        score.main(config)
    with pytest.raises(OptionError, match="--batch must be at least 1"):
        score.main(dataclasses.replace(config, batch=0))


def test_the_forms_of_attention_are_compared(base, pairs, tmp_path):
    options = {"rows": 8, "row_length": 192, "repeats": 1}
    cfg = attention.Config(base, str(pairs), tmp_path / "out.json", **options)
    found = attention.measure(cfg)
    assert list(found["ways"]) == ["dense", "split"]  # on the devices of the tests, and so short
    assert found["parity"]["largest difference"] < 1e-5
    with pytest.raises(turns.ParityError, match="forms of attention"):
        attention.measure(dataclasses.replace(cfg, tolerance=1e-12))


def test_tables_stand_where_the_page_has_them(tmp_path):
    work = {"pairs": 15, "mean prompt": 85.4, "mean response": 93.6}
    step = turns.record(
        {"ours": [1.0], "torch": [1.5]}, {}, step="sft", base="b", data="d", work=work
    )
    turns.keep(step, tmp_path / "train_a.json")
    turns.keep(step | {"ratio": {}}, tmp_path / "train_b.json")
    text = "Before.\n<!-- records: train_* -->\nold\n<!-- end -->\nAfter.\n"
    found = page.filled(text, tmp_path)
    line = "| b, sft: 15 pairs, 85 + 94 tokens | d | 1.00 (1.00 to 1.00) | torch |"
    assert f"{line} 1.50 (1.50 to 1.50) |" in found
    assert line.replace("torch", "none") in found
    assert "old" not in found
    assert found.startswith("Before.\n<!-- records: train_* -->")
    assert found.endswith("<!-- end -->\nAfter.\n")
    assert page.filled(found, tmp_path) == found
    with pytest.raises(DataError, match="no record matches score_"):
        page.filled(text.replace("train_", "score_"), tmp_path)


def test_the_page_is_made_of_its_records():
    docs = Path(__file__).parents[1] / "docs"
    written = (docs / "performance.md").read_text()
    assert page.filled(written, docs / "performance") == written
