"""Trees become tensors, in one of two layouts that carry the same targets.

Shape suffixes: B sequences, T tokens of a sequence, N targets, S segments, D width, V vocabulary, H heads, L tokens of a segment.

*Forest* layout: one sequence (B = 1) that holds every segment once; `layout` tells attention who sees whom.
*Padded* layout: one sequence for each leaf, holding its whole path, padded to the longest; any transformers model can take it.
In both, target n is predicted from the hidden state at flat position `rows_N[n]` of the B*T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunewright.data.forest import Tree
from tunewright.engine.layout import Layout
from tunewright.models.lanes import Lane


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
        row_S: index of the user's row that each segment came from.
        tuning_S: the tuning of a bank that owns each segment; lanes: the flat positions of each tuning, in order.
        tuning: the tuning whose targets and labels these are; None where they are everybody's.
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
    lanes: tuple[Lane, ...] = ()
    tuning: int | None = None
    origin: Batch | None = None
    layout: Layout | None = None
    mask_BT: Tensor | None = None
    source_BT: Tensor | None = None
    source_mask_BT: Tensor | None = None

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
        return replace(
            self,
            rows_N=self.rows_N[own_N],
            targets_N=self.targets_N[own_N],
            weights_N=self.weights_N[own_N],
            owners_N=self.owners_N[own_N],
            labels_S=self.labels_S.masked_fill(~own_S, -1),
            lanes=tuple(lane for lane in self.lanes if lane.tuning == tuning),
            tuning=tuning,
            origin=self.whole,
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`."""
        if self.tokens_BT.device == device:
            return self
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


class _Collector:
    """Gathers targets and segments while sequences are laid out; shared by the layouts so that they cannot drift apart."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.owners: list[int] = []
        self.labels: list[int] = []
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
        self.spans.append((start, start + len(segment.tokens)))
        self.row.append(segment.row)
        self.tuning.append(segment.tuning)

    def batch(self, tokens_BT: Tensor, positions_BT: Tensor) -> Batch:
        """What was gathered, around the tokens it was gathered from."""
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
        )


def forest(trees: Sequence[Tree]) -> Batch:
    """The forest layout: every segment once, in one sequence."""
    found = _Collector()
    tokens: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    paths: list[tuple[int, ...]] = []
    for tree in trees:
        first = len(lengths)
        lasts: list[int | None] = []  # where the last token of each segment's path stands; an empty segment passes its parent's on
        for index, segment in enumerate(tree.segments):
            start, depth = len(tokens), tree.depth(index)
            before = None if segment.parent is None else lasts[segment.parent]
            found.add(tree, index, start, before)
            tokens.extend(segment.tokens)
            positions.extend(range(depth, depth + len(segment.tokens)))
            lengths.append(len(segment.tokens))
            paths.append(tuple(first + ancestor for ancestor in tree.path(index)[:-1]))
            lasts.append(len(tokens) - 1 if segment.tokens else before)
    return replace(
        found.batch(torch.tensor([tokens], dtype=torch.long), torch.tensor([positions], dtype=torch.long)),
        layout=Layout(tuple(lengths), tuple(paths)),
        lanes=_lanes([(tree.tuning, tree.size) for tree in trees]),
    )


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


def padded(trees: Sequence[Tree], pad: int) -> Batch:
    """The padded layout: each leaf with its whole path as one sequence.

    A segment shared by several leaves is computed once a leaf, but its targets and its label count once, as in the forest.
    """
    found = _Collector()
    sequences = [(which, tree, leaf) for which, tree in enumerate(trees) for leaf in tree.leaves()]
    longest = max(sum(len(tree.segments[index].tokens) for index in tree.path(leaf)) for _, tree, leaf in sequences)
    tokens = torch.full((len(sequences), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    places: dict[tuple[int, int], tuple[int, int | None]] = {}  # (tree, segment): where it starts first, and what it continues
    for number, (which, tree, leaf) in enumerate(sequences):
        column = 0
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


def sequence_to_sequence(trees: Sequence[Tree], pad: int, start_token: int) -> Batch:
    """The layout of encoder-decoders: a tree's root is read by the encoder, each child is written by the decoder.

    The decoder is fed the child shifted right behind `start_token`, so target j is predicted from decoder position j.
    """
    found = _Collector()
    pairs = [(tree, leaf) for tree in trees for leaf in tree.leaves()]
    if any(len(tree.path(leaf)) != 2 for tree, leaf in pairs):
        raise ValueError("an encoder-decoder reads trees of a root (encoder) with children (decoder)")
    sources = [tree.segments[0].tokens for tree, _ in pairs]
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
