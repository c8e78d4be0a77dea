"""Eight fake CPU devices for every test, so that sharded and single-device code meet in one run."""

from __future__ import annotations

import jax

jax.config.update("jax_num_cpu_devices", 8)
