"""Conversations to token trees, through the tokenizer and chat template of a model's directory.

Every branch is tokenised whole, from the template's own full rendering, and then cut where the
branches and the rendered prompt stop agreeing on token ids. Tokenising prompt and response apart
would merge differently at the seam, and what Hugging Face consumers feed the model is the whole.

Text is treated as `apply_chat_template` treats it, also where it spells a special token: "<eos>"
typed by a user becomes that token here as it does there. Nothing downstream looks for token ids, so
this cannot move the place where a reward is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrm.data import template
from jaxrm.data.carried import MARGIN, SCORE
from jaxrm.data.comparison import Comparison, Conversation, common_length, fault, last_text
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.errors import TokenizerError

Span = tuple[int, int]


def tokenize(comparisons: Sequence[Comparison], tokenizer: ChatTokenizer) -> list[TokenTree]:
    """Comparisons as token trees, in order.

    prompt + branch are the ids of `apply_chat_template` on prompt + response. The prompt is the
    longest common prefix of the branches and the rendered prompt, short of the last token of any
    branch, and may be empty. Targets are the tokens that reach beyond the rendered prompt, up to
    the special token that ends the turn; white space that a template writes after it is part of the
    branch (its last token is where consumers read the reward) but no target. A step ends with the
    token that covers its last character.

    Raw text stands alone, with the special tokens that the tokenizer adds by itself and one EOS;
    where it ends with a special token, that is the end. Text that is undecided is settled first.

    Raises:
        TokenizerError: messages without a usable chat template, or raw text without an EOS token.
        DataError: a conversation that the template refuses, or of which it leaves something out
            (`jaxrm.data.template`), or whose steps it changes, naming its row.
    """
    comparisons = settled(comparisons, tokenizer)
    trees: list[TokenTree | None] = [None] * len(comparisons)
    for raw, lay_out in ((False, _render_comparison), (True, _join_text)):
        places = [i for i, c in enumerate(comparisons) if isinstance(c.prompt, str) == raw]
        for start in range(0, len(places), 512):  # bounds the memory that offsets take
            chunk = places[start : start + 512]
            layouts = [lay_out(comparisons[i], tokenizer) for i in chunk]
            texts = [text for layout in layouts for text in (layout.prompt, *layout.branches)]
            encoded = iter(_encode(texts, tokenizer, raw))
            for i, layout in zip(chunk, layouts, strict=True):
                prompt = next(encoded)
                branches = [next(encoded) for _ in layout.branches]
                trees[i] = _tree(comparisons[i], layout, prompt, branches, tokenizer)
    return trees


def settled(comparisons: Sequence[Comparison], tokenizer: ChatTokenizer) -> list[Comparison]:
    """The same, with text of which nobody has said how it is meant as one or the other.

    With a chat template a question and its answers are a conversation of one turn, unless the
    question is rendered already; without one they are raw text. What is taken where there was a
    choice is said once.
    """
    return [_settled(c, tokenizer) if c.undecided else c for c in comparisons]


def _settled(comparison: Comparison, tokenizer: ChatTokenizer) -> Comparison:
    if not tokenizer.hf.chat_template:
        return comparison
    begins = "%s: text, not messages, and %s has a chat template. "
    if tokenizer.is_rendered(comparison.prompt):
        tokenizer.say_once(
            begins + "It begins as that template does or with a special token, so it is taken as "
            "RAW TEXT, with no second BOS or EOS; ?text=chat or ?text=raw after the source's name "
            "says how such rows are meant",
            comparison.where,
            tokenizer.source,
        )
        return comparison
    tokenizer.say_once(
        begins + "It is taken as A CONVERSATION OF ONE TURN, which such a model was made for; "
        "?text=chat after the source's name agrees, ?text=raw takes it as it stands",
        comparison.where,
        tokenizer.source,
    )
    return comparison.as_conversation()


@dataclasses.dataclass(frozen=True)
class _Layout:
    """A comparison as text: its prompt, each prompt with a response, and where responses lie."""

    prompt: str
    branches: list[str]
    spans: list[list[Span]]


@dataclasses.dataclass(frozen=True)
class _Encoded:
    """Token ids int32 [n] of a text, and the characters int [n, 2] that each one covers."""

    ids: np.ndarray
    offsets: np.ndarray


def _render_comparison(comparison: Comparison, tokenizer: ChatTokenizer) -> _Layout:
    def render(messages: Conversation, opened: bool, field: str) -> str:
        try:
            return tokenizer.render(messages, opened=opened, tools=comparison.tools)
        except TokenizerError:
            raise
        except Exception as error:  # an expression of a template raises what it likes
            problem = f"the chat template of {tokenizer.source} refuses it: {error}"
            raise fault(comparison.where, field, problem) from error

    prompt = render(comparison.prompt, True, "prompt")
    branches, spans = [], []
    for k, response in enumerate(comparison.responses):
        field = f"responses[{k}]"
        messages = comparison.prompt + response
        text = render(messages, False, field)
        turns = []
        for i in range(len(comparison.prompt), len(messages)):
            if messages[i].role == "assistant":
                start = _common_characters(render(messages[:i], True, field), text)
                is_last = i + 1 == len(messages)
                closed = text if is_last else render(messages[: i + 1], False, field)
                turns.append((start, _common_characters(closed, text)))
        branches.append(text)
        spans.append(turns)
    template.check_written(comparison, branches, tokenizer)
    return _Layout(prompt, branches, spans)


def _join_text(comparison: Comparison, tokenizer: ChatTokenizer) -> _Layout:
    if tokenizer.hf.eos_token_id is None:
        problem = "raw text needs a tokenizer with an EOS token"
        raise TokenizerError(f"{tokenizer.source}: {problem} ({comparison.where})")
    prompt = comparison.prompt
    branches = [prompt + response for response in comparison.responses]
    return _Layout(prompt, branches, [[(len(prompt), len(text))] for text in branches])


def _encode(texts: list[str], tokenizer: ChatTokenizer, raw: bool) -> list[_Encoded]:
    encoded = tokenizer.hf(
        texts,
        add_special_tokens=raw,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [
        _Encoded(np.array(ids, np.int32), np.array(offsets, np.int64).reshape(-1, 2))
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def _tree(
    comparison: Comparison,
    layout: _Layout,
    prompt: _Encoded,
    branches: list[_Encoded],
    tokenizer: ChatTokenizer,
) -> TokenTree:
    raw = isinstance(comparison.prompt, str)
    if raw:
        prompt = _one_bos(prompt, tokenizer)
        branches = [
            _one_eos(_one_bos(branch, tokenizer), text, tokenizer)
            for branch, text in zip(branches, layout.branches, strict=True)
        ]
    shared = len(prompt.ids)
    for k, branch in enumerate(branches):
        if not len(branch.ids):
            raise fault(comparison.where, f"responses[{k}]", "renders to no tokens at all")
        shared = min(shared, _common_ids(branch.ids, prompt.ids), len(branch.ids) - 1)
    cut = []
    laid_out = zip(branches, layout.branches, layout.spans, strict=True)
    for k, (branch, text, spans) in enumerate(laid_out):
        targets = _targets(branch, text, spans, tokenizer.special_ids)
        targets[-1] |= raw and not np.ptp(branch.offsets[-1])  # an EOS that covers no character
        steps = _steps(comparison, k, branch, text, start=spans[-1][0], shared=shared)
        cut.append(Branch(branch.ids[shared:], targets[shared:], *steps))
    return TokenTree(
        prompt=branches[0].ids[:shared],
        branches=tuple(cut),
        ranks=comparison.ranks,
        attributes=comparison.attributes,
        columns=_columns(comparison),
    )


def _columns(comparison: Comparison) -> dict[str, np.ndarray]:
    named = {SCORE.name: comparison.scores, MARGIN.name: comparison.margin, **comparison.columns}
    return {
        name: np.array(values, np.float64) for name, values in named.items() if values is not None
    }


def _targets(branch: _Encoded, text: str, spans: list[Span], special: np.ndarray) -> np.ndarray:
    """Bool [n]: tokens inside the spans, less the white space after an end-of-turn token."""
    targets = np.zeros(len(branch.ids), np.bool_)
    starts, ends = branch.offsets.T
    for start, end in spans:
        inside = (ends > start) & (starts < end)
        turn_ends = np.flatnonzero(inside & np.isin(branch.ids, special))
        if len(turn_ends) and not text[ends[turn_ends[-1]] : end].strip():
            inside[turn_ends[-1] + 1 :] = False
        targets |= inside
    return targets


def _steps(
    comparison: Comparison, k: int, branch: _Encoded, text: str, *, start: int, shared: int
) -> tuple[np.ndarray, np.ndarray]:
    """Int32 [s] and float64 [s]: where response k's steps end in its branch, and their labels.

    Args:
      start: characters of `text` before the response's last message, which templates may trim.
      shared: tokens that the branch leaves to the prompt.
    """
    steps = comparison.steps[k] if comparison.steps else ()
    if not steps:
        return np.zeros(0, np.int32), np.zeros(0)
    written = last_text(comparison.responses[k])
    for kept in (written, written.strip()):
        if (place := text.find(kept, start)) >= 0:
            break
    lead = written.find(kept)
    ends = np.minimum([step.end for step in steps], lead + len(kept))
    if place < 0 or ends[0] <= lead:
        problem = "the chat template changes the response, so its steps cannot be found"
        raise fault(comparison.where, f"steps[{k}]", problem)
    # The last token to begin by a step's last character: characters may share one, and tokens may
    # share a character.
    visible = np.flatnonzero(branch.offsets[:, 1] > branch.offsets[:, 0])
    begun = np.searchsorted(branch.offsets[visible, 0], place + ends - 1 - lead, side="right")
    tokens = np.maximum(visible[begun - 1] - shared, 0)  # a character may leave no token at all
    labels = np.array([step.label for step in steps], np.float64)
    return tokens.astype(np.int32), labels


def _one_bos(encoded: _Encoded, tokenizer: ChatTokenizer) -> _Encoded:
    """Without the second of two BOS: the tokenizer's own, where the text begins with one."""
    bos = tokenizer.hf.bos_token_id
    doubled = bos is not None and encoded.ids[:2].tolist() == [bos, bos]
    return _Encoded(encoded.ids[1:], encoded.offsets[1:]) if doubled else encoded


def _one_eos(encoded: _Encoded, text: str, tokenizer: ChatTokenizer) -> _Encoded:
    """With an EOS, unless the text ends with a special token of its own: a turn that is closed, or
    an EOS already, which a tokenizer may have doubled."""
    eos = tokenizer.hf.eos_token_id
    closed = text.rstrip().endswith(tokenizer.special_texts)
    ends = encoded.ids[-1:].tolist() == [eos] and not np.ptp(encoded.offsets[-1])
    if closed and ends:
        return _Encoded(encoded.ids[:-1], encoded.offsets[:-1])
    if closed or ends:
        return encoded
    nowhere = np.zeros((1, 2), np.int64)
    return _Encoded(
        np.append(encoded.ids, np.int32(eos)), np.concatenate([encoded.offsets, nowhere])
    )


def _common_characters(begin: str, text: str) -> int:
    # Nearly always the whole of `begin`, which needs no search.
    return len(begin) if text.startswith(begin) else common_length(begin, text)


def _common_ids(a: np.ndarray, b: np.ndarray) -> int:
    shorter = min(len(a), len(b))
    different = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(different[0]) if len(different) else shorter
