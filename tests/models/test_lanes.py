"""Lanes: numbers of tunings, and which tokens are whose."""

import pytest
import torch

from tunewright.models.lanes import Lane, Lanes, Standing


def test_numbers_are_given_from_the_lowest_and_again_after_leaving():
    lanes = Lanes()
    assert [lanes.open(), lanes.open(), lanes.open()] == [0, 1, 2]
    lanes.close(1)
    assert lanes.members == (0, 2)
    assert lanes.open() == 1
    with pytest.raises(KeyError):
        lanes.close(7)


def test_runs_hold_inside_their_context_only_even_when_it_fails():
    lanes = Lanes()
    with lanes.during([Lane(0, 0, 5)]):
        with pytest.raises(RuntimeError), lanes.during([Lane(1, 0, 3), Lane(2, 3, 5)]):  # noqa: PT012 - the context is what is tested
            assert [run.tuning for run in lanes.runs] == [1, 2]
            raise RuntimeError
        assert lanes.runs == (Lane(0, 0, 5),)
    assert lanes.runs == ()


def test_parts_of_one_tuning_share_its_number_until_the_last_has_left():
    lanes = Lanes()
    assert lanes.open() == 0
    slot = lanes.open()
    with lanes.joined(slot):
        assert [lanes.open(), lanes.open()] == [1, 1]
    assert lanes.open() == 2
    lanes.begins[slot], lanes.edges[slot] = (-4097,), 3
    lanes.keyed.add(slot)
    for _ in range(2):
        lanes.close(slot)
        assert lanes.members == (0, 1, 2)
        assert slot in lanes.begins
    lanes.close(slot)
    assert lanes.members == (0, 2)
    assert (lanes.begins, lanes.edges, lanes.keyed) == ({}, {}, set())


def test_what_stands_is_put_back_after_a_pass():
    lanes = Lanes()
    one = Standing(0, *(torch.zeros(1, dtype=torch.long) for _ in range(3)), None)
    with lanes.during([]):
        lanes.standing = (one,)
        with lanes.during([Lane(0, 0, 1)]):
            assert lanes.standing == (one,)
        with lanes.during([], standing=()):
            assert lanes.standing == ()
        assert lanes.standing == (one,)
    assert lanes.standing == ()
