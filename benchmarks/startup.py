"""What loading a model costs: time and memory, with jaxrm and with transformers.

    python -m benchmarks.startup --shapes gemma-2b --repeats 3

Writes a random bfloat16 checkpoint of the shapes of a public model, several safetensors files with
an index (5 GB for gemma-2b, in the directory for temporary files or at --keep), and loads it as a
reward model with a fresh head. Every load has a process of its own, and the loaders take turns;
before each the files are read, so that the page cache holds them. Prints a table in Markdown,
medians of --repeats; without torch, of jaxrm alone. Linux only.

Memory is what the process holds at its peak beyond what it held before the load, when all was
imported and JAX's backend had started. Of that, `private` is the process's own, and `mapped` are
pages of files (the model's, and some MiB of libraries), which the page cache holds anyway and can
take back; the two may peak at different times. On a CPU the model itself is in it: host and device
memory are one.

Disks are not measured: it takes an administrator to drop the page cache. A cold load takes a disk's
time besides.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import itertools
import json
import logging
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import turns
from benchmarks.shapes import SHAPES
from jaxrm import cli
from jaxrm.errors import require
from jaxrm.files import replacing
from jaxrm.huggingface import families, hub, weights
from jaxrm.huggingface.layout import read_json, stored_layout
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.report.tables import markdown

GIB = 2**30
PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.005
"""Between two looks at a loading process, each of which takes about 0.05 ms."""

Way = Callable[[Path, str], Iterator[int]]
"""(model directory, dtype) -> a load that stops three times: when all is imported, when the call
has returned, and when every parameter is in memory. Yields the bytes of the parameters by then."""

Case = tuple[str, str]
"""A loader's name and a dtype."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to load."""

    shapes: Literal["gemma-2b", "gemma-2-2b", "tiny"] = "gemma-2b"
    """Of benchmarks.shapes."""
    repeats: int = 3
    keep: Path | None = None
    """A directory for the checkpoint, which stays; one of the same shapes there is used again."""


@dataclasses.dataclass(frozen=True)
class Load:
    """One load. Times are seconds since its beginning, sizes bytes.

    Attributes:
      returned: when the call returned.
      ready: when every parameter was in memory.
      cpu: what the processors had spent by then, all together, which neighbours disturb less.
      model: what the parameters take in the wanted dtype.
      peak, private, mapped: the most memory that the process held, all and by kind, beyond what it
        held before.
    """

    returned: float
    ready: float
    cpu: float
    model: int
    peak: int
    private: int
    mapped: int


def main(cfg: Config) -> None:
    """Writes, measures, prints, and deletes."""
    require(cfg.repeats >= 1, "repeats", "at least 1", cfg.repeats)
    require(sys.platform == "linux", "the system", "Linux, whose /proc is read", sys.platform)
    ways: dict[str, Way] = {"jaxrm": with_jaxrm}
    if importlib.util.find_spec("torch") is None:
        print("transformers on torch is left out: torch is not installed.\n")
    else:
        ways["transformers on torch"] = with_transformers
    with tempfile.TemporaryDirectory() as scratch:
        directory = cfg.keep or Path(scratch) / "model"
        write_checkpoint(SHAPES[cfg.shapes], directory)
        loads: dict[Case, list[Load]] = collections.defaultdict(list)
        for _ in range(cfg.repeats):
            for (name, way), dtype in itertools.product(ways.items(), ("bfloat16", "float32")):
                held = read_through(directory)
                loads[name, dtype].append(measure(way, directory, dtype))
    packages = ("jax", "torch", "transformers") if len(ways) > 1 else ("jax",)
    held_versions = turns.versions()
    versions = ", ".join(f"{name} {held_versions[name]}" for name in packages)
    print(f"{cfg.shapes}, {held / GIB:.2f} GiB of files, {os.cpu_count()} cores, {versions}\n")
    print(summary(loads, held))


def write_checkpoint(
    shapes: Mapping[str, Any], directory: Path, shard_bytes: int = 1_500_000_000
) -> None:
    """A random bfloat16 checkpoint, unless it is there already; one tensor at a time in memory.

    Args:
      shapes: the model's config.json, as `SHAPES` gives it.
      shard_bytes: what one file may hold.

    Raises:
      OptionError: `directory` exists and holds something else than a checkpoint of these shapes.
    """
    config, config_file = families.read(shapes), directory / "config.json"
    if directory.exists():
        same = config_file.is_file() and families.read(read_json(config_file)) == config
        require(same, "keep", "new, or a checkpoint of the same shapes", str(directory))
        return
    bfloat16 = jnp.dtype(jnp.bfloat16)
    rng = np.random.default_rng(0)

    def random(shape: tuple[int, ...]) -> np.ndarray:
        bits = np.frombuffer(rng.bytes(math.prod(shape) * bfloat16.itemsize), np.uint16)
        # An exponent without its highest bit is not that of an infinity or a NaN.
        return (bits & 0xBFFF).view(bfloat16).reshape(shape)

    layout = stored_layout(transformer.declare(config, None), None)
    shards = weights.plan(layout, lambda path: "bfloat16", shard_bytes)
    with replacing(directory) as draft:
        draft.mkdir()
        (draft / "config.json").write_text(json.dumps(families.write(config, "bfloat16")))
        (draft / weights.INDEX).write_text(json.dumps(weights.index(shards)))
        for shard in shards:
            values = (random(tensor.shape) for tensor in shard.tensors.values())
            weights.write_shard(draft, shard, values)


def read_through(directory: Path) -> int:
    """Reads every safetensors file, so that the page cache holds it; the bytes of all."""
    held = 0
    for path in directory.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while block := file.read(2**24):
                held += len(block)
    return held


def with_jaxrm(directory: Path, dtype: str) -> Iterator[int]:
    """`hub.load`, a `Way`. In memory means that XLA has written every array."""
    jax.block_until_ready(jnp.zeros(1))
    yield 0
    params = transformer.split(hub.load(directory, HeadConfig(), dtype=dtype))[1]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    yield size
    jax.block_until_ready(params)
    yield size


def with_transformers(directory: Path, dtype: str) -> Iterator[int]:
    """`from_pretrained` on torch and the CPU, a `Way`.

    A tensor whose dtype is the file's stays a view of the mapped file, which nobody has read when
    the call returns. In memory means that a byte of each of its pages was read: that brings the
    pages in, and, unlike a copy, takes no memory that the first use of the model would not.
    """
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    auto = transformers.AutoModelForSequenceClassification
    with torch.device("meta"):  # imports the family's code; a meta tensor takes no memory
        auto.from_config(transformers.AutoConfig.from_pretrained(directory))
    yield 0
    model = auto.from_pretrained(directory, dtype=getattr(torch, dtype), num_labels=1)
    size = sum(parameter.nbytes for parameter in model.parameters())
    yield size
    for parameter in model.parameters():
        parameter.detach().reshape(-1)[:: PAGE // parameter.itemsize].sum()
    yield size


def measure(way: Way, directory: Path, dtype: str) -> Load:
    """One load in a fresh process, watched from this one, so that no lock of Python's interferes.

    Raises:
      RuntimeError: the process ended before the load did.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, way, directory, dtype), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak starts again from here
        base = peaks = _held(process.pid)
        cpu_before = _cpu_seconds(process.pid)
        since, seconds = time.perf_counter(), []
        for _ in range(2):
            ours.send(None)
            while not ours.poll(SAMPLE_SECONDS):
                peaks = peaks | _held(process.pid)
            model = ours.recv()
            seconds.append(time.perf_counter() - since)
            peaks = peaks | _held(process.pid)
        cpu = _cpu_seconds(process.pid) - cpu_before
    except (EOFError, ConnectionError) as error:
        raise RuntimeError(f"the process that loaded {directory} ended: see above") from error
    finally:
        process.terminate()
        process.join()
    returned, ready = seconds
    return Load(
        returned,
        ready,
        cpu,
        model,
        peak=peaks["VmHWM"] - base["VmRSS"],
        private=peaks["RssAnon"] - base["RssAnon"],
        mapped=peaks["RssFile"] - base["RssFile"],
    )


def _serve(connection: Connection, way: Way, directory: Path, dtype: str) -> None:
    """A loading process's life: it says at each stop what is loaded, and waits to be sent on."""
    logging.disable(logging.WARNING)  # every loader warns that the head is fresh
    for size in way(directory, dtype):
        connection.send(size)
        connection.recv()


def _held(pid: int) -> collections.Counter[str]:
    """Bytes of a process's memory by the names of /proc/PID/status; none when it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith(("Vm", "Rss")))
    sizes = collections.Counter({name.rstrip(":"): 1024 * int(kib) for name, kib, _ in fields})
    # Files on tmpfs count as shared memory.
    sizes["RssFile"] += sizes.pop("RssShmem", 0)
    return sizes


def _cpu_seconds(pid: int) -> float:
    """What a process has spent in its own code and in the kernel."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, kernel = after_name[11:13]
    return (int(own) + int(kernel)) / os.sysconf("SC_CLK_TCK")


def summary(loads: Mapping[Case, Sequence[Load]], held: int) -> str:
    """A table of medians.

    Args:
      loads: by loader and dtype.
      held: bytes of the files.
    """
    head = ("loader", "dtype", "returned, s", "in memory, s (range)", "CPU, s", "GiB/s")
    head += ("model, GiB", "peak, GiB", "private", "mapped", "peak / model")
    rows = []
    for (way, dtype), repeats in loads.items():
        median = {
            field.name: statistics.median(getattr(load, field.name) for load in repeats)
            for field in dataclasses.fields(Load)
        }
        sizes = (median[name] / GIB for name in ("model", "peak", "private", "mapped"))
        rows.append(
            (
                way,
                dtype,
                f"{median['returned']:.2f}",
                turns.shown(turns.spread([load.ready for load in repeats])),
                f"{median['cpu']:.2f}",
                f"{held / GIB / median['ready']:.2f}",
                *(f"{size:.2f}" for size in sizes),
                f"{median['peak'] / median['model']:.2f}",
            )
        )
    return markdown(head, rows, left=2)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
