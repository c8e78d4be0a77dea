"""Comparisons as token trees, and the packing of trees into rows of one fixed shape.

A comparison is a tree: one prompt (the trunk of token ids) and K branches, one per response. Trees
lie one after another in a row, and four integers per token say all that a model must know:

    row:        [ prompt A | A.resp 0 | A.resp 1 | prompt B | B.resp 0 | B.resp 1 | pad ]
    comparison: [    0     |    0     |    0     |    1     |    1     |    1     | -1  ]
    branch:     [    0     |    1     |    2     |    0     |    1     |    2     | -1  ]
    position:   [  0..p-1  |   p..    |   p..    |  0..q-1  |   q..    |   q..    |  0  ]

Token i attends to token j iff they share a comparison, j lies in the prompt or in i's own branch,
and position[j] <= position[i]. So a prompt is run once whatever K is, pairs and K-wise data are one
code path, only the tail of a row is padding, and one static shape means one compilation.

What is read at the end of a tree's branches lives in slots (one per response), what is read at the
ends of a response's steps in steps, what a preference loss compares lives in pairs and groups of
slots, and what a language-model loss predicts in targets. Columns, which some data have and others
do not (`jaxrm.data.carried`), are in a batch where its shape says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxrm.data.carried import FIELDS, Absent, Column, lack
from jaxrm.errors import DataError

Ask = Literal["none", "best", "all"]
"""Which responses' tokens the language model is asked to predict."""

MEASURES = ("tokens", "slots", "pairs", "targets", "groups", "steps")
"""What a tree takes of a row, in the order of sizes and capacities."""

UNLIMITED = np.iinfo(np.int64).max
"""The capacity for what is not kept."""


@dataclasses.dataclass(frozen=True, eq=False)
class Branch:
    """One response as token ids, without the prompt that it shares with its siblings.

    Attributes:
      tokens: int32 [n], n >= 1.
      targets: bool [n], the tokens that count as the response for a language model: its text up to
        and including end-of-turn, but not what a template writes after that.
      step_ends: int32 [s], the last token of each of its steps, in order; none by default.
      step_labels: float64 [s], NaN where a step is not labelled.
    """

    tokens: np.ndarray
    targets: np.ndarray
    step_ends: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    step_labels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTree:
    """One comparison as token ids: `prompt` int32 [p] (p may be 0) and K >= 1 branches.

    `ranks` (0 is best, ties share a rank) and `attributes` ([K][A], NaN where unlabelled) hold one
    entry per branch, or are None where unknown. `columns` are numbers by name, float [K] or [K, W]
    of the branches and [] of a pair: "response_score", "reference_logps", "margin", or any other.
    """

    prompt: np.ndarray
    branches: tuple[Branch, ...]
    ranks: tuple[int, ...] | None = None
    attributes: tuple[tuple[float, ...], ...] | None = None
    columns: Mapping[str, Float[np.ndarray, "*values"]] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedBatch:
    """R rows of L tokens with S response slots, P pairs, C groups of up to K slots, N targets and T
    steps each.

    Every index counts from the start of its own row. Values behind a false mask are 0, never NaN.

    Attributes:
      tokens, positions, comparison, branch: the rows; comparison and branch are -1 on padding, and
        branch 0 is the prompt.
      response_end: where a reward is read: the last token of the response's full rendering.
      prompt_end: the prompt's last token (the branch's first where nothing is shared).
      response_length: tokens of the response that count as language-model targets.
      response_comparison, response_rank: which tree of the row, and its rank (0 best, -1 unknown).
      response_index: the response's place in the packed list, counting all responses, to restore
        order.
      logp_mask: slots all of whose targets are in the row's target list.
      chosen_slot, rejected_slot, pair_weight: ordered pairs; a comparison's pairs weigh 1/C(K, 2)
        each.
      group_slots: a comparison's slots, best first.
      predictor, target, target_slot: the hidden state at `predictor` predicts the id `target`,
        which belongs to the response in `target_slot`. The prompt's last position predicts every
        branch's first token.
      step_end, step_slot: a step's last token, where its score is read, and the slot of its
        response; the steps of a response lie side by side, in order.
      step_present, step_mask: which entries are steps, and which of those have a label: a score is
        read of the first, a loss is taken over the second.
      response_score, reference_logps, margin, attributes and its mask are `Absent` where the shape
        does not carry them: a loss that reads them then raises DataError when it is traced.
      columns: all other columns, which `column` reads.
      steps are None where the shape has none.
    """

    tokens: Int[Array, "rows length"]
    positions: Int[Array, "rows length"]
    comparison: Int[Array, "rows length"]
    branch: Int[Array, "rows length"]

    response_end: Int[Array, "rows slots"]
    prompt_end: Int[Array, "rows slots"]
    response_length: Int[Array, "rows slots"]
    response_comparison: Int[Array, "rows slots"]
    response_rank: Int[Array, "rows slots"]
    response_index: Int[Array, "rows slots"]
    response_score: Float[Array, "rows slots"] | Absent
    reference_logps: Float[Array, "rows slots"] | Absent
    response_mask: Bool[Array, "rows slots"]
    logp_mask: Bool[Array, "rows slots"]

    chosen_slot: Int[Array, "rows pairs"]
    rejected_slot: Int[Array, "rows pairs"]
    margin: Float[Array, "rows pairs"] | Absent
    pair_weight: Float[Array, "rows pairs"]
    pair_mask: Bool[Array, "rows pairs"]

    group_slots: Int[Array, "rows groups group_size"]
    group_mask: Bool[Array, "rows groups group_size"]

    predictor: Int[Array, "rows targets"]
    target: Int[Array, "rows targets"]
    target_slot: Int[Array, "rows targets"]
    target_mask: Bool[Array, "rows targets"]

    attributes: Float[Array, "rows slots attributes"] | Absent
    attributes_mask: Bool[Array, "rows slots attributes"] | Absent

    columns: dict[str, Float[Array, "*values"] | Absent]

    step_end: Int[Array, "rows steps"] | None = None
    step_slot: Int[Array, "rows steps"] | None = None
    step_label: Float[Array, "rows steps"] | None = None
    step_present: Bool[Array, "rows steps"] | None = None
    step_mask: Bool[Array, "rows steps"] | None = None

    def column(self, name: str) -> Float[Array, "*values"]:
        """Float32 [rows, slots] or [rows, slots, width] of responses, or [rows, pairs].

        Raises DataError, naming why and what there is, where the batch does not carry the column.
        """
        columns = {field: getattr(self, field) for field in FIELDS} | self.columns
        values = columns.get(name, Absent(name, "no comparison has it"))
        if isinstance(values, Absent):
            carried = [other for other, held in columns.items() if not isinstance(held, Absent)]
            values.refuse(f"it has {', '.join(sorted(carried)) or 'no columns'}")
        return values

    def pairs(
        self, values: Float[Array, "rows slots ..."]
    ) -> tuple[Float[Array, "rows pairs ..."], Float[Array, "rows pairs ..."]]:
        """Per-response `values` as (chosen, rejected); pairs behind a false `pair_mask` are slot
        0's."""

        def take(slots: Int[Array, "rows pairs"]) -> Float[Array, "rows pairs ..."]:
            whole = slots.reshape(slots.shape + (1,) * (values.ndim - 2))
            return jnp.take_along_axis(values, whole, axis=1)

        return take(self.chosen_slot), take(self.rejected_slot)

    def groups(self, values: Float[Array, "rows slots"]) -> Float[Array, "rows groups group_size"]:
        """Per-response `values` by comparison, best first; places behind a false `group_mask` are
        slot 0's."""
        return jnp.take_along_axis(values[:, None], self.group_slots, axis=2)

    def best(self, values: Float[Array, "rows slots"]) -> Float[Array, "rows groups"]:
        """The value of each comparison's best response, once per comparison."""
        return jnp.take_along_axis(values, self.group_slots[:, :, 0], axis=1)

    def by_response(self, values: Shaped[Array, "rows steps"]) -> Shaped[Array, "rows slots steps"]:
        """Per-step `values` as those of each response: its own steps first, in order, then 0."""
        slots, places = jnp.arange(self.response_mask.shape[1]), jnp.arange(values.shape[1])
        own = (self.step_slot[:, None] == slots[:, None]) & self.step_present[:, None]
        index = jnp.argmax(own, axis=2, keepdims=True) + places
        taken = jnp.take_along_axis(values[:, None], index, axis=2, mode="clip")
        within = places < own.sum(axis=2, keepdims=True)
        return jnp.where(within, taken, jnp.zeros_like(taken))

    @property
    def best_mask(self) -> Bool[Array, "rows groups"]:
        """Which entries of `best` are real comparisons whose best response has its targets in the
        row."""
        has_logps = jnp.take_along_axis(self.logp_mask, self.group_slots[:, :, 0], axis=1)
        return self.group_mask[:, :, 0] & has_logps


@dataclasses.dataclass(frozen=True)
class PackShape:
    """The static shape of a batch, and with it what a batch carries.

    `groups == 0` means that no preferences are made at all (scoring: K = 405 would make 81,810
    pairs); `steps == 0` that steps are left out, however many there are; `ask` says whose tokens
    are language-model targets; `columns` which are carried, all trees having them; `attributes` how
    many grades of a response are. A row closes when any capacity would overflow.

    `absent` says of others why not, by name, for the error of whatever reads them all the same.
    """

    rows: int
    length: int
    slots: int
    pairs: int = 0
    groups: int = 0
    group_size: int = 0
    targets: int = 0
    attributes: int = 0
    steps: int = 0
    ask: Ask = "none"
    columns: tuple[Column, ...] = ()
    absent: tuple[tuple[str, str], ...] = ()

    @property
    def capacity(self) -> np.ndarray:
        """Int64 [6]: tokens, slots, pairs, targets, groups and steps that one row holds."""
        fixed = [self.length, self.slots, self.pairs, self.targets, self.groups]
        return np.array([*fixed, self.steps or UNLIMITED], np.int64)

    def require(self, column: str, user: str) -> None:
        """Raises DataError, before anything is computed, where `user` would read what is absent."""
        if column not in {carried.name for carried in self.columns}:
            why = dict(self.absent).get(column, "the shape of its batches does not carry it")
            raise DataError(f"{user} needs {column} of every comparison: {why}")


def tree_length(tree: TokenTree) -> int:
    """Tokens that the tree takes in a row: the prompt once, and every branch."""
    return len(tree.prompt) + sum(len(branch.tokens) for branch in tree.branches)


def longest_branch(tree: TokenTree) -> int:
    """Tokens of the prompt and its longest branch: the longest text that a model reads of this
    tree."""
    return len(tree.prompt) + max(len(branch.tokens) for branch in tree.branches)


def measure(trees: Iterable[TokenTree], *, ask: Ask, preferences: bool) -> np.ndarray:
    """Int64 [trees, 6]: what each tree takes of a row's `MEASURES`."""
    sizes = (
        (
            tree_length(tree),
            len(tree.branches),
            len(_ordered_pairs(tree)) if preferences else 0,
            sum(len(_target_offsets(tree, k)) for k in _asked(tree, ask)),
            1 if preferences else 0,
            sum(len(branch.step_ends) for branch in tree.branches),
        )
        for tree in trees
    )
    return np.fromiter(sizes, np.dtype((np.int64, len(MEASURES))))


def checked(trees: Iterable[TokenTree], shape: PackShape) -> Iterator[TokenTree]:
    """The trees one by one, for whoever goes through them all before batches are made.

    Raises:
      DataError: a tree has more responses than a group of the shape, or lacks what its batches are
        to carry; or, at the end, no tree had attributes.
    """
    graded = []
    for i, tree in enumerate(trees):
        if problem := _misfit(tree, i, shape):
            raise DataError(problem)
        graded.append(tree.attributes is not None)
        yield tree
    if shape.attributes and graded and not any(graded):
        raise DataError("batches are to carry attributes, but no comparison has any")


def _misfit(tree: TokenTree, i: int, shape: PackShape) -> str:
    """What keeps tree i out of batches of this shape, whatever their capacity, or ""."""
    it, count = f"comparison {i}, counting from 0,", len(tree.branches)
    if shape.groups and count > shape.group_size:
        return f"{it} has {count} responses, but a group of the shape holds {shape.group_size}"
    for column in shape.columns:
        if problem := lack(tree, column):
            return f"batches are to carry {column.name}, but {it} {problem}"
    for grades in tree.attributes or ():
        if shape.attributes and len(grades) != shape.attributes:
            return f"batches carry {shape.attributes} attributes, but {it} has {len(grades)}"
    return ""


def split(
    tree: TokenTree, length: int, *, slots: int = UNLIMITED, steps: int = UNLIMITED
) -> list[TokenTree]:
    """The tree cut into trees that rows of these capacities hold, each with the whole prompt again.

    For scoring only: the parts know nothing of each other's rank. Steps and columns of responses go
    with their branch. A single branch that is too long for `length` stands alone in its part.
    """
    capacity = (length - len(tree.prompt), slots, steps)
    parts: list[list[int]] = [[]]
    room = capacity
    for k, branch in enumerate(tree.branches):
        needs = (len(branch.tokens), 1, len(branch.step_ends))
        if parts[-1] and any(need > left for need, left in zip(needs, room, strict=True)):
            parts.append([])
            room = capacity
        parts[-1].append(k)
        room = tuple(left - need for need, left in zip(needs, room, strict=True))
    if len(parts) == 1:
        return [tree]
    of_responses = {name: values for name, values in tree.columns.items() if np.ndim(values)}
    return [
        TokenTree(
            tree.prompt,
            tuple(tree.branches[k] for k in part),
            columns={name: values[part] for name, values in of_responses.items()},
        )
        for part in parts
    ]


def response_offsets(trees: Sequence[TokenTree]) -> np.ndarray:
    """Int64 [trees]: how many responses stand before each tree in the list."""
    counts = [len(tree.branches) for tree in trees]
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)


def pack(
    trees: Sequence[TokenTree],
    rows: Sequence[Sequence[int]],
    shape: PackShape,
    offsets: np.ndarray | None = None,
) -> PackedBatch:
    """Writes the trees of each planned row into a batch of numpy arrays.

    Args:
      trees: all trees; `rows` indexes into them.
      rows: at most `shape.rows` lists of tree indices; missing rows stay empty.
      shape: the static shape.
      offsets: `response_offsets(trees)`, where the caller has them already.

    Raises:
      ValueError: there are more rows than `shape.rows`, or a row overflows the shape.
      DataError: a tree lacks what the shape carries, or has more responses than a group of it.
    """
    if len(rows) > shape.rows:
        raise ValueError(f"{len(rows)} rows for a batch of {shape.rows}")
    offsets = response_offsets(trees) if offsets is None else offsets
    batch = _empty(shape)
    for r, row in enumerate(rows):
        sizes = measure([trees[i] for i in row], ask=shape.ask, preferences=shape.groups > 0)
        if row and (sizes.sum(0) > shape.capacity).any():
            raise ValueError(f"row {r} needs {sizes.sum(0)}, but the shape holds {shape.capacity}")
        writer = _RowWriter({name: array[r] for name, array in batch.items()}, shape)
        for i in row:
            if problem := _misfit(trees[i], i, shape):
                raise DataError(problem)
            writer.write(trees[i], int(offsets[i]))
    why = dict.fromkeys((*FIELDS, "attributes"), "its PackShape does not carry it")
    columns = {name: Absent(name, reason) for name, reason in (why | dict(shape.absent)).items()}
    none = columns.pop("attributes")
    columns |= {column.name: batch.pop(column) for column in shape.columns}
    fields = {"attributes": none, "attributes_mask": none} | {n: columns.pop(n) for n in FIELDS}
    return PackedBatch(**(fields | batch), columns=columns)


class _RowWriter:
    """Appends trees to one row; `row` holds views of that row in every array of the batch."""

    def __init__(self, row: dict[str | Column, np.ndarray], shape: PackShape):
        self.row, self.shape = row, shape
        self.token = self.slot = self.pair = self.target = self.step = self.comparison = 0

    def write(self, tree: TokenTree, first_index: int) -> None:
        first_slot, first_pair = self.slot, self.pair
        prompt_start, prompt_length = self.token, len(tree.prompt)
        self._write_tokens(tree.prompt, branch=0, first_position=0)
        for k, branch in enumerate(tree.branches):
            start = self.token
            self._write_tokens(branch.tokens, branch=k + 1, first_position=prompt_length)
            asked = k in _asked(tree, self.shape.ask)
            slot = {
                "response_end": self.token - 1,
                "prompt_end": prompt_start + prompt_length - 1 if prompt_length else start,
                "response_length": int(branch.targets.sum()),
                "response_comparison": self.comparison,
                "response_rank": -1 if tree.ranks is None else tree.ranks[k],
                "response_index": first_index + k,
                "response_mask": True,
                "logp_mask": asked,
            }
            for name, value in slot.items():
                self.row[name][self.slot] = value
            if tree.attributes is not None and self.shape.attributes:
                labels = np.asarray(tree.attributes[k], np.float32)
                self.row["attributes"][self.slot] = np.nan_to_num(labels)
                self.row["attributes_mask"][self.slot] = ~np.isnan(labels)
            if asked:
                self._write_targets(tree, k, start, prompt_end=slot["prompt_end"])
            if self.shape.steps:
                self._write_steps(branch, start)
            self.slot += 1
        if self.shape.groups:
            self._write_preferences(tree, first_slot)
        own = {"response": slice(first_slot, self.slot), "pair": slice(first_pair, self.pair)}
        for column in self.shape.columns:
            self.row[column][own[column.per]] = tree.columns[column.name]
        self.comparison += 1

    def _write_tokens(self, tokens: np.ndarray, branch: int, first_position: int) -> None:
        span = slice(self.token, self.token + len(tokens))
        self.row["tokens"][span] = tokens
        self.row["positions"][span] = np.arange(first_position, first_position + len(tokens))
        self.row["comparison"][span] = self.comparison
        self.row["branch"][span] = branch
        self.token = span.stop

    def _write_targets(self, tree: TokenTree, k: int, start: int, prompt_end: int) -> None:
        offsets = _target_offsets(tree, k)
        span = slice(self.target, self.target + len(offsets))
        self.row["predictor"][span] = np.where(offsets == 0, prompt_end, start + offsets - 1)
        self.row["target"][span] = tree.branches[k].tokens[offsets]
        self.row["target_slot"][span] = self.slot
        self.row["target_mask"][span] = True
        self.target = span.stop

    def _write_steps(self, branch: Branch, start: int) -> None:
        span = slice(self.step, self.step + len(branch.step_ends))
        self.row["step_end"][span] = start + branch.step_ends
        self.row["step_slot"][span] = self.slot
        self.row["step_label"][span] = np.nan_to_num(branch.step_labels)
        self.row["step_present"][span] = True
        self.row["step_mask"][span] = ~np.isnan(branch.step_labels)
        self.step = span.stop

    def _write_preferences(self, tree: TokenTree, first_slot: int) -> None:
        pairs = _ordered_pairs(tree)
        count = len(tree.branches)
        for better, worse in pairs:
            self.row["chosen_slot"][self.pair] = first_slot + better
            self.row["rejected_slot"][self.pair] = first_slot + worse
            self.row["pair_weight"][self.pair] = 2.0 / (count * (count - 1))
            self.row["pair_mask"][self.pair] = True
            self.pair += 1
        self.row["group_slots"][self.comparison, :count] = first_slot + np.asarray(
            _best_first(tree)
        )
        self.row["group_mask"][self.comparison, :count] = True


def _best_first(tree: TokenTree) -> list[int]:
    """Branches by rank, ties and unranked trees in the order given."""
    ranks = tree.ranks or (0,) * len(tree.branches)
    return sorted(range(len(tree.branches)), key=lambda k: ranks[k])


def _asked(tree: TokenTree, ask: Ask) -> Sequence[int]:
    """Branches whose tokens are language-model targets; of several best ones, the first alone."""
    if ask == "none":
        return ()
    return _best_first(tree)[:1] if ask == "best" else range(len(tree.branches))


def _ordered_pairs(tree: TokenTree) -> list[tuple[int, int]]:
    """(better, worse) for all branches of different rank; none where ranks are unknown."""
    if tree.ranks is None:
        return []
    every = range(len(tree.branches))
    return [(a, b) for a in every for b in every if tree.ranks[a] < tree.ranks[b]]


def _target_offsets(tree: TokenTree, k: int) -> np.ndarray:
    """Offsets of branch k's targets; without a prompt nothing predicts its very first token."""
    offsets = np.flatnonzero(tree.branches[k].targets)
    return offsets if len(tree.prompt) else offsets[offsets > 0]


def _empty(shape: PackShape) -> dict[str | Column, np.ndarray]:
    """The arrays of an empty batch by field, and by column, whose name may be a field's."""
    capacities = (shape.length, shape.slots, shape.pairs, shape.targets, shape.steps)
    tokens, slots, pairs, targets, steps = ((shape.rows, capacity) for capacity in capacities)
    groups = (shape.rows, shape.groups, shape.group_size)
    arrays = [
        (tokens, np.int32, ["tokens", "positions", "comparison", "branch"]),
        (slots, np.int32, ["prompt_end", "response_end", "response_length"]),
        (slots, np.int32, ["response_comparison", "response_rank", "response_index"]),
        (slots, np.bool_, ["response_mask", "logp_mask"]),
        (pairs, np.int32, ["chosen_slot", "rejected_slot"]),
        (pairs, np.float32, ["pair_weight"]),
        (pairs, np.bool_, ["pair_mask"]),
        (groups, np.int32, ["group_slots"]),
        (groups, np.bool_, ["group_mask"]),
        (targets, np.int32, ["predictor", "target", "target_slot"]),
        (targets, np.bool_, ["target_mask"]),
    ]
    if shape.attributes:
        grades = (*slots, shape.attributes)
        arrays += [(grades, np.float32, ["attributes"]), (grades, np.bool_, ["attributes_mask"])]
    if shape.steps:
        arrays.append((steps, np.int32, ["step_end", "step_slot"]))
        arrays.append((steps, np.float32, ["step_label"]))
        arrays.append((steps, np.bool_, ["step_present", "step_mask"]))
    for column in shape.columns:
        places = pairs if column.per == "pair" else (shape.rows, *column.shape(shape.slots))
        arrays.append((places, np.float32, [column]))
    batch = {name: np.zeros(places, kind) for places, kind, names in arrays for name in names}
    for name in ("comparison", "branch", "response_rank"):
        batch[name] -= 1
    return batch
