"""What scores responses in a model directory of any kind: one model, one with a gate, or several.

Each part is a model, a reading of it, and what that counts in the reward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from tqdm import tqdm

from jaxrm.data.packing import Ask, TokenTree
from jaxrm.errors import ModelFileError
from jaxrm.huggingface import gatefile, hub, mixture
from jaxrm.models import heads, transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.read.reading import Reading, pack_batches, read_batches


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A model that adds weight * (reading - offset) to the reward of each response.

    Attributes:
      reading, ask: as `jaxrm.read.reading.read` takes them.
    """

    model: RewardModel
    reading: Reading = heads.rewards
    ask: Ask = "none"
    weight: float = 1.0
    offset: float = 0.0


READS: Mapping[str, tuple[Reading, Ask]] = {
    "rewards": (heads.rewards, "none"),
    "logps": (heads.response_logps, "all"),
}
"""What a mixture says that it reads of a member -> the reading, and what it asks of a packing."""

Scored = RewardModel | Sequence[Part]
"""What scores: a model with a reward head, or the parts of a reward."""


def load(
    directory: str | Path,
    *,
    adapter: str | Path | None = None,
    compute: Compute | None = None,
    mesh: Mesh | None = None,
) -> tuple[Part, ...]:
    """The parts of a reward: one for a model directory, one for each member of a mixture.

    Args:
      adapter, compute, mesh: as for `hub.load`.

    Raises:
      ModelFileError: as `hub.load`, `gatefile.read` and `mixture.read`, or there is an adapter
        beside a mixture.
    """
    options: dict[str, Any] = {"compute": compute, "mesh": mesh}
    members = mixture.read(directory)
    if members is None:
        model = hub.load(directory, None, adapter=adapter, **options)
        return (Part(model, gatefile.read(directory, model) or heads.rewards),)
    if adapter is not None:
        raise ModelFileError(f"{directory} is a mixture of models, which takes no adapter")
    parts = []
    for member in members:
        counts = {"weight": member.weight, "offset": member.offset}
        place = Path(directory, member.directory)
        if member.reads == "logps":
            model = hub.load_language_model(place, **options)
        else:
            model = hub.load(place, None, **options)
        parts.append(Part(model, *READS[member.reads], **counts))
    return tuple(parts)


def read_config(directory: str | Path) -> ModelConfig:
    """What the model computes; of a mixture, the member with the fewest embedding rows.

    Raises ModelFileError as `load`.
    """
    members = mixture.read(directory)
    places = [directory] if members is None else [Path(directory, m.directory) for m in members]
    return min(map(hub.read_config, places), key=lambda config: config.vocab_size)


def parts_of(model: Scored) -> tuple[Part, ...]:
    """A model with a reward head as the only part; parts as they are."""
    return (Part(model),) if isinstance(model, RewardModel) else tuple(model)


def rewards(
    model: Scored,
    trees: Sequence[TokenTree],
    *,
    mesh: Mesh,
    advance: Callable[[int], Any] = int,
    **options: Any,
) -> list[np.ndarray]:
    """The reward of every response, part after part: float32 [K] for each tree.

    Args:
      mesh: the mesh that all parts lie on.
      advance: is told of how many more responses a part has been read.
      options: rows and row_length, as for `jaxrm.read.reading.read`.
    """
    parts, by_part = parts_of(model), []
    with jax.set_mesh(mesh):
        for part in parts:
            batches = pack_batches(trees, part.model.config, mesh=mesh, ask=part.ask, **options)
            structure, params = transformer.split(part.model)
            readings = {"rewards": part.reading}
            values = read_batches(structure, params, batches, readings, trees, advance)
            by_part.append(values["rewards"])
    return [total(parts, values) for values in zip(*by_part, strict=True)]


def total(
    parts: Sequence[Part], values: Sequence[Float[np.ndarray, "*n"]]
) -> Float[np.ndarray, "*n"]:
    """Float32: the reward, from what was read of each part."""
    # Log-probs of two models differ by far less than they are large.
    terms = (
        part.weight * (np.asarray(value, np.float64) - part.offset)
        for part, value in zip(parts, values, strict=True)
    )
    return np.asarray(sum(terms), np.float32)


def score(
    model: Scored, trees: Sequence[TokenTree], *, progress: str = "", **options: Any
) -> list[np.ndarray]:
    """The reward of every response: float32 [K] for each tree.

    Args:
      model: a model with a reward head, or the parts of a reward from `load`;
        parameters may be sharded over the mesh.
      trees: tokenised comparisons, any K, from `chat.tokenize`.
      progress: title of a progress bar; none if empty.
      options: mesh, rows and row_length, as for `jaxrm.read.reading.read`.
    """
    total = len(parts_of(model)) * sum(len(tree.branches) for tree in trees)
    with tqdm(total=total, desc=progress, unit="response", disable=not progress) as bar:
        return rewards(model, trees, advance=bar.update, **options)
