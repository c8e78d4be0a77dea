"""Rewards of several models as one: a directory of model directories, and what each counts.

An ensemble of standardised models (weight 1 / (models * scale) and the offset of each), or DPO's
(arXiv 2305.18290) implicit reward (beta * log-prob of the policy, -beta * that of the reference).
`config.json` says

    {"model_type": "jaxrm_mixture",
     "members": [{"directory": "policy", "reads": "logps", "weight": 0.1, "offset": 0.0}, ...],
     "scale": {"offset": 1.5, "scale": 2.0, "reference": "the split id", "responses": 600}}

and the reward is the sum over members of weight * (what is read of the member - offset). The scale,
which need not be there, says where such rewards lie. Each member is a model directory in Hugging
Face's layout, without a tokenizer: the one of all lies at the top.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.errors import ModelFileError, require
from jaxrm.huggingface import gatefile, hub, layout, vocabulary
from jaxrm.huggingface.fields import Fields
from jaxrm.models.transformer import RewardModel
from jaxrm.models.uncertainty import RewardScale

Reads = Literal["rewards", "logps"]


@dataclasses.dataclass(frozen=True)
class Member:
    """What one model counts in a reward.

    Attributes:
      directory: its name within the mixture's.
      reads: the reward head's only output, or the log-probability of the response.
      weight, offset: weight * (read - offset) is added to the reward.

    Raises OptionError for a value out of range.
    """

    directory: str
    reads: Reads = "rewards"
    weight: float = 1.0
    offset: float = 0.0

    def __post_init__(self):
        plain = self.directory not in ("", ".", "..") and "/" not in self.directory
        require(plain, "a member's directory", "a name without /", self.directory)
        readings = get_args(Reads)
        require(self.reads in readings, "what a member reads", " or ".join(readings), self.reads)
        for name in ("weight", "offset"):
            value = getattr(self, name)
            require(math.isfinite(value), f"a member's {name}", "a finite number", value)


def save(
    directory: str | Path,
    members: Sequence[tuple[RewardModel | Callable[[], RewardModel], Member]],
    tokenizer: ChatTokenizer | None = None,
    *,
    dtype: str | None = None,
    shard_bytes: int = 5_000_000_000,
    scale: RewardScale | None = None,
    card: str | None = None,
) -> None:
    """Writes a mixture. The directory appears whole or not at all, in the place of a model
    directory or a mixture that may be there. In a run of several processes each must call this; the
    first one writes.

    Args:
      members: models, or what makes or loads them: one at a time, each written before the next.
        Members that read log-probs are written without their reward heads.
      tokenizer: of all members; unlike that of a single model it is written as it is, because a
        new padding token would change log-probs.
      scale: of the mixture's rewards, recorded in `config.json`.
      dtype, shard_bytes, card: as for `hub.save`.

    Raises:
      ModelFileError: as `hub.save`, or a member has not what it is to be read for.
      TokenizerError: the tokenizer has tokens that a member has no embedding row for.
      ValueError: there are no members, or two have one directory.
    """
    directory, read_as = Path(directory), [member for _, member in members]
    if not members or len({member.directory for member in read_as}) < len(members):
        raise ValueError(f"members need directories of their own: {read_as}")
    hub.check_place(directory)
    with layout.new_directory(directory) as draft:
        for model, member in members:
            part = _part(model if isinstance(model, RewardModel) else model(), member)
            if tokenizer is not None:
                vocabulary.check(part.config, tokenizer, member.directory)
            place = None if draft is None else draft / member.directory
            if place is not None:
                place.mkdir()
            hub.write(part, place, dtype=dtype, shard_bytes=shard_bytes)
            del part
        if draft is not None:
            said = {
                "model_type": layout.MIXTURE,
                "members": [dataclasses.asdict(member) for member in read_as],
            }
            if scale is not None:
                said["scale"] = dataclasses.asdict(scale)
            (draft / "config.json").write_text(json.dumps(said, indent=2) + "\n")
            hub.write_beside(draft, tokenizer, card)


def read(directory: str | Path) -> tuple[Member, ...] | None:
    """The members of the mixture in a directory; None where the directory is no mixture.

    Raises:
      ModelFileError: `config.json` names no members, something of one is missing, unknown or out of
        range, or its directory does not hold one model whose head gives the reward by itself.
    """
    if (fields := _fields(directory)) is None:
        return None
    path = fields.where
    said = fields.value("members")
    if not isinstance(said, list) or not said or not all(isinstance(one, dict) for one in said):
        raise fields.error("members", "must be a list of objects, one or more")
    members = tuple(
        Fields(one, f"{path}: members[{i}]").build(Member) for i, one in enumerate(said)
    )
    if len({member.directory for member in members}) < len(members):
        raise fields.error("members", "must have directories of their own")
    for member in members:
        config = layout.read_json(Path(directory, member.directory, "config.json"))
        if config.get("model_type") == layout.MIXTURE or gatefile.FIELD in config:
            raise ModelFileError(f"{path}: {member.directory} must be one model without a gate")
    return members


def read_scale(directory: str | Path) -> RewardScale | None:
    """The scale that `save` recorded of a mixture, if it did; None where there is no mixture.

    Raises:
      ModelFileError: something of it is missing, unknown or out of range.
    """
    fields = _fields(directory)
    said = None if fields is None else fields.inner("scale")
    return None if said is None else said.build(RewardScale)


def _fields(directory: str | Path) -> Fields | None:
    """What `config.json` says of a mixture; None where there is none."""
    if not layout.is_mixture(Path(directory)):
        return None
    path = Path(directory, "config.json")
    fields = Fields(layout.read_json(path), str(path))
    fields.only({"model_type", "members", "scale"})
    return fields


def _part(model: RewardModel, member: Member) -> RewardModel:
    """What is written of a model; raises ModelFileError where it cannot be read as it should be."""
    if member.reads == "logps":
        if not model.config.language_head:
            raise ModelFileError(f"{member.directory}: a model without a language-model head")
        return model.language_model()
    if model.head_config is None or model.head_config.outputs != 1:
        raise ModelFileError(f"{member.directory}: a model with {model.head_config} for a reward")
    return model
