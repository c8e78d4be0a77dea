"""What a model reads, as text: the tokens of a comparison, for the eyes of whoever starts a run.

Templates, BOS, line breaks and the place of the reward go wrong without a sound. Here they are to
be seen: special tokens are spelled out, a line's end is ⏎, white space at the ends of a line is ·
(a tab ⇥), «...» are the targets of a language model, and ◀ stands where the reward is read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np

from jaxrm.data.comparison import Comparison, common_length
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.data.tokenizer import ChatTokenizer

LONGEST = 1200
"""Characters of a stretch of text that are shown, half from its start and half from its end."""

MOST = 8
"""Responses of a comparison that are shown, half from each end of the list."""


def text(comparison: Comparison, tree: TokenTree, tokenizer: ChatTokenizer) -> str:
    """The prompt and each response of a comparison as the model reads them.

    Args:
      comparison: what the tree was made of; only its name and its labels are shown.
      tree: from `chat.tokenize`.
      tokenizer: the one that made it.
    """
    count = len(tree.branches)
    name = " ".join(filter(None, (comparison.where, comparison.id and f"(id {comparison.id})")))
    parts = [f"=== {name or 'comparison'}: {_many(count, 'response')}"]
    prompt = [tokenizer.hf.decode(tree.prompt, **_AS_IT_IS)] if len(tree.prompt) else []
    parts += [f"--- prompt, {_many(len(tree.prompt), 'token')}", *map(_visible, prompt)]
    half = MOST // 2 if count > MOST else count
    for k, branch in enumerate(tree.branches):
        if half <= k < count - half:
            if k == half:
                parts.append(f"--- {count - 2 * half:,} responses are left out here")
            continue
        parts.append(
            f"--- response {k}, {_about(comparison, k)}{_many(len(branch.tokens), 'token')}"
        )
        parts.append(_marked(tree.prompt, branch, tokenizer))
    return "\n".join(parts) + "\n"


_AS_IT_IS = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}


def _about(comparison: Comparison, k: int) -> str:
    """What is known of a response."""
    rank = "" if comparison.ranks is None else f"rank {comparison.ranks[k]}, "
    return rank + ("" if comparison.scores is None else f"score {comparison.scores[k]:g}, ")


def _marked(prompt: np.ndarray, branch: Branch, tokenizer: ChatTokenizer) -> str:
    """A response, its targets in «...», with a mark after the last token."""
    marked = (
        f"«{_visible(said)}»" if target else _visible(said)
        for target, said in _stretches(prompt, branch, tokenizer)
    )
    return "".join(marked) + "◀ reward"


def _stretches(
    prompt: np.ndarray, branch: Branch, tokenizer: ChatTokenizer
) -> Iterator[tuple[bool, str]]:
    """The text of a response in stretches of tokens that are targets and that are none."""
    ids = np.concatenate([prompt, branch.tokens])
    whole, place = tokenizer.hf.decode(ids, **_AS_IT_IS), len(prompt)

    def before(end: int) -> int:
        # Decoded alone a part may lose a space at its start, and end in half a character.
        return common_length(tokenizer.hf.decode(ids[:end], **_AS_IT_IS), whole)

    start = before(place)
    for target, tokens in itertools.groupby(branch.targets.tolist()):
        place += len(list(tokens))
        end = len(whole) if place == len(ids) else before(place)
        yield target, whole[start:end]
        start = end


def _visible(said: str) -> str:
    """Text whose white space can be seen, its middle left out where it is long."""
    if (left := len(said) - LONGEST) > 0:
        half = LONGEST // 2
        ends = (_visible(said[:half]), _visible(said[len(said) - half :]))
        return f"\n[... {left:,} characters are left out here ...]\n".join(ends)
    said = re.sub(r"^ +| +$", lambda found: "·" * len(found[0]), said, flags=re.MULTILINE)
    return said.replace("\t", "⇥").replace("\r", "␍").replace("\n", "⏎\n")


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
