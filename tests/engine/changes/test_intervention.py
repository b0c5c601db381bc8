"""Interventions against the published formulas, written out token by token; which tokens are changed; what stays orthonormal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tunewright.data.forest import Segment, Tree
from tunewright.engine.changes import DiReFTChange, LoReFTChange, NoReFTChange, Selection, Tokens, retract
from tunewright.engine.changes.intervention import orthonormal
from tunewright.methods._reft import Positions
from tunewright.methods.direft import DiReFT
from tunewright.methods.loreft import LoReFT
from tunewright.methods.noreft import NoReFT
from tunewright.models import Model
from tunewright.models.lanes import Places
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_loss, toy_trees, train

KINDS = {"loreft": LoReFTChange, "noreft": NoReFTChange, "direft": DiReFTChange}


def published(kind: str, h_D: Tensor, own: dict[str, Tensor]) -> Tensor:
    """One token, by the formulas of section 3 of the paper."""
    W, b = own["source.weight"], own["source.bias"]
    if kind == "loreft":
        Q, upper = torch.linalg.qr(own["rotation.weight"].T)
        R = (Q * upper.diagonal().sign()).T
        return h_D + R.T @ (W @ h_D + b - R @ h_D)
    W2 = own["projection.weight"]
    return h_D + W2.T @ (W @ h_D + b - (W2 @ h_D if kind == "noreft" else 0))


def published_place(place: int, length: int, first: int, last: int) -> str | None:
    """Which end of a prompt a token belongs to, as pyreft's `get_intervention_locations` cuts short prompts."""
    if place < min(first, length // 2):
        return "first"
    if place >= length - min(last, -(-length // 2)):
        return "last"
    return None


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_states_and_gradients_are_those_of_the_published_formula(kind: str, shared: bool) -> None:
    """A padded loop over texts and positions."""
    draw = torch.Generator().manual_seed(0)
    lengths, first, last, width = (9, 4, 1, 6), 2, 3, 8
    hidden_BTD = torch.randn(len(lengths), 9, width, generator=draw)
    marks = [
        (place if place < length else -1, length - 1 - place if place < length else -1) for length in lengths for place in range(9)
    ]
    places = Places(*(torch.tensor(column) for column in zip(*marks, strict=True)))
    selection = Selection(first, last)
    ends = ["both", "both"] if shared else ["first", "last"]
    changes = [KINDS[kind]((3, width), selection, end, 0.0, seed) for seed, end in enumerate(ends[: 1 if shared else 2])]
    given = hidden_BTD.clone().requires_grad_()
    found = given.flatten(0, 1)
    for change in changes:
        found = change(found, Tokens(0, 36, places, 9), found)
    weights = torch.randn(found.shape, generator=draw)
    (found * weights).sum().backward()

    owns = [
        {name: getattr(change, attribute).detach().clone().requires_grad_() for name, attribute in change.names.items()}
        for change in changes
    ]
    plain = hidden_BTD.clone().requires_grad_()
    rows = []
    for number, length in enumerate(lengths):
        for place in range(9):
            end = published_place(place, length, first, last) if place < length else None
            h_D = plain[number, place]
            rows.append(h_D if end is None else published(kind, h_D, owns[0 if shared or end == "first" else 1]))
    wanted = torch.stack(rows)
    (wanted * weights).sum().backward()
    assert difference(found, wanted) < 1e-5
    assert given.grad is not None
    assert plain.grad is not None
    assert difference(given.grad, plain.grad) < 1e-5
    for change, own in zip(changes, owns, strict=True):
        for name, attribute in change.names.items():
            gradient, theirs = getattr(change, attribute).grad, own[name].grad
            assert gradient is not None
            assert theirs is not None
            assert difference(gradient, theirs) < 1e-5, name


def test_short_prompts_are_changed_once_and_in_the_middle_where_both_ends_reach() -> None:
    for length in range(1, 12):
        places = Places(torch.arange(length), torch.arange(length).flip(0))
        tokens, device = Tokens(0, length, places, length), torch.device("cpu")
        selection = Selection(3, 4)
        first, last, both = (selection.rows(end, tokens, device).tolist() for end in ("first", "last", "both"))
        assert sorted(first + last) == both
        assert both == [place for place in range(length) if place < 3 or length - 1 - place < 4]
        assert all(place < length / 2 for place in first)


def test_without_the_engine_everything_is_prompt() -> None:
    selection = Selection(1, 1)
    assert selection.rows("both", Tokens(0, 8, None, 4), torch.device("cpu")).tolist() == [0, 3, 4, 7]
    assert selection.rows("last", Tokens(4, 8, None, 4), torch.device("cpu")).tolist() == [3]


def test_the_tokens_of_a_batch_are_looked_for_once() -> None:
    selection, places = Selection(1, 1), Places(torch.arange(3), torch.arange(3).flip(0))
    one = selection.rows("both", Tokens(0, 3, places, 3), torch.device("cpu"))
    assert selection.rows("both", Tokens(0, 3, places, 3), torch.device("cpu")) is one
    others = Places(torch.full((3,), -1), torch.full((3,), -1))
    assert selection.rows("both", Tokens(0, 3, others, 3), torch.device("cpu")).tolist() == []


def test_rotations_stay_rotations_at_any_rate() -> None:
    model = tiny("llama")
    tuning = LoReFT(rank=8, positions=Positions(first=2, last=2)).attach(model, 0)
    engine = toy_engine(model, tuning)
    train(engine, toy_trees(model), 30, learning_rate=0.3)
    for name, parameter in tuning.parameters().items():
        if name.endswith("rotation.weight"):
            assert difference(parameter @ parameter.T, torch.eye(8)) < 1e-5


def test_retracting_changes_no_number() -> None:
    change = LoReFTChange((4, 16), Selection(1, 1), "both", 0.0, 0)
    with torch.no_grad():
        change.rotation_RD.add_(0.3 * torch.randn(4, 16, generator=torch.Generator().manual_seed(1)))
    before = orthonormal(change.rotation_RD).detach()
    assert difference(before @ before.T, torch.eye(4)) < 1e-5
    retract([change])
    assert difference(change.rotation_RD, before) < 1e-6
    assert difference(orthonormal(change.rotation_RD), before) < 1e-6


def test_it_starts_as_published() -> None:
    """pyreft: an orthogonal rotation, and torch's own linear layers; none of the three starts at the base."""
    for method in (LoReFT(rank=4), NoReFT(rank=4), DiReFT(rank=4)):
        model = tiny("llama")
        trees, base = toy_trees(model), outputs(tiny("llama"), toy_trees(model))
        own = method.attach(model, 0).parameters()
        bound = model.width**-0.5
        for name, parameter in own.items():
            if name.endswith("rotation.weight"):
                assert difference(parameter @ parameter.T, torch.eye(4)) < 1e-5
            else:
                assert bound / 4 < float(parameter.detach().abs().max()) <= bound
        assert not method.starts_at_base
        assert difference(outputs(model, trees), base) > 1e-3


def test_dropout_is_of_the_changed_states_and_in_training_only() -> None:
    change = DiReFTChange((2, 64), Selection(1, 0), "both", 0.5, 0)
    places = Places(torch.arange(3), torch.arange(3).flip(0))
    hidden = torch.ones(3, 64)
    changed = change(hidden, Tokens(0, 3, places, 3), hidden)
    assert 16 < int((changed[0] == 0).sum()) < 48
    assert torch.equal(changed[1:], hidden[1:])
    change.eval()
    assert int((change(hidden, Tokens(0, 3, places, 3), hidden) == 0).sum()) == 0


@pytest.mark.parametrize(("family", "blocks"), [("llama", 2), ("t5", 2), ("bart", 2)])
def test_the_answer_itself_is_never_changed(family: str, blocks: int) -> None:
    """Written tokens and answers are no part of a prompt: with interventions at the beginning only, states behind change by
    attention alone, and those of an encoder-decoder's decoder carry nothing."""
    model: Model = tiny(family)
    tuning = LoReFT(rank=2).attach(model, 0)
    assert len(tuning.spots) == blocks
    assert not any("decoder" in path for path in tuning.spots)
    seen = []
    for spot in tuning.spots.values():
        spot.change.register_forward_hook(
            lambda module, given, _: seen.append(module._selection.rows("both", given[1], torch.device("cpu")))
        )
    engine = toy_engine(model, tuning)
    if model.kind == "decoder":
        tree = Tree((Segment(tuple(range(5, 25)), None, (0.0,) * 17 + (1.0,) * 3),))
    else:
        tree = Tree((Segment(tuple(range(5, 22))), Segment((8, 9, 10), 0, (1.0,) * 3)))
    seen.clear()
    engine.forward_backward([engine.collate([tree])], toy_loss)
    assert {tuple(rows.tolist()) for rows in seen} == {(*range(7), *range(10, 17))}
