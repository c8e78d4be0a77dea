from __future__ import annotations

import gc
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.errors import CheckpointError, MetricError, RunDirError
from jaxrm.models.transformer import axes, split
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from jaxrm.train.best import Best
from jaxrm.train.checkpoint import MANIFEST, Checkpoints
from jaxrm.train.loop import fit
from jaxrm.train.optimizer import OptimizerConfig, learning_rates, make_optimizer
from jaxrm.train.state import abstract_state
from jaxrm.train.terms import Term
from tests.train.toy_problem import FEATURES, HIDDEN, Toy, ToyLoader, loss_fn, window
from tests.train.toy_run import STEPS, train

SINGLE = make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
CUBE = make_mesh(MeshShape(2, 2, 2))


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def timeless(run_dir):
    return [
        {name: value for name, value in line.items() if name != "tokens_per_second"}
        for line in lines(run_dir)
    ]


def steps(run_dir):
    return {int(path.name) for path in (run_dir / "checkpoints").iterdir()}


def saved_state(run_dir, mesh=CUBE):
    """Everything in a run's newest checkpoint: its state, and its progress."""
    model, config = Toy(), OptimizerConfig(learning_rate=1e-2)
    abstract = abstract_state(
        split(model)[1],
        axes(model),
        make_optimizer(config),
        trainable=lambda path: path != "norm",
        mesh=mesh,
        rules=ShardingRules(),
    )
    with Checkpoints(run_dir / "checkpoints") as checkpoints:
        progress = checkpoints.latest()
        state = checkpoints.restore(progress.step, abstract.saved())
    return jax.device_get(state), progress


def assert_same_run(run_dir, model, other):
    """The run in `run_dir`, which returned `model`, left and returned what `other` did."""
    other_dir, other_model = other
    assert timeless(run_dir) == timeless(other_dir)
    (state, progress), (other_state, other_progress) = saved_state(run_dir), saved_state(other_dir)
    assert progress == other_progress
    assert progress.step == STEPS
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    jax.tree.map(np.testing.assert_array_equal, split(model)[1], split(other_model)[1])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "toy"
    return run_dir, train(run_dir)


def test_a_run_learns_and_leaves_one_line_per_logged_step(uninterrupted):
    seen = lines(uninterrupted[0])
    assert [line["step"] for line in seen] == list(range(1, STEPS + 1))
    assert seen[-1]["loss"] < 0.5 * seen[0]["loss"]
    assert [line["step"] for line in seen if "eval/bias" in line] == [*range(4, 61, 4)]
    assert all(line["tokens_per_second"] > 0 for line in seen)
    assert seen[0]["learning_rate"] == pytest.approx(1e-2 / 2)
    assert seen[6]["tokens"] == (window(6).comparison >= 0).sum()


def test_the_trained_model_is_that_of_the_best_step_which_is_kept_beside_the_newest(uninterrupted):
    run_dir, model = uninterrupted
    evaluated = {line["step"]: line["eval/bias"] for line in lines(run_dir) if "eval/bias" in line}
    best = max(evaluated, key=evaluated.get)
    assert 30 < best < 54, "neither the first, nor the last, nor one of the newest"
    assert steps(run_dir) == {best, 54, 57, 60}
    assert model.reward_head.bias[...] == evaluated[best]
    np.testing.assert_array_equal(model.norm[...], Toy().norm[...])


def test_without_best_the_trained_model_is_that_of_the_last_step(tmp_path):
    evaluated = []
    bias = lambda model: evaluated.append(model.reward_head.bias[...].item()) or {}  # noqa: E731
    model = quick(tmp_path, evaluate=bias, eval_every=2)
    assert model.reward_head.bias[...] == evaluated[1] != evaluated[0]


def test_a_finished_run_returns_at_once(uninterrupted, caplog):
    run_dir, model = uninterrupted
    before = (run_dir / "metrics.jsonl").read_bytes()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        again = train(run_dir)
    assert "step" not in compiled(caplog)
    np.testing.assert_array_equal(again.up[...], model.up[...])
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def compiled(caplog):
    """Names of the functions that XLA compiled."""
    messages = [r.getMessage() for r in caplog.records]
    started = [m.split() for m in messages if m.startswith("Finished XLA compilation of")]
    return [words[4].removeprefix("jit(").removesuffix(")") for words in started]


def test_a_damaged_newest_step_costs_only_the_steps_since_the_one_before(
    uninterrupted, tmp_path, caplog
):
    run_dir = shutil.copytree(uninterrupted[0], tmp_path / "toy")
    newest = run_dir / "checkpoints" / str(STEPS)
    files = [path for path in newest.rglob("*") if path.is_file()]
    spoiled = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(spoiled.read_bytes())
    content[len(content) // 2] ^= 1
    spoiled.write_bytes(content)
    with jax.log_compiles(), caplog.at_level(logging.INFO):
        model = train(run_dir)
    assert f"checkpoint {STEPS} is damaged" in caplog.text
    assert f"resumed at step {STEPS - 3} of {STEPS}" in caplog.text
    assert compiled(caplog).count("step") == 1
    assert_same_run(run_dir, model, uninterrupted)


@pytest.mark.parametrize("step", [STEPS - 3, STEPS])
def test_a_resumed_run_frees_what_it_was_given_too(uninterrupted, tmp_path, step):
    run_dir = shutil.copytree(uninterrupted[0], tmp_path / "toy")
    if step < STEPS:
        (run_dir / "checkpoints" / str(STEPS) / MANIFEST).unlink()
    given = Toy()
    trained = train(run_dir, model=given)
    params = split(given)[1]
    assert params["up"].is_deleted()
    assert params["reward_head"]["weight"].is_deleted()
    assert not params["norm"].is_deleted(), "it is frozen, and serves the trained model"
    assert_same_run(run_dir, trained, uninterrupted)


def test_without_an_intact_step_a_run_does_not_start_over(uninterrupted, tmp_path):
    run_dir = shutil.copytree(uninterrupted[0], tmp_path / "toy")
    before = (run_dir / "metrics.jsonl").read_bytes()
    for step in (run_dir / "checkpoints").iterdir():
        (step / "state" / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint .* is intact"):
        train(run_dir)
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_a_damaged_best_step_is_an_error_and_not_the_second_best(uninterrupted, tmp_path):
    run_dir = shutil.copytree(uninterrupted[0], tmp_path / "toy")
    best = min(steps(run_dir))
    (run_dir / "checkpoints" / str(best) / "state" / "_METADATA").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=f"checkpoint {best} .* is damaged"):
            train(run_dir)
    assert steps(run_dir) == steps(uninterrupted[0])


def start(run_dir, trouble="", **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.toy_run", str(run_dir), trouble],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process, run_dir, step):
    path = run_dir / "metrics.jsonl"
    while not path.exists() or f'"step": {step},' not in path.read_text():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def ended(process, within):
    """The exit status of a process that ends by itself within so many seconds, and its words."""
    try:
        _, said = process.communicate(timeout=within)
    finally:
        process.kill()
    assert "Traceback" not in said
    assert "Fatal" not in said
    return process.returncode, said


def reach_compilation(process):
    """Waits for XLA to begin with the step."""
    for line in process.stderr:
        if "jaxpr to MLIR module conversion jit(step)" in line:
            time.sleep(1.0)
            return
    raise AssertionError("the step was not compiled")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on_from_there(uninterrupted, tmp_path, number, status):
    process = start(tmp_path)
    wait_for_step(process, tmp_path, 13)
    process.send_signal(number)
    returned, said = ended(process, within=60)
    assert returned == status
    reached = lines(tmp_path)[-1]["step"]
    assert 13 <= reached < STEPS
    assert saved_state(tmp_path)[1].step == reached
    assert "stopping: the step under way is finished and saved first" in said
    stopped = f"stopped by {signal.Signals(number).name} after step {reached} of {STEPS}, which is"
    assert f"{stopped} saved: the same command with the same --run-dir goes on from there" in said

    # Ctrl-C in the compilation of the resumed run: at once, and what is saved stays.
    process = start(tmp_path, "slow compilation", JAX_LOG_COMPILES="1")
    reach_compilation(process)
    process.send_signal(number)
    returned, said = ended(process, within=5)
    assert returned == status
    assert "stopping: before the first step" in said
    assert "goes on from there" in said
    assert saved_state(tmp_path)[1].step == reached
    assert_same_run(tmp_path, train(tmp_path), uninterrupted)


def test_ctrl_c_again_leaves_a_save_that_hangs_as_never_made(uninterrupted, tmp_path):
    process = start(tmp_path, "slow disk")
    wait_for_step(process, tmp_path, 12)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # the same one, passed on by a launcher too
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    returned, said = ended(process, within=5)
    assert returned == 130
    assert "left at once. What is saved stays" in said
    assert saved_state(tmp_path)[1].step == 9
    assert_same_run(tmp_path, train(tmp_path), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_twice_a_resumed_run_equals_an_uninterrupted_one(uninterrupted, tmp_path, seed):
    moments = random.Random(seed)
    for earliest, latest in ((1, 25), (30, 55)):
        process = start(tmp_path)
        wait_for_step(process, tmp_path, moments.randint(earliest, latest))
        time.sleep(moments.uniform(0.0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert_same_run(tmp_path, train(tmp_path), uninterrupted)


def quick(run_dir, loss=loss_fn, **options):
    options = {"log_every": 2, "checkpoint_every": 2} | options
    return fit(
        Toy(),
        loss,
        ToyLoader(SINGLE, micro_batches=1, rows=2),
        make_optimizer(OptimizerConfig()),
        learning_rates(OptimizerConfig(), options.pop("steps", 4)),
        run_dir=run_dir,
        mesh=SINGLE,
        rules=ShardingRules(),
        **options,
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(tmp_path):
    def bad(model, batch, rng):
        # The micro-batch of step 3 is recognised by its contents.
        third = batch.x[0, 0, 0] == window(2, 1, 2).x[0, 0, 0, 0]
        values = jnp.where(third, jnp.nan, 1.0) * model(batch.x) ** 2
        return {"loss": Term(1.0, values, jnp.ones_like(values))}

    with pytest.raises(FloatingPointError, match="step 4: loss nan"):
        quick(tmp_path, bad)
    assert [line["step"] for line in lines(tmp_path)] == [2]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2"}


def handlers():
    return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)


def test_signal_handling_is_put_back_and_left_alone_where_it_is_not_ours(tmp_path, monkeypatch):
    before, seen, options = handlers(), [], {"eval_every": 4}
    options["evaluate"] = lambda model: seen.append(handlers()) or {}
    quick(tmp_path / "main", **options)
    worker = threading.Thread(target=quick, args=(tmp_path / "thread",), kwargs=options)
    worker.start()
    worker.join()
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    quick(tmp_path / "session", **options)
    assert not set(seen[0]) & set(before)
    assert seen[1] == seen[2] == before == handlers()


def test_the_last_step_is_always_logged_evaluated_and_saved(tmp_path):
    quick(
        tmp_path,
        steps=5,
        log_every=2,
        checkpoint_every=4,
        eval_every=3,
        evaluate=lambda m: {"e": 1},
    )
    assert [(line["step"], "e" in line) for line in lines(tmp_path)] == [
        (2, False), (3, True), (4, False), (5, True),
    ]  # fmt: skip
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4", "5"}


def test_a_run_saved_on_eight_devices_comes_back_on_one(uninterrupted):
    state, progress = saved_state(uninterrupted[0], SINGLE)
    assert progress.step == STEPS
    jax.tree.map(np.testing.assert_array_equal, state, saved_state(uninterrupted[0])[0])


def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path):
    quick(tmp_path, keep=1)
    assert steps(tmp_path) == {4}


def test_the_last_state_has_left_the_devices_when_the_best_one_arrives(tmp_path, monkeypatch):
    def weights():
        """Arrays on the devices with the shape of a weight, or of its moments."""
        gc.collect()
        return sum(array.shape == (FEATURES, HIDDEN) for array in jax.live_arrays())

    def restore_and_count(checkpoints, step, abstract):
        found.append((step, weights()))
        return restore(checkpoints, step, abstract)

    restore, found, values = Checkpoints.restore, [], iter([1.0, 0.5])
    monkeypatch.setattr(Checkpoints, "restore", restore_and_count)
    before = weights()
    evaluate = lambda model: {"e": next(values)}  # noqa: E731
    quick(tmp_path, evaluate=evaluate, eval_every=2, best=Best("e", "max"))
    assert found == [(2, before)]


def test_a_best_step_that_is_damaged_while_its_run_goes_on_is_an_error(tmp_path):
    values, best = iter([1.0, 0.5]), tmp_path / "checkpoints" / "2"

    def evaluate(model):
        value = next(values)
        if value == 0.5:
            while not (best / "manifest.json").exists():
                time.sleep(0.01)
            (best / "state" / "_METADATA").unlink()
        return {"e": value}

    with pytest.raises(CheckpointError, match="checkpoint 2 .* is damaged"):
        quick(tmp_path, evaluate=evaluate, eval_every=2, best=Best("e", "max"))


def test_a_metric_that_no_evaluation_returns_stops_the_run_at_the_first(tmp_path):
    evaluate = lambda model: {"eval/val/accuracy": 0.5}  # noqa: E731
    with pytest.raises(MetricError, match="step 1 returns no 'accuracy'.*'eval/val/accuracy'"):
        quick(tmp_path, evaluate=evaluate, eval_every=1, best=Best("accuracy", "max"))


def test_best_without_evaluations_is_refused_before_anything_is_written(tmp_path):
    for options in ({"eval_every": 2}, {"evaluate": lambda model: {"e": 1.0}}):
        with pytest.raises(ValueError, match="give evaluate and eval_every"):
            quick(tmp_path / "run", best=Best("e", "max"), **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", [None, Best("eval/bias", "min")])
def test_a_run_does_not_go_on_under_another_metric(uninterrupted, monkeypatch, other):
    monkeypatch.setattr("tests.train.toy_run.BEST", other)
    with pytest.raises(RunDirError, match="was begun with .*'eval/bias', mode='max'.* go on with"):
        train(uninterrupted[0])
