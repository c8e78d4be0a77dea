"""The experiment from a command line to a report: what it trains, leaves behind and refuses."""

import dataclasses
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import grm_gemma
from experiments.grm_gemma import PRESETS, Config
from jaxrm import cli, toy
from jaxrm.data import chat, packing, planning, sources
from jaxrm.data.formats import to_row
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import JaxrmError, RunDirError
from jaxrm.huggingface import hub, tensorfile
from jaxrm.losses import generation, preference
from jaxrm.models import heads, transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.parallel import MeshShape
from jaxrm.train import rundir
from jaxrm.train.terms import Term
from tests.clock import set_today
from tests.messages_oracle import FOLDER

ROWS = FOLDER / "rows.jsonl"


def tiny(run_dir, **options):
    """Four pairs, three steps, one device."""
    return Config(
        run_dir=run_dir,
        preset="gemma-2b-it-full",
        base=FOLDER,
        data=(str(ROWS),),
        eval=(str(ROWS),),
        alpha=0.1,
        steps=3,
        rows=1,
        row_length=256,
        learning_rate=1e-2,
        mesh=MeshShape(1, 1, 1),
        log_every=1,
        checkpoint_every=1,
        **options,
    )


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """The command sees one device, as on a laptop."""
    with pytest.MonkeyPatch.context() as patch:
        one = jax.devices()[:1]
        make_mesh = grm_gemma.parallel.make_mesh
        patch.setattr(grm_gemma.parallel, "make_mesh", lambda shape: make_mesh(shape, one))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    grm_gemma.main(tiny(directory))
    return directory


@pytest.fixture(scope="module")
def batch():
    trees = chat.tokenize(sources.read(ROWS), load_tokenizer(FOLDER))
    shape = planning.fit_shape(trees, rows=1, length=256, ask="all")
    packed = packing.pack(trees, [range(len(trees))], shape)
    return jax.tree.map(jnp.asarray, packed)


def test_a_run_leaves_everything_that_a_reader_expects(run):
    results = json.loads((run / "results.json").read_text())
    assert results["seeds"] == [0]
    tally = {"read": 4, "used": 4, "dropped": {}, "truncated": 0, "folded": 0}
    assert results["data"]["train"] == tally
    for name in ("baseline", "grm"):
        figures = results["models"][name]["rows"]
        assert figures["n"] == 4
        assert 0 <= figures["accuracy"] <= 1
        assert figures["standard_error"] >= 0
        assert figures["language"]["n"] == 4
        lines = (run / name / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        assert [line["step"] for line in metrics] == [1, 2, 3]
        expected = {
            "loss",
            "accuracy",
            "margin",
            "mean_reward",
            "min_reward",
            "max_reward",
            "grad_norm",
        }
        assert expected | {"grad_norm", "tokens_per_second", "eval/rows/loss"} <= metrics[-1].keys()
        assert metrics[-1]["loss/reward"] < metrics[0]["loss/reward"]
        assert list((run / name / "checkpoints").iterdir())
    assert "loss/text" in metrics[-1]
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert "baseline" in page


def test_all_models_see_the_same_batches(tmp_path):
    pairs = toy.World(seed=0).comparisons("train", 300)
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(to_row(pair)) + "\n" for pair in pairs))
    trees = chat.tokenize(pairs, load_tokenizer(FOLDER))
    plans = []
    for ask in ("none", "best"):
        shape = planning.fit_shape(trees, rows=1, length=160, ask=ask)
        sizes = packing.measure(trees, ask=ask, preferences=True)
        plans.append(planning.plan_epoch(sizes, shape, 0, 0))
    assert plans[0] != plans[1], "if what is asked did not matter, this would show nothing"

    cfg = dataclasses.replace(tiny(tmp_path / "run"), data=(str(path),), row_length=160, steps=6)
    grm_gemma.main(cfg)
    lines = [(cfg.run_dir / n / "metrics.jsonl").read_text() for n in ("baseline", "grm")]
    tokens = [[json.loads(line)["tokens"] for line in text.splitlines()] for text in lines]
    assert len(set(tokens[0])) > 1
    assert tokens[0] == tokens[1]


def test_the_same_command_finds_the_finished_run(run):
    before = (run / "results.json").read_text()
    grm_gemma.main(tiny(run))
    assert (run / "results.json").read_text() == before


def test_another_configuration_is_refused(run):
    with pytest.raises(RunDirError, match="alpha: 0.1 there, 0.2 here"):
        grm_gemma.main(dataclasses.replace(tiny(run), alpha=0.2))


def test_other_data_under_the_same_name_is_refused(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(ROWS.read_text())
    cfg = dataclasses.replace(tiny(tmp_path / "run"), data=(str(path),), models=("baseline",))
    grm_gemma.main(cfg)
    path.write_text("".join(ROWS.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(RunDirError, match="began with another content of the training data"):
        grm_gemma.main(cfg)


def test_a_run_is_resumed_with_the_day_that_it_began_with(tmp_path, monkeypatch):
    template = FOLDER.joinpath("chat_template.jinja").read_text("utf-8")
    (tmp_path / "dated.jinja").write_text(template + "{{ strftime_now('%d %B') }}", "utf-8")
    options = {"chat_template": tmp_path / "dated.jinja", "models": ("baseline",)}
    set_today(monkeypatch, date(2026, 11, 30), rundir)
    grm_gemma.main(tiny(tmp_path / "run", **options))
    inputs = (tmp_path / "run" / "inputs.json").read_text()
    assert json.loads(inputs)[rundir.DAY] == "2026-11-30"
    set_today(monkeypatch, date(2026, 12, 1), rundir)
    grm_gemma.main(tiny(tmp_path / "run", **options))
    assert (tmp_path / "run" / "inputs.json").read_text() == inputs


def test_exports_score_as_the_run_did(run):
    results = json.loads((run / "results.json").read_text())
    out = run / "scores.jsonl"
    command = [sys.executable, "-m", "jaxrm.score", "--model", run / "grm" / "export", ROWS, out]
    subprocess.run(command, check=True, capture_output=True)
    rewards = np.array([json.loads(line)["rewards"] for line in out.read_text().splitlines()])
    assert (rewards[:, 0] > rewards[:, 1]).mean() == results["models"]["grm"]["rows"]["accuracy"]
    counts = results["models"]["grm"]["rows"]["rewards"]
    np.testing.assert_allclose(
        [counts["edges"][0], counts["edges"][-1]], [rewards.min(), rewards.max()], rtol=1e-5
    )


def terms(model, batch, alpha, regularizer="sft", name="grm"):
    cfg = Config(models=(name,), regularizer=regularizer, alpha=alpha)
    method, strength = grm_gemma.methods(cfg)[name]
    return method.loss(strength)(model, batch, jax.random.key(0))


@pytest.mark.parametrize(("name", "alpha"), [("grm", 0.0), ("baseline", 0.5)])
def test_alpha_zero_and_the_baseline_are_bradley_terry_alone(batch, name, alpha):
    found = terms(hub.load(FOLDER, None), batch, alpha, name=name)
    assert [name for name, term in found.items() if isinstance(term, Term)] == ["reward"]
    assert found["reward"].coefficient == 1


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        ("sft", lambda chosen, rejected: generation.sft(chosen, 0.1)),
        ("nll", lambda chosen, rejected: generation.nll(chosen)),
        (
            "dpo_reference_free",
            lambda chosen, rejected: generation.dpo_reference_free(chosen, rejected, 0.1),
        ),
    ],
)
def test_each_regularizer_is_its_loss_on_this_batch(batch, regularizer, expected):
    model = hub.load(FOLDER, None)
    found = terms(model, batch, 0.25, regularizer)
    hidden = model.hidden(batch)
    chosen, rejected = batch.pairs(heads.response_logps(model, hidden, batch))
    rewards = batch.pairs(heads.rewards(model, hidden, batch))
    np.testing.assert_allclose(found["text"].values, expected(chosen, rejected), rtol=1e-5)
    np.testing.assert_allclose(
        found["reward"].values, preference.bradley_terry(*rewards), rtol=1e-5
    )
    assert (found["reward"].coefficient, found["text"].coefficient) == (0.75, 0.25)
    assert found["text"].weights.sum() == 4


def test_a_ranking_writes_its_best_response_once(batch):
    tokens = np.arange(10, 14, dtype=np.int32)
    branches = tuple(packing.Branch(tokens + k, np.ones(4, bool)) for k in range(4))
    ranking = packing.TokenTree(tokens, branches, ranks=(2, 0, 1, 3))
    shape = planning.fit_shape([ranking], rows=1, length=32, ask="best")
    packed = jax.tree.map(jnp.asarray, packing.pack([ranking], [[0]], shape))
    found = terms(hub.load(FOLDER, None), packed, 0.5)
    assert found["text"].weights.sum() == 1
    np.testing.assert_allclose(found["reward"].weights.sum(), 1.0)
    assert np.count_nonzero(found["reward"].weights) == 6


def test_the_reward_head_learns_from_the_reward_alone(batch):
    structure, params = transformer.split(hub.load(FOLDER, None))

    def total(params, alpha, name):
        term = terms(transformer.merge(structure, params), batch, alpha)[name]
        return (term.values * term.weights).sum()

    of_text = jax.grad(total)(params, 0.5, "text")
    np.testing.assert_array_equal(of_text["reward_head"]["weight"], 0)
    assert np.abs(of_text["embedding"]).max() > 0


def test_an_mlp_head_is_read_back_with_its_shape(tmp_path):
    # The fixture holds a linear head, so another kind must be refused, not mixed in.
    with pytest.raises(Exception, match="holds the reward head"):
        grm_gemma.main(dataclasses.replace(tiny(tmp_path / "run"), head=HeadConfig("mlp")))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"data": ()}, "--data is to say what to train on"),
        ({"pretrain": True}, "choose one of them"),
        ({"preset": "toy", "base": None, "lexicon": "dev"}, "add --pretrain or --base"),
        ({"eval": (str(ROWS), str(ROWS))}, "two --eval sources are named rows"),
        ({"preset": "toy"}, "--preset toy is for the toy base"),
        ({"select": "best"}, "--select best needs a split named val"),
        ({"models": ("margin",)}, "field 'margin': there is none, and no scores either"),
        ({"preset": "toy", "base": None, "select": "last", "models": ()}, "--models must be names"),
        ({"base": None}, "is for a base of your own"),
        ({"alpha": 1.5}, r"--alpha must be a share in \[0, 1\], not 1.5"),
        ({"rows": 0}, "--rows must be at least 1, not 0"),
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"data": (f"{ROWS}?weight=0.01",), "steps": None}, "leave no comparison in an epoch"),
        ({"max_length": 5}, "nothing left to train on: read 4, used 0, dropped 4: 4 over-length"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, problem):
    with pytest.raises(JaxrmError, match=problem):
        grm_gemma.main(dataclasses.replace(tiny(tmp_path / "run"), **options))


@pytest.mark.parametrize("name", ["margin", "label_smoothed"])
def test_the_paper_s_other_baselines_are_their_losses(batch, name):
    model = hub.load(FOLDER, None)
    margin = jnp.arange(batch.pair_mask.size) * 0.5 * batch.pair_mask
    batch = dataclasses.replace(batch, columns={"magnitude": margin})
    rewards = batch.pairs(heads.rewards(model, model.hidden(batch), batch))
    expected = {
        "margin": preference.bradley_terry(*rewards, margin),
        "label_smoothed": preference.label_smoothed(*rewards, 0.1),
    }[name]
    found = terms(model, batch, 0.5, name=name)
    np.testing.assert_allclose(found["reward"].values, expected, rtol=1e-5)
    assert found["reward"].coefficient == 1
    assert "text" not in found


def test_presets_are_the_recipe_s(monkeypatch):
    lora, full = (PRESETS[f"gemma-2b-it-{how}"] for how in ("lora", "full"))
    assert (lora.lora.rank, lora.lora.alpha, lora.lora.dropout) == (32, 64, 0.05)
    assert lora.lora.targets == ("query", "key", "value", "output")
    assert (lora.train, lora.learning_rate, lora.epochs, lora.max_length) == ("lora", 1e-5, 2, 1024)
    assert (full.train, full.learning_rate, full.epochs, full.max_length) == ("all", 5e-6, 1, 3000)
    for preset in (lora, full):
        assert (preset.alpha, preset.beta, preset.clip, preset.warmup) == (0.01, 0.1, 5.0, 0.03)
        assert preset.head == HeadConfig("mlp", hidden=1024, layers=1, dropout=0.1)
    assert all(preset.preset == name for name, preset in PRESETS.items())

    seen = []
    command = ["grm_gemma", "--preset", "gemma-2b-it-lora", "--lora.rank", "8", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", command)
    cli.run(seen.append, Config, "", PRESETS)
    assert seen == [dataclasses.replace(lora, lora=LoraConfig(rank=8), epochs=1)]


def test_lora_and_dpo_train_a_head_and_an_adapter_that_score_as_they_did(tmp_path):
    """The reference's log-probs are made once, the base stays, and both exports agree."""
    cfg = dataclasses.replace(
        tiny(tmp_path / "run"),
        train="lora",
        lora=LoraConfig(rank=2, targets=("query", "down")),
        regularizer="dpo",
        models=("grm",),
        eval=(str(val_copy(tmp_path)),),
        eval_every=1,
        select="best",
        keep=1,
        reference_cache=tmp_path / "cache",
    )
    grm_gemma.main(cfg)
    results = json.loads((cfg.run_dir / "results.json").read_text())
    lines = (cfg.run_dir / "grm" / "metrics.jsonl").read_text().splitlines()
    first, *_ = metrics = [json.loads(line) for line in lines]
    # Policy and reference begin as one, so the first step's term is alpha ln 2, up to dropout.
    assert first["loss/text"] == pytest.approx(0.1 * np.log(2), abs=0.02)
    best = max(line["eval/val/accuracy"] for line in metrics)
    assert results["models"]["grm"]["val"]["accuracy"] == best
    first_best = next(line for line in metrics if line["eval/val/accuracy"] == best)
    assert results["selected"] == {"grm": {"step": first_best["step"], "value": best}}
    assert len(list(cfg.reference_cache.glob("*.npz"))) == 1

    scores = []
    for options in (["--model", "grm/export"], ["--model", FOLDER, "--adapter", "grm/adapter"]):
        out = tmp_path / "scores.jsonl"
        paths = [str(cfg.run_dir / part) if "grm/" in str(part) else str(part) for part in options]
        command = [sys.executable, "-m", "jaxrm.score", *paths, str(ROWS), str(out)]
        subprocess.run(command, check=True, capture_output=True)
        scores.append([json.loads(line)["rewards"] for line in out.read_text().splitlines()])
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)
    exported = tensorfile.read(cfg.run_dir / "grm" / "export" / "model.safetensors")
    before = tensorfile.read(FOLDER / "model.safetensors")
    moved = {name for name in before if not np.array_equal(exported[name], before[name])}
    assert all(part in str(moved) for part in ("q_proj", "down_proj", "score"))
    assert len(moved) == 2 * 2 + 1


def val_copy(folder):
    path = folder / "val.jsonl"
    path.write_text(ROWS.read_text())
    return path


@pytest.mark.slow
def test_killed_twice_the_command_ends_as_if_it_had_not_been(tmp_path):
    rng = np.random.default_rng()
    command = [
        sys.executable, "-m", "experiments.grm_gemma", "--preset", "gemma-2b-it-full",
        "--base", FOLDER, "--data", ROWS, "--eval", ROWS, "--head.kind", "linear",
        "--dtype", "float32", "--remat", "none", "--max-length", "128", "--accumulate", "1",
        "--alpha", "0.1", "--steps", "60", "--rows", "1", "--row-length", "256",
        "--checkpoint-every", "5", "--log-every", "1", "--eval-every", "20",
        "--learning-rate", "0.001",
    ]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    root = Path(__file__).parents[1]

    def start(run_dir):
        return subprocess.Popen(
            [*map(str, command), "--run-dir", str(run_dir)],
            cwd=root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start(whole).wait() == 0
    kills = 0
    while kills < 2:
        process = start(broken)
        try:
            # From the start of the interpreter to the end of the second model's training.
            process.wait(timeout=rng.uniform(5, 30))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert start(broken).wait() == 0
    assert kills == 2

    def metrics(run_dir, name):
        lines = (run_dir / name / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "tokens_per_second": None} for line in lines]

    for name in ("baseline", "grm"):
        assert metrics(whole, name) == metrics(broken, name)
        files = [run / name / "export" / "model.safetensors" for run in (whole, broken)]
        assert files[0].read_bytes() == files[1].read_bytes()
    results = [json.loads((run / "results.json").read_text()) for run in (whole, broken)]
    assert results[0] == results[1]
