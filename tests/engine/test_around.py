"""What is put around a module's forward comes off again, in whatever order."""

import torch
from torch import nn

from tunewright.engine.around import Around


def plus(number: int):
    return lambda plain: lambda *inputs, **named: plain(*inputs, **named) + number


def module() -> nn.Module:
    return nn.Identity()


ZERO = torch.zeros(())


def test_it_stands_on_one_instance():
    one, other = module(), module()
    Around(one, plus(1))
    assert (int(one(ZERO)), int(other(ZERO))) == (1, 0)
    assert type(one) is nn.Identity


def test_it_comes_off_without_a_trace():
    one = module()
    Around(one, plus(1)).remove()
    assert int(one(ZERO)) == 0
    assert "forward" not in vars(one)


def test_two_come_off_from_the_top():
    one = module()
    lower = Around(one, plus(1))
    upper = Around(one, plus(10))
    assert int(one(ZERO)) == 11
    upper.remove()
    assert int(one(ZERO)) == 1
    lower.remove()
    assert "forward" not in vars(one)


def test_one_below_another_lets_everything_through_once_removed():
    one = module()
    lower = Around(one, plus(1))
    upper = Around(one, plus(10))
    lower.remove()
    assert int(one(ZERO)) == 10
    upper.remove()
    assert int(one(ZERO)) == 0


def test_what_stood_there_before_stands_there_after():
    one = module()
    stood = one.forward = one.forward
    Around(one, plus(1)).remove()
    assert vars(one)["forward"] is stood
