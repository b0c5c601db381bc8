"""Which layout a model takes is never assumed: packed segments are compared with the same segments run alone.

Families that ignore positions, use their own attention or add biases to it run without an error and are silently wrong in a
packed row; the comparison finds them, and the padded layout takes over.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from tunewright.core.seeds import derive
from tunewright.data.forest import Segment, Tree
from tunewright.engine.attention import ForestUnsupportedError
from tunewright.engine.engine import Engine, Probed, use_layout
from tunewright.models import Model

TOLERANCE = 2e-4  # of the largest value; float32 reordering gives 1e-6, a leak 1e-1


def probe(model: Model, layouts: Sequence[str] = ("forest",)) -> Probed:
    """Compare a small forest with its segments run alone, on `model` as it stands; the network is left in the layout chosen.

    Args:
        layouts: those that the tuning on the model serves (`Method.layouts`); without "forest" among them, rows are padded.
    """
    if model.kind == "encoder_decoder":
        return Probed("sequence_to_sequence", 0, 0.0, False, "encoder-decoders are trained padded, with the model's own head")
    trees = _trees(model)
    was_training = model.network.training
    model.network.eval()
    try:
        found = _compare(model, trees) if "forest" in layouts else _held(model, trees)
        engine = Engine(model, probed=found)
        batch = engine.collate(trees)
        return found._replace(narrows=engine.narrow.agrees(lambda: engine.hidden(batch)))
    finally:
        model.network.train(was_training)


@torch.no_grad()
def _held(model: Model, trees: list[Tree]) -> Probed:
    """Padded, whatever the base would take: the method asks for it."""
    padded = Engine(model, probed=Probed("padded"))
    own_head = model.kind == "encoder" or _difference(_own(padded, trees[0]), _outputs(padded, [trees[0]])) <= TOLERANCE
    return Probed("padded", 0, float("inf"), own_head, "the method asks for it, so rows are padded")


@torch.no_grad()
def _compare(model: Model, trees: list[Tree]) -> Probed:
    padded = Engine(model, probed=Probed("padded"))
    alone = [_outputs(padded, [tree]) for tree in trees]
    own_head = model.kind == "encoder" or _difference(_own(padded, trees[0]), alone[0]) <= TOLERANCE
    pad = model.tokenizer.pad_token_id
    offsets = [0, pad + 1] if model.kind == "encoder" and isinstance(pad, int) else [0]
    best = Probed("padded", 0, float("inf"), own_head, "")
    for offset in offsets:
        try:
            packed = _outputs(Engine(model, probed=Probed("forest", offset)), trees)
        except (ForestUnsupportedError, TypeError, LookupError, AttributeError, RuntimeError, ValueError) as error:
            # Whatever an architecture objects to, it objects to the layout; the padded one is what it was written for.
            reason = f"the packed layout is not supported ({type(error).__name__}: {str(error)[:120]})"
            use_layout(model, "padded")
            return Probed("padded", 0, float("inf"), own_head, reason)
        difference = _difference(packed, torch.cat(alone))
        if difference < best.difference and best.difference > TOLERANCE:  # of two that serve, the plain one
            best = Probed("forest", offset, difference, own_head, f"packed = alone within {difference:.1e}")
    if best.difference <= TOLERANCE:
        use_layout(model, "forest")
        return best
    use_layout(model, "padded")
    return Probed("padded", 0, best.difference, own_head, f"packed differs from alone by {best.difference:.1e}, so rows are padded")


def _outputs(engine: Engine, trees: list[Tree]) -> Tensor:
    """What is compared: logits at targets of a decoder, hidden states of an encoder; float32."""
    batch = engine.collate(trees)
    if engine.model.kind == "encoder":
        hidden = engine.hidden(batch)
        return torch.cat([hidden[start:end] for start, end in batch.spans_S2.tolist()]).float()
    return engine.target_logits(batch).float()


def _own(engine: Engine, tree: Tree) -> Tensor:
    batch = engine.collate([tree])
    assert engine.language_head is not None
    return engine.language_head.logits(engine.hidden(batch)[batch.rows_N]).float()


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-9))


def _trees(model: Model) -> list[Tree]:
    """A few short random trees; decoders also get a shared prefix with two children."""
    draw = random.Random(derive(0, "probe"))
    context = model.context or 4096

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, model.vocabulary) for _ in range(min(count, context // 2)))

    def segment(count: int, parent: int | None = None) -> Segment:
        drawn = tokens(count)
        return Segment(drawn, parent, (0.0 if parent is None else 1.0, *[1.0] * (len(drawn) - 1)))

    # A segment longer than a narrow sliding window, so that the window is compared too; wide ones would cost seconds.
    window = model.network.config.get_text_config().to_dict().get("sliding_window") or 0
    trees = [Tree((segment(count),)) for count in (7, 12, 3, *([window + 9] if 0 < window <= 512 else []))]
    if model.kind == "decoder":
        # targets on the root too would be compared once in the forest and once alone: the same number, as they are counted once
        trees.append(Tree((segment(9), segment(5, 0), segment(7, 0))))
    return trees
