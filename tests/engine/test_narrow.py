"""A narrowed last block gives the same loss and the same gradients, in both layouts, with and without tunings attached."""

from __future__ import annotations

import pytest
import torch

from tunewright.core.seeds import derive
from tunewright.data.forest import Segment, Tree
from tunewright.engine import batch as layouts
from tunewright.engine.linear import LoRAAdapter, load_on
from tunewright.engine.narrow import WORTH_IT, Narrow, recurring
from tunewright.engine.network import use_layout
from tunewright.models import Model
from tunewright.models.lanes import Lane
from tunewright.models.sites import linear_layers, roles
from tunewright.testing.tiny import VOCABULARY, tiny

ORDINARY = ("llama", "qwen3", "gemma", "gemma2", "gpt2", "phi3", "olmo2", "gpt_neox", "opt", "bert", "modernbert", "distilbert")


def trees() -> list[Tree]:
    return [
        Tree((Segment(tuple(range(5, 5 + count)), None, (0.0,) * (count - 3) + (1.0,) * 3),)) for count in (9, 14, 11)
    ]  # 9 targets of 34 tokens


def batch_of(layout: str) -> layouts.Batch:
    return layouts.forest(trees()) if layout == "forest" else layouts.padded(trees(), 0)


def hidden_of(model: Model, batch: layouts.Batch) -> torch.Tensor:
    if batch.layout is not None:
        output = model.body(input_ids=batch.tokens_BT, position_ids=batch.positions_BT, forest=batch.layout)
    else:
        output = model.body(input_ids=batch.tokens_BT, attention_mask=batch.mask_BT)
    return output.last_hidden_state.flatten(0, 1)


def loss_and_gradients(model: Model, narrow: Narrow, batch: layouts.Batch, rows: torch.Tensor | None):
    model.network.zero_grad()
    with narrow.to(rows):
        hidden = hidden_of(model, batch)
    loss = (hidden[batch.rows_N] * torch.linspace(-1, 1, hidden.shape[1])).square().sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, hidden.detach()


def assert_same(one, other) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        difference = (gradient - other[1][name]).abs().max()
        # a bias before a softmax has a gradient of zero, of which only noise is left
        assert difference <= 2e-5 * max(float(gradient.abs().max()), 1e-2 * max(float(g.abs().max()) for g in one[1].values())), (
            name
        )
    assert torch.isfinite(other[2]).all()


@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("family", ORDINARY)
def test_loss_and_gradients_are_those_of_the_whole_block(family: str, layout: str):
    model = tiny(family)
    if layout == "forest" and family == "opt":
        pytest.skip("OPT takes the padded layout only")
    use_layout(model, layout)  # type: ignore[arg-type]
    batch, narrow = batch_of(layout), Narrow(model)
    rows = batch.rows_N.unique()
    assert len(rows) < WORTH_IT * batch.tokens_BT.numel()
    whole, narrowed = (loss_and_gradients(model, narrow, batch, asked) for asked in (None, rows))
    assert_same(whole, narrowed)
    unread = torch.ones(len(whole[2]), dtype=torch.bool).index_fill(0, rows, False)
    assert not torch.allclose(whole[2][unread], narrowed[2][unread])  # it was narrowed indeed


def carry(model: Model, tunings: int, names: set[str] | None = None) -> None:
    known = roles(model.network)
    model.network.requires_grad_(False)
    for tuning in range(tunings):
        adapters = {}
        for path, layer in linear_layers(model.network).items():
            if names is None or names & set(known[path]):
                adapter = LoRAAdapter(layer, 2, 1.5, 0.0, derive(0, path, tuning))
                torch.nn.init.normal_(adapter.B_OR, std=0.1, generator=torch.Generator().manual_seed(tuning))
                adapters[path] = adapter
        model.lanes.open()
        load_on(model.network, model.lanes, tuning, adapters)


@pytest.mark.parametrize("names", [None, {"attention.query"}, {"mlp.down"}])
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "bert"])
def test_attached_adapters_are_narrowed_with_their_layers(family: str, names: set[str] | None):
    model = tiny(family)
    narrow = Narrow(model)
    carry(model, 1, names)
    use_layout(model, "forest")
    batch = batch_of("forest")
    whole, narrowed = (loss_and_gradients(model, narrow, batch, asked) for asked in (None, batch.rows_N.unique()))
    assert whole[1]
    assert_same(whole, narrowed)


@pytest.mark.parametrize("cut", [(9, 23, 34), (9, 9, 34), (1, 33, 34)])
def test_lanes_are_counted_in_rows(cut: tuple[int, ...]):
    """Each tuning changes its own tokens, also where a lane is empty or has no row that is asked for."""
    model = tiny("llama")
    carry(model, 3)
    use_layout(model, "forest")
    batch, narrow = batch_of("forest"), Narrow(model)
    lanes = tuple(Lane(tuning, start, stop) for tuning, (start, stop) in enumerate(zip((0, *cut[:-1]), cut, strict=True)))
    with model.lanes.during(lanes):
        whole, narrowed = (loss_and_gradients(model, narrow, batch, asked) for asked in (None, batch.rows_N.unique()))
        assert model.lanes.runs == lanes
    for tuned in (whole, narrowed):  # a tuning without rows has no gradient or one of zeros
        for name in [name for name, gradient in tuned[1].items() if not gradient.any()]:
            del tuned[1][name]
    assert_same(whole, narrowed)


@pytest.mark.parametrize(("read", "number"), [(255, 255), (256, 256), (257, 288), (1000, 1024), (1025, 1088), (1090, 1091)])
def test_the_number_of_rows_recurs(read: int, number: int):
    """Long lists are filled up with rows that nobody asked for, as far as there are any."""
    positions = max(number, 1091)
    asked = torch.randperm(positions, generator=torch.Generator().manual_seed(0))[:read]
    rows = recurring(torch.cat([asked, asked[:5]]), positions)
    assert len(rows) == number
    assert rows.equal(rows.unique())
    assert set(asked.tolist()) <= set(rows.tolist())


@pytest.mark.parametrize(("names", "narrowed"), [(None, False), ({"attention.query"}, True)])
def test_a_query_that_is_computed_with_key_and_value_stays_whole(names: set[str] | None, narrowed: bool):
    model = tiny("llama")
    carry(model, 1, names)
    query = model.network.get_submodule("model.layers.1.self_attn.q_proj")
    with Narrow(model).to(torch.arange(3)):
        assert ("forward" in vars(query)) == narrowed


def test_many_rows_are_not_worth_it():
    model = tiny("llama")
    use_layout(model, "forest")
    batch, narrow = batch_of("forest"), Narrow(model)
    with torch.no_grad():
        whole = hidden_of(model, batch)
        with narrow.to(torch.arange(31)):
            assert torch.equal(hidden_of(model, batch), whole)


def test_nothing_stays_on_the_network():
    model = tiny("llama")
    narrow = Narrow(model)
    tokens = torch.tensor([[5, 6, 7, VOCABULARY]])  # the last one is none, so the pass is broken off
    with narrow.to(torch.arange(2)):
        assert "forward" in vars(model.network.get_submodule("model.layers.1.mlp.down_proj"))
    with pytest.raises(IndexError), narrow.to(torch.arange(2)):
        model.body(input_ids=tokens)
    assert not any("forward" in vars(module) for module in model.network.modules())


@pytest.mark.parametrize("family", ["mixtral", "t5", "bart"])
def test_unusual_blocks_are_left_alone(family: str):
    assert Narrow(tiny(family)).parts == {}


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_agreement_is_measured(family: str):
    model = tiny(family)
    use_layout(model, "forest")
    batch, narrow = batch_of("forest"), Narrow(model)
    assert narrow.agrees(lambda: hidden_of(model, batch))
    assert len(narrow.parts) >= 4


def test_a_block_that_runs_more_than_once_is_found_out():
    """Families that share one block (ALBERT) would lose what the next round reads."""
    model = tiny("bert")
    layers = model.body.get_submodule("encoder.layer")
    assert isinstance(layers, torch.nn.ModuleList)
    layers[0] = layers[1]
    use_layout(model, "forest")
    batch, narrow = batch_of("forest"), Narrow(model)
    assert not narrow.agrees(lambda: hidden_of(model, batch))
    with narrow.to(torch.arange(3)), torch.no_grad():
        assert torch.isfinite(hidden_of(model, batch)).all()
    assert narrow.parts == {}
