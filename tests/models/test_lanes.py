"""Lanes: numbers of tunings, and which tokens are whose."""

import pytest

from tunewright.models.lanes import Lane, Lanes


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
