"""A gate beside a classifier: what makes one reward of the outputs of its head.

The directory is that of any classifier of A outputs, which others read as such. What they do not
read is `gate.safetensors`, the gate's parameters in float32, and "jaxrm_gate" in `config.json`,
what they are the parameters of: {"kind": "prompt" or "constant"} and the gate's own fields.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrm.errors import ModelFileError
from jaxrm.huggingface import tensorfile
from jaxrm.huggingface.fields import Fields
from jaxrm.models.gate import ConstantGate, Gate, Gated, PromptGate
from jaxrm.models.transformer import RewardModel

FILE, FIELD = "gate.safetensors", "jaxrm_gate"

KINDS: dict[str, type[Gate]] = {"prompt": PromptGate, "constant": ConstantGate}


def write(directory: Path, model: RewardModel, gated: Gated) -> dict[str, Any]:
    """Writes `gate.safetensors` and returns what `config.json` is to say of it.

    Raises ValueError where the gate does not weigh as many attributes as the model's head has.
    """
    params = {name: np.asarray(value, np.float32) for name, value in gated.params.items()}
    shapes = {name: value.shape for name, value in params.items()}
    if shapes != _shapes(gated.gate, model):
        raise ValueError(f"a gate of {shapes} does not fit a head of {model.head_config}")
    layout = {name: (value.dtype, value.shape) for name, value in params.items()}
    tensorfile.write(directory / FILE, layout, params.values())
    [kind] = (name for name, of_kind in KINDS.items() if type(gated.gate) is of_kind)
    return {FIELD: {"kind": kind} | dataclasses.asdict(gated.gate)}


def read(directory: str | Path, model: RewardModel) -> Gated | None:
    """The gate beside the model that was loaded from `directory`; None where there is none.

    Raises:
      ModelFileError: one of the two parts is missing or malformed, or the gate's parameters are not
        those of its kind for the outputs of the model's head.
    """
    path, fields = Path(directory, FILE), Fields(model.config.extra, f"{directory}/config.json")
    said = fields.inner(FIELD)
    if said is None:
        if path.exists():
            raise fields.error(FIELD, f"must say what {FILE} holds")
        return None
    kind = said.value("kind")
    if kind not in KINDS:
        raise said.error("kind", f"is not one of {', '.join(KINDS)}")
    rest = {name: value for name, value in said.raw.items() if name != "kind"}
    gate = Fields(rest, said.where).build(KINDS[kind])
    if model.head_config is None:
        raise fields.error(FIELD, "weighs the outputs of a reward head, and there is none")
    tensors = tensorfile.read(path)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    expected = _shapes(gate, model)
    for name in sorted(shapes.keys() | expected.keys()):
        if shapes.get(name) != expected.get(name):
            problem = f"is {shapes.get(name, 'missing')} for {expected.get(name, 'nothing')}"
            raise ModelFileError(f"{path}: tensor {name} {problem}, by {said.where}")
        if tensors[name].dtype != np.float32:
            raise ModelFileError(f"{path}: tensor {name} is {tensors[name].dtype}, not float32")
    return Gated(gate, {name: np.array(tensor) for name, tensor in tensors.items()})


def _shapes(gate: Gate, model: RewardModel) -> dict[str, tuple[int, ...]]:
    """Of the gate's parameters on this model."""
    sizes = {"states": model.config.hidden_size, "attributes": model.head_config.outputs}
    declared = jax.eval_shape(functools.partial(gate.init, **sizes), jax.random.key(0))
    return {name: value.shape for name, value in declared.items()}
