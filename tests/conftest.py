"""Eight fake CPU devices for every test, so that sharded and single-device code meet in one run.

No test is timed: what compiles, or runs on a busy machine, may take as long as it takes.
"""

from __future__ import annotations

import hypothesis
import jax

jax.config.update("jax_num_cpu_devices", 8)
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
