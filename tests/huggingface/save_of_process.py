"""Saves a mixture, a gated model and an adapter from models that lie over several processes, of
which this is one; started by tests/huggingface/test_mixture.py.

    python -m tests.huggingface.save_of_process DIR OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np

from jaxrm import parallel
from jaxrm.huggingface import adapter, hub, mixture
from jaxrm.huggingface.mixture import Member
from jaxrm.models.gate import ConstantGate, Gated
from jaxrm.models.lora import LoraConfig
from jaxrm.parallel import MeshShape


def main(source: Path, out: Path) -> None:
    """Every process sees the same models, of one output and of three."""
    parallel.start()
    mesh = parallel.make_mesh(MeshShape(fsdp=jax.device_count()))
    one, three = (hub.load(source / name, None, mesh=mesh) for name in ("one", "three"))
    mixture.save(out / "mixture", [(one, Member("a")), (lambda: one, Member("b", weight=2.0))])
    params = {"log_scale": np.zeros(()), "logits": np.arange(3.0)}
    hub.save(three, out / "gated", gate=Gated(ConstantGate(), params))
    trained = hub.load(source / "one", None, LoraConfig(rank=2), mesh=mesh)
    adapter.save(trained, out / "adapter", base="one")
    # Whoever gets here finds what the first process wrote.
    assert mixture.read(out / "mixture")[1].weight == 2.0


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
