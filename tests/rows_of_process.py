"""Prints which rows this process would load on some meshes: one of several processes, started by
tests/test_parallel.py."""

from __future__ import annotations

import json

import jax
import numpy as np

from jaxrm import parallel
from jaxrm.parallel import MeshShape

MESHES = ((2, 2, 1), (1, 4, 1), (2, 1, 2), (1, 1, 4))
"""Over two processes of two devices: in the last one, the tensor axis runs over both."""


def main() -> None:
    """Rows of 8 on each mesh, and whether every device then holds the rows that are its own."""
    jax.config.update("jax_num_cpu_devices", 2)
    parallel.start()
    found = []
    for shape in MESHES:
        mesh = parallel.make_mesh(MeshShape(*shape))
        mine = parallel.local_rows(8, mesh)
        placed = parallel.shard_rows(np.array(mine), mesh)
        assert placed.shape == (8,)
        for part in placed.addressable_shards:
            np.testing.assert_array_equal(part.data, np.arange(8)[part.index])
        found.append(mine)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
