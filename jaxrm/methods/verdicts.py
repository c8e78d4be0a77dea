"""A language model as a judge: which of two answers it says is better.

It is shown both answers, and its next token is the verdict. Nothing is sampled: the probabilities
of the two verdicts are read, and weighed against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special

from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Conversation, Message, fault, plain_text
from jaxrm.data.packing import TokenTree
from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.evaluate.scorers import Judge
from jaxrm.methods.off_policy import first_tokens
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.read.reading import read

Ask = Callable[[Comparison], Comparison]
"""A comparison of two responses -> the question which is better, whose own two responses are the
verdict for the first and the verdict for the second."""

Options = Callable[[Sequence[TokenTree]], dict[str, Any]]
"""What is to be read -> mesh, rows and row_length of `jaxrm.read.reading.read`."""


def which_is_better(pair: Comparison) -> Comparison:
    """The plainest question, as one turn of a user; the verdict is "A" or "B".

    A judge that was trained on another question is to be asked that one.
    """
    first, second = map(plain_text, pair.responses)
    said = (
        "Which of two answers is better? Reply with A or B alone.\n\n"
        f"[Conversation]\n{_told(pair.prompt)}\n\n[Answer A]\n{first}\n\n[Answer B]\n{second}"
    )
    verdicts = tuple((Message("assistant", letter),) for letter in "AB")
    return Comparison((Message("user", said),), verdicts, where=pair.where)


def of_language_model(
    model: RewardModel, tokenizer: ChatTokenizer, ask: Ask, options: Options
) -> Judge:
    """The judge that a language model is when it is asked like this.

    Raises (when it judges):
      DataError: what is asked has not two responses, or both verdicts begin with one token, so that
        it says nothing.
      ModelFileError: the model has no language-model head.
      TokenizerError, DataError: as `chat.tokenize`.
    """

    def judge(pairs: Sequence[Comparison]) -> np.ndarray:
        if not pairs:
            return np.zeros(0)
        questions = [ask(pair) for pair in pairs]
        trees = first_tokens(chat.tokenize(questions, tokenizer), 1)
        for question, tree in zip(questions, trees, strict=True):
            _check(question, tree)
        readings = {"logps": heads.response_logps}
        logps = np.stack(read(model, trees, readings, ask="all", **options(trees))["logps"])
        return scipy.special.expit(logps[:, 0].astype(np.float64) - logps[:, 1])

    return judge


def _check(question: Comparison, tree: TokenTree) -> None:
    verdicts = [branch.tokens[: np.argmax(branch.targets) + 1] for branch in tree.branches]
    if len(verdicts) != 2 or any(not branch.targets.any() for branch in tree.branches):
        raise fault(question.where, "responses", "a judge is asked for one of two verdicts")
    if np.array_equal(*verdicts):
        raise fault(question.where, "responses", "both verdicts begin with one and the same token")


def _told(prompt: Conversation | str) -> str:
    """A prompt as text, with who speaks."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn.role}: {plain_text((turn,))}" for turn in prompt)
