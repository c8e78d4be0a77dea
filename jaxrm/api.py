"""Rewards for conversations from Python: what `jaxrm.load` returns.

    rm = jaxrm.load("DIR_OR_NAME")
    rm.score(conversations)             # float32 [n]
    rm.compare(prompt, responses)       # float32 [K]; the prompt is run once

Messages are dictionaries, as transformers has them, or `Message`s. Texts of any length are read
whole. What is compiled is shared by calls: rows are of a few shapes, whatever is scored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxrm import parallel
from jaxrm.data import chat, fields, packing
from jaxrm.data.comparison import (
    Comparison,
    Conversation,
    Message,
    answer,
    check_message,
    check_text,
    found,
)
from jaxrm.data.packing import TokenTree
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import DataError, ModelFileError, OptionError, require
from jaxrm.evaluate import scorers
from jaxrm.huggingface import hub, mixture, names, vocabulary
from jaxrm.methods import verdicts
from jaxrm.models import heads, transformer
from jaxrm.models.transformer import Compute
from jaxrm.models.uncertainty import RewardScale
from jaxrm.read import scoring
from jaxrm.read.scoring import Part

Turn = Mapping[str, Any] | Message
"""A message: {"role", "content", ...} as transformers' chat templates take it, or ours."""

DType = Literal["float32", "bfloat16"]

SHORTEST, LONGEST, MOST = 256, 1024, 8
"""Tokens of a row, at least and at most, and how many of the longest a batch holds."""


def load(
    name: str | Path,
    adapter: str | Path | None = None,
    dtype: str = "float32",
    *,
    chat_template: str | Path | None = None,
    judge: verdicts.Ask | None = None,
) -> RewardModel | Judge:
    """What `jaxrm.load` says."""
    require(dtype in get_args(DType), "dtype", " or ".join(get_args(DType)), dtype)
    if judge is not None and adapter is not None:
        raise OptionError(
            "an adapter beside a judge: merge it first, python -m jaxrm.convert DIR OUT --adapter "
            "ADAPTER --to language-model, and load OUT"
        )
    directory = names.local(name).directory
    tokenizer = load_tokenizer(directory, chat_template)
    mesh, compute = parallel.make_mesh(), Compute(dtype=dtype)
    if judge is not None:
        model = hub.load_language_model(directory, compute=compute, mesh=mesh)
        vocabulary.check(model.config, tokenizer, str(directory))
        return Judge(model, tokenizer, mesh, judge)
    beside = None if adapter is None else names.local(adapter).directory
    parts = scoring.load(directory, adapter=beside, compute=compute, mesh=mesh)
    for part in parts:
        vocabulary.check(part.model.config, tokenizer, str(directory))
    scale = None if beside is not None else _scale(directory, parts)
    return RewardModel(str(name), tuple(map(_whole, parts)), tokenizer, mesh, scale)


@dataclasses.dataclass(frozen=True, eq=False)
class RewardModel:
    """What puts a reward on an answer.

    Attributes:
      name: what it was loaded by.
      parts: the models that are read, and what each counts.
      tokenizer: with the chat template.
      mesh: the devices that the models lie on.
      scale: where the rewards lie, if the files say; None beside an adapter, which moves them.
    """

    name: str
    parts: tuple[Part, ...]
    tokenizer: ChatTokenizer
    mesh: Mesh
    scale: RewardScale | None

    def score(
        self, conversations: Sequence[Any], *, normalise: bool = False
    ) -> Float[np.ndarray, "*n"]:
        """The reward of the last message of each conversation, in order.

        Args:
          conversations: lists of messages that end with the assistant's, or one such list.
          normalise: (reward - offset) / scale, by the offset and scale that the files record.

        Returns:
          Float32 [n], [1] for one conversation. Of a head of several outputs without a gate, which
          `jaxrm.score` refuses because they are no one reward, float32 [n, outputs].

        Raises:
          DataError: what is wrong with conversations[i], or with its message [j]; or the chat
            template refuses it.
          TokenizerError: there is no chat template.
          ModelFileError: `normalise`, and the files record no scale.
        """
        told = _conversations(conversations)
        return self._rewards([_last_answer(turns, i) for i, turns in enumerate(told)], normalise)

    def compare(
        self, prompt: str | Sequence[Turn], responses: Sequence[Any], *, normalise: bool = False
    ) -> Float[np.ndarray, "*k"]:
        """The rewards of several responses to one prompt, which is run once.

        Args:
          prompt: messages, or text: a user's turn where the tokenizer has a chat template, and raw
            text before raw text where it has none.
          responses: texts, each the assistant's answer, or lists of the messages after the prompt.
          normalise: as for `score`.

        Returns:
          Float32 [K], or [K, outputs] as `score`.

        Raises: as `score`; errors name the prompt, or responses[k].
        """
        return self._rewards([_comparison(prompt, responses, self.tokenizer)], normalise)

    def _rewards(self, comparisons: Sequence[Comparison], normalise: bool) -> np.ndarray:
        if normalise and self.scale is None:
            raise ModelFileError(
                f"{self.name}: no scale of its rewards is recorded, so they cannot be normalised: "
                "an export of jaxrm's training records one in config.json (a mixture's too), an "
                "adapter and other people's files do not"
            )
        trees = chat.tokenize(comparisons, self.tokenizer)
        if not trees:
            outputs = self.parts[0].model.head_config.outputs
            return np.zeros((0, outputs) if self._has_several else 0, np.float32)
        values = np.concatenate(scoring.rewards(self.parts, trees, **shape(trees, self.mesh)))
        if normalise:
            values = (values - self.scale.offset) / self.scale.scale
        return values.astype(np.float32)

    @property
    def _has_several(self) -> bool:
        return self.parts[0].reading is heads.outputs


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A language model that says which of two answers is better.

    Attributes:
      model: it.
      tokenizer, mesh: as of a `RewardModel`.
      ask: how it is asked.
    """

    model: transformer.RewardModel
    tokenizer: ChatTokenizer
    mesh: Mesh
    ask: verdicts.Ask

    def score(self, conversations: Sequence[Any], *, normalise: bool = False) -> np.ndarray:
        """Raises OptionError: a judge weighs answers against each other, and has no number for one
        alone."""
        raise OptionError(
            "score: a judge says which of several answers to a prompt is better, and has no number "
            "for one alone: use compare(prompt, responses)"
        )

    def compare(
        self, prompt: str | Sequence[Turn], responses: Sequence[Any], *, normalise: bool = False
    ) -> Float[np.ndarray, "*k"]:
        """How likely each response is to beat the others, their mean: float32 [K], from 0 to 1.

        Every pair is shown in both orders, K (K - 1) questions (`scorers.of_judge`).

        Args:
          prompt, responses: as for `RewardModel.compare`.
          normalise: not to be had; what a judge says lies between 0 and 1 as it is.

        Raises:
          OptionError: `normalise`.
          DataError: as `RewardModel.compare`, or there is only one response.
        """
        require(not normalise, "normalise", "False for a judge, whose numbers are shares", True)
        comparison = _comparison(prompt, responses, self.tokenizer)
        if len(comparison.responses) < 2:
            raise DataError("responses: one response has nothing to beat: a judge needs two")
        judge = verdicts.of_language_model(
            self.model, self.tokenizer, self.ask, lambda trees: shape(trees, self.mesh)
        )
        [shares] = scorers.of_judge(judge)([comparison])
        return shares.astype(np.float32)


def shape(trees: Sequence[TokenTree], mesh: Mesh) -> dict[str, Any]:
    """The mesh, and the shape of a batch that holds what is to be read, or a part of it, without
    much to spare: one row of 256, 512 or 1024 tokens, or 2, 4 or 8 rows of 1024.

    Each is compiled once for a model, and one short text does not pay for eight rows. A text that
    is longer than a row gets a longer one (`jaxrm.read.reading.pack_batches`).
    """
    tokens = max(SHORTEST, sum(map(packing.tree_length, trees)))
    whole = 1 << (tokens - 1).bit_length()
    rows, length = min(MOST, -(-whole // LONGEST)), min(LONGEST, whole)
    return {"mesh": mesh, "rows": rows, "row_length": length}


def _whole(part: Part) -> Part:
    """A part that gives all outputs of its head where there are several and no gate."""
    several = part.model.head_config is not None and part.model.head_config.outputs > 1
    if several and part.reading is heads.rewards:
        return dataclasses.replace(part, reading=heads.outputs)
    return part


def _scale(directory: Path, parts: Sequence[Part]) -> RewardScale | None:
    """What the files say of where the rewards lie."""
    if mixture.read(directory) is not None:
        return mixture.read_scale(directory)
    return hub.read_scale(parts[0].model.config)


def _conversations(value: object) -> Sequence[Any]:
    """A list of conversations; of one, given as it is, a list of it."""
    if not isinstance(value, list | tuple):
        raise DataError(f"conversations: expected a list of them, found {found(value)}")
    return [value] if value and isinstance(value[0], Mapping | Message) else value


def _last_answer(value: object, i: int) -> Comparison:
    """A conversation as its last message, of the assistant, and what came before."""
    place = f"conversations[{i}]"
    turns = _turns(value, place)
    roles = [turn.role for turn in turns[-2:]]
    if roles[-1] != "assistant":
        raise DataError(f"{place}: must end with an assistant message, not {roles[-1]}")
    if len(turns) < 2:
        raise DataError(f"{place}: nothing comes before the answer: a reward is of an answer to it")
    if roles == ["assistant", "assistant"]:
        raise DataError(f"{place}: ends with two assistant messages: make them one")
    return Comparison(turns[:-1], (turns[-1:],), where=place)


def _comparison(prompt: Any, responses: object, tokenizer: ChatTokenizer) -> Comparison:
    """A prompt and its responses."""
    if not isinstance(responses, list | tuple) or not responses:
        raise DataError(
            "responses: expected a list of texts, or of lists of messages, found "
            + found(responses)
        )
    if isinstance(prompt, str):
        check_text(prompt, "prompt", "compare")
        prompt = _of_text(prompt, tokenizer)
    else:
        prompt = _turns(prompt, "prompt")
    if isinstance(prompt, str):
        for k, response in enumerate(responses):
            if not isinstance(response, str):
                raise DataError(
                    f"responses[{k}]: expected text, as the prompt is raw text ({tokenizer.source} "
                    f"has no chat template), found {found(response)}"
                )
    read = (
        answer(prompt, response)
        if isinstance(response, str)
        else _turns(response, f"responses[{k}]")
        for k, response in enumerate(responses)
    )
    return Comparison(prompt, tuple(read), where="compare")


def _of_text(prompt: str, tokenizer: ChatTokenizer) -> Conversation | str:
    """Text as one turn of a user, where there is a template to write it."""
    if not tokenizer.hf.chat_template:
        return prompt
    if tokenizer.is_rendered(prompt):
        raise DataError(
            f"prompt: begins as the chat template of {tokenizer.source} writes a conversation, or "
            "with a special token: give the messages that it was made of, or, where a user did "
            'write this, [{"role": "user", "content": ...}]'
        )
    return (Message("user", prompt),)


def _turns(value: object, place: str) -> Conversation:
    """Messages of either kind; raises DataError naming the place of what is wrong."""
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"{place}: expected a list of messages, found {found(value)}")
    turns = []
    for j, turn in enumerate(value):
        at = f"{place}[{j}]"
        if not isinstance(turn, Message):
            turn = fields.message(dict(turn) if isinstance(turn, Mapping) else turn, "message", at)
        check_message(turn, "message", at)
        turns.append(turn)
    return tuple(turns)
