"""Eight fake CPU devices for every test, so that sharded and single-device code meet in one run.

No test is timed: what compiles, or runs on a busy machine, may take as long as it takes.

A run has a directory of compiled programs that its worker processes and the commands that tests
start share, so that what two of them compile is compiled once.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import jax
import pytest

CACHE = "JAX_COMPILATION_CACHE_DIR"
if "PYTEST_XDIST_WORKER" not in os.environ:
    # In the environment, where workers and the commands that tests start find it. Not a
    # directory of the user's: what another version or flag compiled is not what is tested.
    os.environ[CACHE] = tempfile.mkdtemp(prefix="jaxrm-compiled-")
    atexit.register(shutil.rmtree, os.environ[CACHE], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()

jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_num_cpu_devices", 8)
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_xdist_auto_num_workers(config) -> int:
    """A process per core, up to eight, and none for a single file, which is not divided."""
    paths = {argument.partition("::")[0] for argument in config.args}
    if len(paths) == 1 and Path(*paths).is_file():
        return 0
    return min(8, os.cpu_count() or 1)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_file():
    """Each file's compiled programs go with it.

    A program takes a dozen regions of a process's memory, of which Linux gives it 65,530: with
    those of two thousand tests a worker would crash in the midst of a compilation.
    """
    yield
    jax.clear_caches()
    gc.collect()
