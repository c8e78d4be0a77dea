"""All methods of the literature that are built here, by name."""

from __future__ import annotations

from jaxrm.methods.attributes import ATTRIBUTES
from jaxrm.methods.augmentation import RRM
from jaxrm.methods.controls import CONTROLS
from jaxrm.methods.convex_da import CONVEX_DA
from jaxrm.methods.ensembles import ENSEMBLES
from jaxrm.methods.grm import GRM
from jaxrm.methods.haf import POLICIES
from jaxrm.methods.inform import INFORM
from jaxrm.methods.method import Method
from jaxrm.methods.odin import ODIN
from jaxrm.methods.off_policy import OCRM
from jaxrm.methods.pairs import PAIRS
from jaxrm.methods.process import PROCESS
from jaxrm.methods.rankings import RANKINGS
from jaxrm.methods.self_training import SELF_TRAINED

COMPARED: dict[str, Method] = {
    **PAIRS,
    "odin": ODIN,
    "inform": INFORM,
    **GRM,
    **POLICIES,
    "rrm": RRM,
    **ENSEMBLES,
}
"""Those that learn from pairs alone, the baseline first."""

METHODS: dict[str, Method] = {
    **COMPARED,
    **RANKINGS,
    **CONTROLS,
    "convex_da": CONVEX_DA,
    **ATTRIBUTES,
    "process": PROCESS,
    **SELF_TRAINED,
    "ocrm": OCRM,
}
