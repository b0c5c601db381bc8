"""Toy work for contracts: random trees for any kind of base, an engine around a tiny model, and what it computes as one tensor."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tunewright.core.seeds import derive
from tunewright.data.forest import Segment, Tree
from tunewright.engine.attention import FOREST
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine, use_layout
from tunewright.engine.loss import Loss
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.probe import probe
from tunewright.engine.settings import AdamW
from tunewright.methods import Gradients, Method, Tuning
from tunewright.models import Model
from tunewright.models.heads import ClassificationHead
from tunewright.objectives.classification import Classification


def toy_trees(model: Model, count: int = 4, seed: int = 0) -> list[Tree]:
    """Random trees as the kind of base reads them: answers to write behind a prompt, a text to label, a source and its answer."""
    draw = random.Random(derive(seed, "toy"))

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(5, min(model.vocabulary, 260)) for _ in range(draw.randint(3, most)))

    trees = []
    for row in range(count):
        read, answer = tokens(9), tokens(6)
        if model.kind == "encoder":
            trees.append(Tree((Segment(read + answer, label=row % 2, row=row),)))
        elif model.kind == "encoder_decoder":
            trees.append(Tree((Segment(read, row=row), Segment(answer, 0, (1.0,) * len(answer), row=row))))
        else:
            trees.append(Tree((Segment(read + answer, None, (0.0,) * len(read) + (1.0,) * len(answer), row=row),)))
    return trees


def toy_engine(
    model: Model, tuning: Tuning | None = None, layout: str | None = None, layouts: Sequence[str] = Method.layouts
) -> Engine:
    """An engine as a run makes one: probed layout, a new head on an encoder, AdamW.

    Args:
        model: with whatever `tuning` has put on it.
        tuning: what is trained besides the new head; None for nothing.
        layout: `padded` to overrule the probe.
        layouts: those that the method serves.
    """
    head = None
    if model.kind == "encoder":
        head = ClassificationHead(model.width, ("no", "yes"), torch.Generator().manual_seed(0), pooling="mean")
    found = probe(model, layouts)
    parameters = (tuning.parameters() if tuning is not None else {}) | (
        {f"head.{name}": parameter for name, parameter in head.named_parameters()} if head is not None else {}
    )
    engine = Engine(model, parameters, found._replace(layout="padded") if layout == "padded" else found, head=head)
    if tuning is not None and tuning.wants_gradients:
        tuning.choose(_toy_gradients(engine))
        engine.parameters.update(tuning.parameters())
    engine.optimizer = Optimizer(AdamW(), engine.parameters) if engine.parameters else None
    if tuning is not None:
        tuning.follow(engine.first)
    return engine


def _toy_gradients(engine: Engine) -> Gradients:
    """The backward passes by which a tuning chooses what it trains, on the toy trees."""

    def made(rows: int, one_by_one: bool) -> Iterator[None]:
        trees = toy_trees(engine.model)[:rows]
        for some in [[tree] for tree in trees] if one_by_one else [trees]:
            engine.forward_backward([engine.collate(some)], toy_loss)
            yield
        engine.forget()

    return made


def toy_loss(engine: Engine, batch: Batch) -> Loss:
    """The loss that fits the toy trees: labels through a new head, else the tokens of the answers."""
    if engine.head is None:
        return engine.language_loss(batch)
    return Classification(head="new", labels=engine.head.labels).loss(engine, batch)


def train(engine: Engine, trees: Sequence[Tree], steps: int, learning_rate: float = 1e-2) -> list[float]:
    """A few real optimizer steps over all trees at once; the mean losses."""
    losses = []
    engine.model.network.train()
    for _ in range(steps):
        engine.forward_backward([engine.collate(trees)], toy_loss)
        losses.append(engine.step(learning_rate)[0])
    engine.model.network.eval()
    return losses


@torch.no_grad()
def outputs(model: Model, trees: Sequence[Tree]) -> Tensor:
    """What the network gives for each tree alone, by transformers' own forward call: logits, or an encoder's hidden states.

    The virtual tokens of tuning 0, if it has any, stand in front, and what the network gives at them is left out.
    """
    model.network.eval()
    before = "forest" if model.network.config._attn_implementation == FOREST else "padded"
    use_layout(model, "padded")
    found, ahead = [], model.lanes.begins.get(0, ())
    for tree in trees:
        tokens = torch.tensor([ahead + tree.segments[0].tokens])
        if model.kind == "encoder_decoder":
            found.append(model.network(input_ids=tokens, decoder_input_ids=torch.tensor([tree.segments[1].tokens])).logits[0])
        elif model.kind == "encoder":
            found.append(model.network(input_ids=tokens).last_hidden_state[0, len(ahead) :])
        else:
            found.append(model.network(input_ids=tokens).logits[0, len(ahead) :])
    use_layout(model, before)
    return torch.cat(found)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a part of the largest value."""
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-9))
