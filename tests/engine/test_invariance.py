"""The loss and its gradients do not depend on how they are computed.

The reference is written out here on its own: one padded row for each path of each tree, run through transformers' own attention,
log-softmax over all logits, and the weighted sum at the targets. It shares no code with the engine. Every *mechanism* computes
the same work in another way (another cut, another order, shared prefixes or none, ...) and has to arrive at the same loss and
gradients.

To add a mechanism, write a function `(desk) -> Result` and name it in `MECHANISMS`; in `PARTIAL` too, when it does not train all.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tunewright.data.forest import Segment, Tree
from tunewright.data.packing import cost, pack
from tunewright.engine.engine import Engine, Probed, use_layout
from tunewright.engine.fused import fuse
from tunewright.engine.loss import Loss
from tunewright.engine.members import Member
from tunewright.engine.network import LayoutName
from tunewright.engine.prefix.frozen import freeze
from tunewright.engine.probe import probe
from tunewright.engine.settings import Cache
from tunewright.models import Model
from tunewright.models.heads import ClassificationHead
from tunewright.objectives.classification import Classification
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference

# The sliding window of a family, for those that have one: narrower than some segments, wider than others.
FAMILIES: dict[str, int | None] = {"llama": None, "qwen3": None, "mistral": 12, "gemma": None, "gpt2": None, "bert": None}
LABELS = ("no", "yes")
TOLERANCE = 2e-5


class Result(NamedTuple):
    """The sum of the loss, what it was summed over, and the gradient of the sum by parameter."""

    total: float
    count: float
    gradients: dict[str, Tensor]


class Desk(NamedTuple):
    """A model, the work, and the engine that does it."""

    model: Model
    head: ClassificationHead | None
    trees: tuple[Tree, ...]
    probed: Probed

    def engine(self, layout: LayoutName | None = None) -> Engine:
        """An engine in the layout that the probe found, or in `layout`."""
        probed = self.probed if layout is None else self.probed._replace(layout=layout)
        return Engine(self.model, dict(self.parameters()), probed, head=self.head)

    def parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Everything that has a gradient."""
        own = list(self.model.network.named_parameters())
        return own + ([(f"head.{name}", one) for name, one in self.head.named_parameters()] if self.head is not None else [])

    def loss(self, engine: Engine, batch: object) -> Loss:
        """The objective that fits the model."""
        if self.head is None:
            return engine.language_loss(batch)  # type: ignore[arg-type]
        return Classification(head="new", labels=LABELS).loss(engine, batch)  # type: ignore[arg-type]

    def taken(self, total: float, count: float) -> Result:
        """The gradients as they stand, and a clean slate."""
        gradients = {name: one.grad.clone() for name, one in self.parameters() if one.grad is not None}
        for _, one in self.parameters():
            one.grad = None
        return Result(total, count, gradients)


@cache
def desk_of(family: str) -> Desk:
    """The work: single rows, pairs behind a prompt, many short options, a deep tree; for encoders labelled rows."""
    model = tiny(family)
    if FAMILIES[family] is not None:
        model.network.config.sliding_window = FAMILIES[family]
    draw = random.Random(family)

    def segment(count: int, parent: int | None = None, label: int | None = None) -> Segment:
        weights = tuple(draw.choice((0.0, 1.0, 0.5)) for _ in range(count))
        tokens = tuple(draw.randrange(5, 260) for _ in range(count))
        return Segment(tokens, parent, (0.0 if parent is None else 1.0, *weights[1:]), label=label)

    if model.kind == "encoder":
        head = ClassificationHead(model.width, LABELS, torch.Generator().manual_seed(0), pooling="mean")
        labelled = (70, 9, 9, 31, 150, 3)
        trees = tuple(Tree((Segment(segment(count).tokens, label=place % 2),)) for place, count in enumerate(labelled))
        return Desk(model, head, trees, probe(model))
    trees = (
        *(Tree((segment(count),)) for count in (80, 7, 33, 33, 2)),
        *(Tree((segment(prompt), segment(one, 0), segment(other, 0))) for prompt, one, other in ((20, 8, 8), (70, 14, 9))),
        Tree((segment(90), *(segment(count, 0) for count in (3, 2, 5, 4, 6)))),
        Tree((segment(10), segment(6, 0), segment(40, 0), segment(5, 1), segment(12, 1), segment(9, 4))),
    )
    return Desk(model, None, trees, probe(model))


@cache
def reference(family: str) -> Result:
    """The plain computation: padded paths, the model's own attention, every logit."""
    desk = desk_of(family)
    model = desk.model
    use_layout(model, "padded")
    paths = [(which, tree.path(leaf)) for which, tree in enumerate(desk.trees) for leaf in tree.leaves()]
    rows = [[token for index in path for token in desk.trees[which].segments[index].tokens] for which, path in paths]
    longest = max(map(len, rows))
    tokens_BT = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    if desk.head is not None:
        hidden = model.network(input_ids=tokens_BT, attention_mask=mask_BT).last_hidden_state
        pooled = torch.stack([states[: len(row)].mean(0) for states, row in zip(hidden, rows, strict=True)])
        logits = torch.nn.functional.linear(pooled, desk.head.output.weight, desk.head.output.bias)
        labels = torch.tensor([tree.segments[0].label for tree in desk.trees])
        total = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        total.backward()
        return desk.taken(float(total.detach()), float(len(rows)))
    logged = model.network(input_ids=tokens_BT, attention_mask=mask_BT, use_cache=False).logits.log_softmax(-1)
    total, count, counted = logged.new_zeros(()), 0.0, set()
    for row, (which, path) in enumerate(paths):
        column = 0
        for index in path:
            segment = desk.trees[which].segments[index]
            for offset, (token, weight) in enumerate(zip(segment.tokens, segment.targets, strict=True)):
                if weight and (which, index) not in counted:
                    total = total - weight * logged[row, column + offset - 1, token]
                    count += weight
            counted.add((which, index))
            column += len(segment.tokens)
    total.backward()
    return desk.taken(float(total.detach()), count)


def computed(desk: Desk, cuts: Sequence[Sequence[Tree]], layout: LayoutName | None = None) -> Result:
    """The work in micro-batches, one `forward_backward` over all of them."""
    engine = desk.engine(layout)
    engine.forward_backward([engine.collate(trees) for trees in cuts], desk.loss)
    done = engine.accumulated
    return desk.taken(done.total, done.count)


def one_batch(desk: Desk) -> Result:
    """Everything in one row."""
    return computed(desk, [desk.trees])


def one_by_one(desk: Desk) -> Result:
    """Every tree a micro-batch of its own."""
    return computed(desk, [[tree] for tree in desk.trees])


def planned(desk: Desk) -> Result:
    """Micro-batches as the planner cuts them."""
    batches = pack([cost(tree) for tree in desk.trees], token_budget=160, area_budget=20_000)
    assert len(batches) >= 2
    return computed(desk, [[desk.trees[index] for index in batch] for batch in batches])


def accumulated(desk: Desk) -> Result:
    """Several calls of `forward_backward` before the step."""
    engine = desk.engine()
    for start in range(0, len(desk.trees), 2):
        engine.forward_backward([engine.collate(desk.trees[start : start + 2])], desk.loss, seed=start)
    done = engine.accumulated
    return desk.taken(done.total, done.count)


def shuffled(desk: Desk) -> Result:
    """Another packing order."""
    order = list(desk.trees)
    random.Random(1).shuffle(order)
    assert order != list(desk.trees)
    return computed(desk, [order])


def unshared(desk: Desk) -> Result:
    """No prefix is shared: every path is a row of its own, and what stands in several counts in the first only."""
    alone = []
    for tree in desk.trees:
        counted: set[int] = set()
        for leaf in tree.leaves():
            tokens: tuple[int, ...] = ()
            weights: tuple[float, ...] = ()
            for index in tree.path(leaf):
                segment = tree.segments[index]
                tokens += segment.tokens
                weights += segment.targets if index not in counted else (0.0,) * len(segment.tokens)
                counted.add(index)
            alone.append(Tree((Segment(tokens, None, weights, label=tree.segments[leaf].label),)))
    return computed(desk, [alone])


def padded(desk: Desk) -> Result:
    """The engine's own padded layout."""
    return computed(desk, [desk.trees], layout="padded")


def upper(desk: Desk) -> set[str]:
    """The names of what the last block and a new head hold."""
    held = {id(one) for one in desk.model.blocks[-1].parameters()}
    return {name for name, one in desk.parameters() if id(one) in held or name.startswith("head.")}


@contextmanager
def trained(desk: Desk, names: set[str]) -> Iterator[None]:
    """Nothing else has a gradient inside."""
    for name, one in desk.parameters():
        one.requires_grad_(name in names)
    try:
        yield
    finally:
        for _, one in desk.parameters():
            one.requires_grad_(True)


def cached(desk: Desk) -> Result:
    """The last block is trained, and the states that enter it are read from a file; bit for bit what computing them gives."""
    cuts = [desk.trees[:3], desk.trees[3:]]
    with trained(desk, upper(desk)), tempfile.TemporaryDirectory() as folder:
        plain = computed(desk, cuts)
        engine = desk.engine()
        engine.members[0].parameters = {name: one for name, one in desk.parameters() if one.requires_grad}
        engine.prefix = freeze(engine, Cache(folder=Path(folder)))
        assert engine.prefix is not None
        for _ in range(3):  # computed and kept; compared; read
            engine.forget()
            engine.forward_backward([engine.collate(trees) for trees in cuts], desk.loss)
            done = engine.accumulated
            found = desk.taken(done.total, done.count)
            assert found.total == plain.total
            assert all(torch.equal(gradient, plain.gradients[name]) for name, gradient in found.gradients.items())
        counts = engine.prefix.counts
        assert counts.read > counts.computed / 2  # all of the last pass, and most of the second
        engine.prefix.stop("the folder goes")
    return found


def bank_of_one(desk: Desk) -> Result:
    """The work belongs to the only tuning of a bank, under a number of its own, and its loss is told by that number."""
    engine = Engine(desk.model, probed=desk.probed)
    engine.leave(0)
    member = Member(dict(desk.parameters()), head=desk.head)
    engine.join(3, member)
    batches = [engine.collate([tree.owned_by(3) for tree in trees]) for trees in (desk.trees[:2], desk.trees[2:])]
    engine.forward_backward(batches, {3: desk.loss})
    assert member.failure is None
    return desk.taken(member.accumulated.total, member.accumulated.count)


def fused(desk: Desk) -> Result:
    """Norms, gated activations, rotary embeddings and linear layers in our own operations."""
    changed = fuse(desk.model.network, sparing=True)
    try:
        return one_batch(desk)
    finally:
        changed.remove()


MECHANISMS: dict[str, Callable[[Desk], Result]] = {
    "one batch": one_batch,
    "one by one": one_by_one,
    "planned": planned,
    "accumulated": accumulated,
    "another order": shuffled,
    "no shared prefix": unshared,
    "padded": padded,
    "cached": cached,
    "bank of one": bank_of_one,
    "fused": fused,
}
PARTIAL: dict[str, Callable[[Desk], set[str]]] = {"cached": upper}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_plain_computation(family: str, mechanism: str) -> None:
    wanted = reference(family)
    if mechanism in PARTIAL:
        names = PARTIAL[mechanism](desk_of(family))
        wanted = wanted._replace(gradients={name: gradient for name, gradient in wanted.gradients.items() if name in names})
    found = MECHANISMS[mechanism](desk_of(family))
    assert found.count == pytest.approx(wanted.count)
    assert found.total == pytest.approx(wanted.total, rel=TOLERANCE)
    assert found.gradients.keys() == wanted.gradients.keys()
    for name, gradient in wanted.gradients.items():
        # A gradient that is zero but for rounding (a bias that softmax cancels) is compared with the others of the model.
        scale = max(float(gradient.abs().max()), 1e-3 * max(float(other.abs().max()) for other in wanted.gradients.values()))
        assert float((found.gradients[name] - gradient).abs().max()) <= 10 * TOLERANCE * scale, name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_forest_is_what_is_compared(family: str) -> None:
    assert desk_of(family).probed.layout == "forest"
    assert desk_of(family).engine().layout == "forest"


def test_a_wrong_window_would_be_found() -> None:
    wanted = reference("mistral")
    desk = desk_of("mistral")
    config = desk.model.network.config
    assert config.sliding_window == FAMILIES["mistral"]
    try:
        config.sliding_window = 13
        found = one_batch(desk)
    finally:
        config.sliding_window = FAMILIES["mistral"]
    assert difference(torch.tensor(found.total), torch.tensor(wanted.total)) > 10 * TOLERANCE


def test_a_leak_between_trees_would_be_found() -> None:
    desk = desk_of("llama")
    first, *others = desk.trees
    leaked = Tree((*first.segments, *(Segment(one.tokens, 0, one.targets) for one in others[0].segments)))
    found = computed(desk, [[leaked, *others[1:]]])
    assert difference(torch.tensor(found.total), torch.tensor(reference("llama").total)) > 10 * TOLERANCE
