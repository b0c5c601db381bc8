"""R-Drop against plain computations: two passes, the mean of their losses, and half of both divergences at the targets."""

import math

import pytest
import torch
from torch import Tensor, nn

from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Segment, Tree
from tunewright.engine.batch import forest
from tunewright.engine.engine import Engine
from tunewright.engine.loss import Loss
from tunewright.engine.members import Member
from tunewright.engine.symmetric import symmetric_kl
from tunewright.methods.full import Full
from tunewright.methods.head import Head as HeadMethod
from tunewright.methods.lora import LoRA
from tunewright.models.heads import room as heads
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees
from tunewright.training.aids.r_drop import HEADS, RDrop, divergence, drops, listening


def ready(family: str, layout: str | None = None, **settings) -> tuple[Engine, list[Tree]]:
    """A LoRA away from its start, with dropout."""
    model = tiny(family)
    engine = toy_engine(model, LoRA(rank=4, dropout=0.4, **settings).attach(model, 0), layout)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in engine.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    engine.training()
    return engine, toy_trees(model, 5)


@pytest.mark.parametrize(("family", "layout"), [("llama", "forest"), ("llama", "padded"), ("gemma2", "forest"), ("t5", None)])
def test_two_passes_of_a_language_model(family: str, layout: str | None):
    """The same draws again, the logits whole, the formula in torch's own operations."""
    engine, trees = ready(family, layout)
    batch = engine.collate(trees)
    torch.manual_seed(11)
    found = RDrop(toy_loss, 0.7)(engine, batch)
    torch.manual_seed(11)
    with listening(engine, batch) as heard:
        losses = [toy_loss(engine, batch), toy_loss(engine, batch)]
    assert not torch.equal(*heard.outputs)
    logits = [one[batch.rows_N] for one in heard.outputs]
    logits = logits if family == "t5" else [engine.language_head.logits(one) for one in logits]
    wanted = (losses[0].total + losses[1].total) / 2 + 0.7 * (symmetric_kl(*logits) * batch.weights_N).sum()
    assert found.total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert float(found.count) == float(batch.weights_N.sum())
    found.total.backward()
    assert all(one.grad is not None and torch.isfinite(one.grad).all() for one in engine.parameters.values())


def test_labels_by_a_new_head():
    engine, trees = ready("bert")
    engine.head.dropout = 0.3
    batch = engine.collate(trees)
    torch.manual_seed(5)
    found = RDrop(toy_loss, 2.0)(engine, batch)
    torch.manual_seed(5)
    one, other = (engine.label_logits(batch) for _ in range(2))
    cross = [nn.functional.cross_entropy(logits, batch.labels_S, reduction="sum") for logits in (one, other)]
    p, q = one.softmax(1), other.softmax(1)
    kl = (p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)
    assert found.total.item() == pytest.approx(((cross[0] + cross[1]) / 2 + 2.0 * kl.sum() / 2).item(), rel=1e-5)
    assert float(found.count) == len(trees)


def test_rows_of_a_preference_count_one_each():
    """Two pairs with 3 and 5 answer tokens: weights 1/3 and 1/5, whatever the tokens' own."""
    engine, _ = ready("llama")
    one = Tree((Segment((5, 6)), Segment((7,), 0, (0.5,)), Segment((8, 9), 0, (1.0, 1.0))))
    two = Tree((Segment((5, 9), row=1), Segment((10, 11), 0, (1.0,) * 2, row=1), Segment((12, 13, 14), 0, (1.0,) * 3, row=1)))
    batch = engine.collate([one, two])
    generator = torch.Generator().manual_seed(0)
    passes = tuple(torch.randn(batch.tokens_BT.numel(), 32, generator=generator) for _ in range(2))
    found = divergence(engine, batch, passes, by_row=True)
    apart = symmetric_kl(*(engine.language_head.logits(states[batch.rows_N]) for states in passes))
    torch.testing.assert_close(found, apart[:3].mean() + apart[3:].mean())


def test_passes_of_the_base_are_not_listened_to():
    engine, trees = ready("llama")
    batch = engine.collate(trees)

    def loss(engine: Engine, batch) -> Loss:
        found = engine.language_loss(batch)
        with torch.no_grad(), engine.first.disabled():
            engine.language_loss(batch)
        return found

    torch.manual_seed(3)
    aided = RDrop(loss, 1.0)(engine, batch)
    assert aided.total.item() > 0
    with listening(engine, batch) as heard:
        loss(engine, batch)
    assert len(heard.outputs) == 1


def test_how_a_step_is_cut_does_not_matter():
    """Passes that differ in a known way (every other one with a change of half the size) in place of dropout."""
    engine, trees = ready("llama")
    engine.model.network.eval()
    layers = [module for module in engine.model.network.modules() if hasattr(module, "scale") and hasattr(module, "drop")]
    calls = []

    def loss(engine: Engine, batch) -> Loss:
        calls.append(batch)
        for layer in layers:
            layer.scale *= 0.5 if len(calls) % 2 else 2.0
        return toy_loss(engine, batch)

    sums = []
    for cut in ([trees], [trees[:2], trees[2:]], [[tree] for tree in trees]):
        engine.forward_backward([engine.collate(part) for part in cut], RDrop(loss, 0.5))
        gradient = torch.cat([one.grad.flatten() for one in engine.parameters.values()])
        sums.append((engine.accumulated.total, engine.accumulated.count, gradient))
        engine.forget()
    for total, count, gradient in sums[1:]:
        assert (total, count) == pytest.approx(sums[0][:2], rel=1e-5)
        assert float((gradient - sums[0][2]).abs().max()) < 1e-5 * float(sums[0][2].abs().max())


# ---- heads, by hand -----------------------------------------------------------------------------------------------------------


def of_segments(*segments: Segment):
    return forest([Tree((segment,)) for segment in segments])


HALF = math.log(3) / 8  # J of softmax (ln 3, 0) and (0, 0): see tests/engine/test_symmetric.py
LN3 = math.log(3)


def test_each_label_of_a_set_is_a_coin():
    """sigmoid(ln 3) = 3/4 against 1/2: J = (3/4 - 1/2) ln 3 / 2; the last label is unknown and does not count."""
    batch = of_segments(Segment((5,), values=(1.0, 0.0, math.nan)))
    found = HEADS["multi_label"](batch, torch.tensor([[LN3, 0.0, 9.0]]), torch.zeros(1, 3))
    assert float(found) == pytest.approx(HALF)


def test_numbers_by_their_squared_difference():
    batch = of_segments(Segment((5,), values=(1.0, 2.0)), Segment((6,), values=(1.0, math.nan)))
    found = HEADS["regression"](batch, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.5, 2.0], [1.0, 9.0]]))
    assert float(found) == pytest.approx(0.25 + 4.0)


def test_tags_where_there_are_some():
    batch = of_segments(Segment((5, 6, 7), tags=(-1, 0, 1)))
    one = torch.tensor([[7.0, 0.0], [LN3, 0.0], [0.0, LN3]])
    assert float(HEADS["token_classification"](batch, one, torch.zeros(3, 2))) == pytest.approx(2 * HALF)


def test_labels_with_and_without_certainty():
    batch = of_segments(Segment((5,), label=1), Segment((6,), values=(0.5, 0.5)), Segment((7,)))
    one = torch.tensor([[LN3, 0.0], [0.0, LN3], [5.0, 0.0]])
    assert float(HEADS["classification"](batch, one, torch.zeros(3, 2))) == pytest.approx(2 * HALF)


def test_spans_among_the_tokens_that_may_be_one():
    """Starts differ by (ln 3, 0) and ends not at all, so their mean is half of J; the first token may be neither."""
    batch = of_segments(Segment((5, 6, 7), tags=(-1, 1, 2)), Segment((8,)))
    one = torch.tensor([[9.0, 9.0], [LN3, 1.0], [0.0, 1.0], [5.0, 5.0]])
    found = HEADS["question_answering"](batch, one, torch.zeros(4, 2))
    assert float(found) == pytest.approx(HALF / 2)


def test_rewards_by_which_answer_is_the_best():
    answers = (Segment((6,), 0, (1.0,)), Segment((7,), 0, (1.0,)))
    others = (Segment((6,), 0, (1.0,), row=1), Segment((7,), 0, (1.0,), row=1))
    batch = forest([Tree((Segment((5,)), *answers)), Tree((Segment((5,), row=1), *others))])
    one = torch.tensor([[LN3 + 2], [2.0], [4.0], [4.0]])
    assert float(HEADS["reward"](batch, one, torch.zeros(4, 1))) == pytest.approx(HALF)


# ---- where it makes no sense --------------------------------------------------------------------------------------------------


def test_every_head_is_compared_or_refused():
    assert set(heads.names()) - set(HEADS) == {"value"}
    engine, trees = ready("bert")
    engine.members[0] = Member(engine.parameters, head=heads["value"](32, ("value",), torch.Generator()))
    batch = engine.collate(trees)
    with pytest.raises(ConfigurationError, match=r"training.aids.r_drop: there is no divergence for a head of the kind 'value'"):
        divergence(engine, batch, (torch.zeros(1), torch.zeros(1)))


def test_tunings_that_share_a_pass_are_refused():
    engine, trees = ready("llama")
    batch = engine.collate(trees)
    with engine.sharing(batch):
        engine.hidden_at(batch, batch.rows_N)
        with pytest.raises(ValueError, match="two of its own, and tunings that share a bank share one"):
            RDrop(toy_loss, 1.0)(engine, batch)


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_what_drops_out_is_found(rate: float):
    for family in ("llama", "bert", "t5"):
        model = tiny(family)
        assert drops(toy_engine(model, LoRA(rank=2, dropout=rate).attach(model, 0))) == (rate > 0)
    engine = toy_engine(model := tiny("bert"), Full().attach(model, 0))
    engine.head.dropout = rate
    assert drops(engine) == (rate > 0)


def test_dropout_below_what_is_trained_is_none():
    """Blocks below the cut run without dropout: their output is a constant of the row."""
    model = tiny("llama")
    model.blocks[0].self_attn.attention_dropout = 0.5
    assert drops(toy_engine(model, Full().attach(model, 0)))
    assert not drops(toy_engine(model, HeadMethod().attach(model, 0)))


def test_a_class_of_numbers_is_not_mistaken_for_a_rate():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop_last, self.rate = True, 0.5

    model = tiny("llama")
    model.network.add_module("named", Named())
    assert not drops(toy_engine(model, Full().attach(model, 0)))


def test_passes_are_tensors() -> None:
    engine, trees = ready("llama")
    batch = engine.collate(trees)
    with listening(engine, batch) as heard:
        toy_loss(engine, batch)
    (states,) = heard.outputs
    assert isinstance(states, Tensor)
    assert states.shape == (batch.tokens_BT.numel(), 32)
