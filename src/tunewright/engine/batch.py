"""Trees become tensors, in one of two layouts that carry the same targets.

Shape suffixes: B sequences, T tokens of a sequence, N targets, S segments, D width, V vocabulary, H heads, L tokens of a segment,
K values of a segment, U own tokens of all segments.

*Forest* layout: one sequence (B = 1) that holds every segment once; `layout` tells attention who sees whom.
*Padded* layout: one sequence for each leaf, holding its whole path, padded to the longest; any transformers model can take it.
In both, target n is predicted from the hidden state at flat position `rows_N[n]` of the B*T positions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from tunewright.data.forest import Tree
from tunewright.engine.layout import Layout
from tunewright.models.lanes import Lane, Places

Begins = Mapping[int, tuple[int, ...]]
"""The virtual tokens (negative ids) that every row of a tuning begins with, by its number; see `models.lanes`."""
NOTHING: Begins = MappingProxyType({})

# Rows of fewer tokens than the first number are filled up to a multiple of the second, with a segment that nobody reads. Libraries
# of matrix products prepare themselves for each new shape (oneDNN: 0.3 ms a product), so lengths should recur; short rows would
# pay more for what is filled up than they save.
GRAINS = ((256, 1), (1024, 32), (math.inf, 64))


def spare(rows: int) -> int:
    """How many rows fill `rows` up to a number that recurs."""
    return -rows % next(grain for most, grain in GRAINS if rows < most)


@dataclass(frozen=True)
class Batch:
    """One forward pass worth of trees, as tensors.

    Args:
        tokens_BT, positions_BT: token ids and their positions.
        mask_BT: 1 at real tokens (padded layout), None in the forest layout.
        layout: who sees whom (forest layout), None in the padded layout.
        source_BT, source_mask_BT: the encoder's side of an encoder-decoder batch, else None.
        rows_N: flat position of the hidden state that predicts each target.
        targets_N: the token to predict; weights_N: how much it counts; owners_N: the segment it belongs to.
        labels_S: class of each labelled segment (-1: none); spans_S2: flat start and end of each segment.
        values_SK: the numbers that a head should give each segment (NaN: none), K the most of any segment.
        tags_U: what a head should give each of the segments' own tokens (-1: nothing), segment by segment, without padding.
        row_S: index of the user's row that each segment came from.
        tuning_S: the tuning of a bank that owns each segment; lanes: the flat positions of each tuning, in order.
        tuning: the tuning whose targets and labels these are; None where they are everybody's.
        places: where each position (of the encoder's side, where there is one) stands in its prompt; None where nobody asks.
        trees: what the batch was made of, in the order of its targets: another model lays them out in its own way.
    """

    tokens_BT: Tensor
    positions_BT: Tensor
    rows_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    owners_N: Tensor
    labels_S: Tensor
    spans_S2: Tensor
    row_S: Tensor
    tuning_S: Tensor
    values_SK: Tensor
    tags_U: Tensor
    lanes: tuple[Lane, ...] = ()
    tuning: int | None = None
    origin: Batch | None = None
    layout: Layout | None = None
    mask_BT: Tensor | None = None
    source_BT: Tensor | None = None
    source_mask_BT: Tensor | None = None
    places: Places | None = None
    trees: tuple[Tree, ...] = ()

    @property
    def tokens(self) -> int:
        """Positions computed, padding included; of a part, those of its own tuning."""
        if self.origin is not None:
            return sum(lane.stop - lane.start for lane in self.lanes)
        return self.tokens_BT.numel() + (self.source_BT.numel() if self.source_BT is not None else 0)

    @property
    def whole(self) -> Batch:
        """The batch that this is a part of, or itself: what the body is run on."""
        return self if self.origin is None else self.origin

    def has(self, tuning: int) -> bool:
        """Whether any segment belongs to `tuning`."""
        return any(lane.tuning == tuning for lane in self.lanes)

    def part(self, tuning: int) -> Batch:
        """The same batch with the targets and labels of one tuning only.

        Tokens, segments and layout stay, so that hidden states computed for the whole serve every part.
        """
        if self.origin is None and all(lane.tuning == tuning for lane in self.lanes):
            return replace(self, tuning=tuning, origin=self)
        own_S = self.tuning_S == tuning
        own_N = own_S[self.owners_N]
        own_U = own_S.repeat_interleave(self.spans_S2[:, 1] - self.spans_S2[:, 0])
        return replace(
            self,
            rows_N=self.rows_N[own_N],
            targets_N=self.targets_N[own_N],
            weights_N=self.weights_N[own_N],
            owners_N=self.owners_N[own_N],
            labels_S=self.labels_S.masked_fill(~own_S, -1),
            values_SK=self.values_SK.masked_fill(~own_S[:, None], math.nan),
            tags_U=self.tags_U.masked_fill(~own_U, -1),
            lanes=tuple(lane for lane in self.lanes if lane.tuning == tuning),
            tuning=tuning,
            origin=self.whole,
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`."""
        if self.tokens_BT.device == device:
            return self
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        places = None if self.places is None else Places(*(value.to(device) for value in self.places))
        return replace(self, **moved, places=places)


class _Collector:
    """Gathers targets and segments while sequences are laid out; shared by the layouts so that they cannot drift apart."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.owners: list[int] = []
        self.labels: list[int] = []
        self.values: list[tuple[float, ...]] = []
        self.tags: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.row: list[int] = []
        self.tuning: list[int] = []

    def add(self, tree: Tree, index: int, start: int, before: int | None) -> None:
        """Record segment `index` of `tree`, standing at flat `start`; `before` is the position of the token that it continues."""
        segment = tree.segments[index]
        owner = len(self.spans)
        for offset, weight in enumerate(segment.targets):
            if weight <= 0:
                continue
            predictor = start + offset - 1 if offset else before
            if predictor is None:
                raise ValueError("the first token of a root cannot be a target: nothing stands before it")
            self.rows.append(predictor)
            self.targets.append(segment.tokens[offset])
            self.weights.append(weight)
            self.owners.append(owner)
        self.labels.append(-1 if segment.label is None else segment.label)
        self.values.append(segment.values)
        self.tags.extend(segment.tags or [-1] * len(segment.tokens))
        self.spans.append((start, start + len(segment.tokens)))
        self.row.append(segment.row)
        self.tuning.append(segment.tuning)

    def batch(self, tokens_BT: Tensor, positions_BT: Tensor) -> Batch:
        """What was gathered, around the tokens it was gathered from."""
        widest = max((len(values) for values in self.values), default=0)
        values = [(*values, *[math.nan] * (widest - len(values))) for values in self.values]
        return Batch(
            tokens_BT=tokens_BT,
            positions_BT=positions_BT,
            rows_N=torch.tensor(self.rows, dtype=torch.long),
            targets_N=torch.tensor(self.targets, dtype=torch.long),
            weights_N=torch.tensor(self.weights, dtype=torch.float32),
            owners_N=torch.tensor(self.owners, dtype=torch.long),
            labels_S=torch.tensor(self.labels, dtype=torch.long),
            spans_S2=torch.tensor(self.spans, dtype=torch.long).reshape(-1, 2),
            row_S=torch.tensor(self.row, dtype=torch.long),
            tuning_S=torch.tensor(self.tuning, dtype=torch.long),
            values_SK=torch.tensor(values, dtype=torch.float32).reshape(len(values), widest),
            tags_U=torch.tensor(self.tags, dtype=torch.long),
        )


class _Row:
    """The segments of a forest row, as they are put behind one another."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.lengths: list[int] = []
        self.paths: list[tuple[int, ...]] = []

    def put(self, tokens: Sequence[int], depth: int, path: tuple[int, ...]) -> int:
        """A segment at the end of the row, its first token at position `depth`, below the segments of `path`; its number."""
        self.tokens.extend(tokens)
        self.positions.extend(range(depth, depth + len(tokens)))
        self.lengths.append(len(tokens))
        self.paths.append(path)
        return len(self.lengths) - 1


def forest(trees: Sequence[Tree], begins: Begins = NOTHING, *, joined: bool = False, apart: Collection[int] = frozenset()) -> Batch:
    """The forest layout: every segment once, in one sequence.

    Args:
        begins: the virtual tokens of each tuning: a root that all of its trees are children of. No target, label or span counts it.
        joined: virtual tokens stand in each tree's root instead: where tokens see what is behind them, a text is one segment.
        apart: the numbers of trees that are laid out path by path: nothing is shared in them.
    """
    found, row = _Collector(), _Row()
    owned: list[tuple[int, int]] = []
    roots: dict[int, tuple[int, int]] = {}  # of each tuning with virtual tokens: their segment, and where the last of them stands
    for number, tree in enumerate(trees):
        ahead, began = begins.get(tree.tuning, ()), len(row.tokens)
        put = _put_apart if number in apart else _put
        if joined or not ahead:
            put(found, row, tree, ahead, None)
        else:
            if tree.tuning not in roots:
                roots[tree.tuning] = row.put(ahead, 0, ()), len(row.tokens) - 1
            put(found, row, tree, ahead, roots[tree.tuning])
        owned.append((tree.tuning, len(row.tokens) - began))
    filling = spare(len(row.tokens))
    if filling:
        # A token of the row and not a fixed one: some families warn where they meet a padding token and no mask.
        row.put((next(token for token in row.tokens if token >= 0),) * filling, 0, ())
        owned.append((trees[-1].tuning, filling))
    return replace(
        found.batch(torch.tensor([row.tokens], dtype=torch.long), torch.tensor([row.positions], dtype=torch.long)),
        layout=Layout(tuple(row.lengths), tuple(row.paths), filled=bool(filling)),
        lanes=_lanes(owned),
    )


def _put(found: _Collector, row: _Row, tree: Tree, ahead: tuple[int, ...], root: tuple[int, int] | None) -> None:
    """A tree at the end of a forest row, behind virtual tokens that stand in its root or in a segment of their own.

    Args:
        root: the number of that segment, and where its last token stands.
    """
    first = len(row.lengths)
    above, end = ((), None) if root is None else ((root[0],), root[1])
    lasts: list[int | None] = []  # where the last token of each segment's path stands; an empty segment passes its parent's on
    for index, segment in enumerate(tree.segments):
        own = ahead if root is None and index == 0 else ()
        start = len(row.tokens) + len(own)
        before = (start - 1 if own else end) if segment.parent is None else lasts[segment.parent]
        found.add(tree, index, start, before)
        path = tuple(first + ancestor for ancestor in tree.path(index)[:-1])
        row.put((*own, *segment.tokens) if own else segment.tokens, tree.depth(index) + len(ahead) - len(own), above + path)
        lasts.append(len(row.tokens) - 1 if segment.tokens else before)


def _put_apart(found: _Collector, row: _Row, tree: Tree, ahead: tuple[int, ...], root: tuple[int, int] | None) -> None:
    """The same, each path as a segment of its own. Targets and labels of what paths share count in the first of them."""
    above, end = ((), None) if root is None else ((root[0],), root[1])
    own = ahead if root is None else ()
    places: dict[int, tuple[int, int | None]] = {}  # segment: where it stands first, and what it continues
    for leaf in tree.leaves():
        tokens = list(own)
        for index in tree.path(leaf):
            start = len(row.tokens) + len(tokens)
            places.setdefault(index, (start, start - 1 if tokens else end))
            tokens += tree.segments[index].tokens
        row.put(tokens, len(ahead) - len(own), above)
    for index, (start, before) in sorted(places.items()):
        found.add(tree, index, start, before)


def _lanes(owned: Sequence[tuple[int, int]]) -> tuple[Lane, ...]:
    """Neighbours of one tuning as one lane, from (tuning, positions) in the order of the row.

    Raises:
        ValueError: a tuning's trees do not stand together; `Engine.collate` sorts them.
    """
    lanes: list[Lane] = []
    place = 0
    for tuning, count in owned:
        if lanes and lanes[-1].tuning == tuning:
            lanes[-1] = Lane(tuning, lanes[-1].start, place + count)
        elif any(lane.tuning == tuning for lane in lanes):
            raise ValueError(f"the trees of tuning {tuning} do not stand together")
        else:
            lanes.append(Lane(tuning, place, place + count))
        place += count
    return tuple(lanes)


def padded(trees: Sequence[Tree], pad: int, begins: Begins = NOTHING) -> Batch:
    """The padded layout: each leaf with its whole path as one sequence, behind the virtual tokens that `begins` has for its tuning.

    A segment shared by several leaves is computed once a leaf, but its targets and its label count once, as in the forest.
    """
    found = _Collector()
    sequences = [(which, tree, leaf) for which, tree in enumerate(trees) for leaf in tree.leaves()]
    longest = max(
        len(begins.get(tree.tuning, ())) + sum(len(tree.segments[index].tokens) for index in tree.path(leaf))
        for _, tree, leaf in sequences
    )
    tokens = torch.full((len(sequences), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    places: dict[tuple[int, int], tuple[int, int | None]] = {}  # (tree, segment): where it starts first, and what it continues
    for number, (which, tree, leaf) in enumerate(sequences):
        ahead = begins.get(tree.tuning, ())
        column = len(ahead)
        tokens[number, :column] = torch.tensor(ahead, dtype=torch.long)
        mask[number, :column] = 1
        for index in tree.path(leaf):
            segment = tree.segments[index]
            start = number * longest + column
            places.setdefault((which, index), (start, start - 1 if column else None))
            tokens[number, column : column + len(segment.tokens)] = torch.tensor(segment.tokens, dtype=torch.long)
            mask[number, column : column + len(segment.tokens)] = 1
            column += len(segment.tokens)
    for (which, index), (start, before) in sorted(places.items()):  # in the order of the forest layout
        found.add(trees[which], index, start, before)
    positions = torch.arange(longest).expand(len(sequences), longest)
    lanes = _lanes([(tree.tuning, longest) for _, tree, _ in sequences])
    return replace(found.batch(tokens, positions), lanes=lanes, mask_BT=mask)


def sequence_to_sequence(trees: Sequence[Tree], pad: int, start_token: int, begins: Begins = NOTHING) -> Batch:
    """The layout of encoder-decoders: a tree's root is read by the encoder, each child is written by the decoder.

    The virtual tokens that `begins` has for a tuning stand in front of the encoder's side.

    The decoder is fed the child shifted right behind `start_token`, so target j is predicted from decoder position j.
    """
    found = _Collector()
    pairs = [(tree, leaf) for tree in trees for leaf in tree.leaves()]
    if any(len(tree.path(leaf)) != 2 for tree, leaf in pairs):
        raise ValueError("an encoder-decoder reads trees of a root (encoder) with children (decoder)")
    sources = [begins.get(tree.tuning, ()) + tree.segments[0].tokens for tree, _ in pairs]
    answers = [tree.segments[leaf].tokens for tree, leaf in pairs]
    wide, long = max(map(len, sources)), max(map(len, answers))
    source = torch.full((len(pairs), wide), pad, dtype=torch.long)
    source_mask = torch.zeros_like(source)
    decoder = torch.full((len(pairs), long), pad, dtype=torch.long)
    mask = torch.zeros_like(decoder)
    for number, (tree, leaf) in enumerate(pairs):
        source[number, : len(sources[number])] = torch.tensor(sources[number], dtype=torch.long)
        source_mask[number, : len(sources[number])] = 1
        shifted = (start_token, *answers[number][:-1])
        decoder[number, : len(shifted)] = torch.tensor(shifted, dtype=torch.long)
        mask[number, : len(shifted)] = 1
        # `add` says "token at start+j is predicted from start+j-1": standing one to the right undoes the shift.
        found.add(tree, leaf, number * long + 1, number * long)
    positions = torch.arange(long).expand(len(pairs), long)
    return replace(found.batch(decoder, positions), mask_BT=mask, source_BT=source, source_mask_BT=source_mask)
