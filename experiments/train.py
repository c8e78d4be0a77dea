"""Any method of the library, on any base and data, on any mesh, from one command.

    python -m experiments.train --method list
    python -m experiments.train --method bsr                      # the toy world, on a laptop
    python -m experiments.train --method inform --base DIR --data SOURCE --eval SOURCE \\
        --run-dir RUN

Trains the method's reward model (for an ensemble, all of them), scores every split of --eval,
reports, and leaves RUN/NAME/export: a model directory that `jaxrm.score`, `jaxrm.evaluate` and
`jaxrm.convert` take, and Hugging Face where the reward is one linear head. The same command with
the same run directory goes on where it was stopped. Where no --preset is named, the base's size
chooses one; without --eval a tenth of the prompts of --data is held out.
"""

from __future__ import annotations

from jaxrm.methods.library import METHODS
from jaxrm.study import command

if __name__ == "__main__":
    command.run(METHODS, __doc__)
