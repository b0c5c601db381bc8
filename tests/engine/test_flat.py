"""Parameters in one buffer: the same identity, values and gradients as before."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import Parameter

from tunewright.engine.flat import LARGEST, Flat, fits

SHAPES = ((4, 4), (32,), (2, 8), (16, 13), (64,))


def parameters() -> dict[str, Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {f"p{index}": Parameter(torch.randn(shape, generator=generator)) for index, shape in enumerate(SHAPES)}


def test_values_identity_and_shape_stay():
    own = parameters()
    before = {name: (id(value), value.detach().clone()) for name, value in own.items()}
    flat = Flat(own)
    for name, (identity, value) in before.items():
        assert id(flat.parameters[name]) == identity
        assert torch.equal(own[name], value)
        assert own[name].requires_grad
        assert own[name].is_leaf
        assert own[name].untyped_storage().data_ptr() == flat.values.untyped_storage().data_ptr()
    with torch.no_grad():
        own["p2"].copy_(torch.full((2, 8), 7.0))
    assert (flat.values[flat.spans["p2"]] == 7).all()
    flat.values.mul_(2)
    assert (own["p2"] == 14).all()


def test_gradients_are_those_of_autograd_before_and_after_they_are_gathered():
    own, plain = parameters(), parameters()
    flat = Flat(own)

    def backward(values: dict[str, Parameter]) -> None:
        sum((value**3).sum() for name, value in values.items() if name != "p1").backward()

    for _ in range(2):  # the second pass adds to what is there
        backward(own)
        backward(plain)
    stretches = flat.gather()
    assert own["p1"].grad is None
    assert len(stretches) == 2  # on both sides of what got none
    assert sum(float((stretch**2).sum()) for stretch in stretches) == pytest.approx(
        sum(float((value.grad**2).sum()) for value in plain.values() if value.grad is not None), rel=1e-6
    )
    for stretch in stretches:
        stretch.div_(4)
    for name, value in plain.items():
        if value.grad is not None:
            value.grad.div_(4)
            assert torch.equal(own[name].grad, value.grad)
    backward(own)  # adds to the buffer itself
    backward(plain)
    again = flat.gather()
    assert [stretch.data_ptr() for stretch in again] == [stretch.data_ptr() for stretch in stretches]
    assert all(value.grad is None or torch.equal(own[name].grad, value.grad) for name, value in plain.items())


def test_what_was_dropped_does_not_come_back():
    own = parameters()
    flat = Flat(own)
    for value in own.values():
        value.grad = torch.ones_like(value)
    flat.gather()
    for value in own.values():
        value.grad = None
    assert flat.gather() == []
    own["p3"].grad = torch.full((13, 16), 2.0).T  # whatever its strides
    (stretch,) = flat.gather()
    assert stretch.shape == (208,)
    assert (stretch == 2).all()


def test_runs_are_the_longest_stretches_of_a_kind():
    flat = Flat(parameters())
    kinds = {"p0": 1, "p1": 1, "p2": None, "p3": 0, "p4": 2}
    assert [run.names for run in flat.runs(kinds.get)] == [("p0", "p1"), ("p3",), ("p4",)]
    assert [run.names for run in flat.runs(lambda name: 0)] == [tuple(kinds)]
    assert list(flat.runs(lambda name: None)) == []
    assert next(flat.runs(kinds.get)).place == slice(0, flat.spans["p1"].stop)


class Own(Tensor):
    """As tensors that are spread over devices are."""


def test_what_fits():
    assert fits(Parameter(torch.zeros(4, 4)))
    assert fits(Parameter(torch.zeros(LARGEST)))
    assert not fits(Parameter(torch.zeros(LARGEST + 16)))
    assert not fits(Parameter(torch.zeros(5, 3)))
    assert not fits(Parameter(torch.zeros(0)))
    assert not fits(Parameter(torch.zeros(16, dtype=torch.bfloat16)))
    assert not fits(Parameter(torch.zeros(8, 4).T))
    assert not fits(Parameter(torch.zeros(32)[:16]))  # others see the rest of the storage
    assert not fits(Parameter(torch.zeros(16).as_subclass(Own)))


def test_parameters_can_move_on_to_another_buffer():
    own = parameters()
    Flat(own)
    assert all(fits(value) for value in own.values())
    second = Flat({"p3": own["p3"], "p0": own["p0"]})
    assert own["p0"].untyped_storage().data_ptr() == second.values.untyped_storage().data_ptr()
    assert torch.equal(own["p0"], parameters()["p0"])


def test_a_parameter_that_left_is_noticed():
    own = parameters()
    flat = Flat(own)
    own["p1"].data = own["p1"].data.clone()
    with pytest.raises(RuntimeError, match="'p1' was given other storage"):
        flat.gather()


def test_nothing_is_a_buffer_too():
    flat = Flat({})
    assert flat.gather() == []
    assert len(flat.buffer()) == 0


def test_views_are_copied_and_saved_as_themselves(tmp_path):
    module = nn.Linear(4, 16)
    Flat(dict(module.named_parameters()))
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.weight.zero_()
    assert module.weight.any()
    save_file({name: value.detach().contiguous().cpu() for name, value in module.named_parameters()}, tmp_path / "it.safetensors")
    stored = load_file(tmp_path / "it.safetensors")
    assert (tmp_path / "it.safetensors").stat().st_size < 600
    assert all(torch.equal(stored[name], value) for name, value in module.named_parameters())
