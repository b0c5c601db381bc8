"""The collector rests while libraries load, and everything is as before when they are there."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from tunewright.core.collector import paused, set_aside


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


class Ring:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.own = self


def test_inside_no_cycle_is_looked_for_and_afterwards_it_is():
    with paused():
        assert not gc.isenabled()
        gone = weakref.ref(Ring())
        _ = [[] for _ in range(100_000)]
        assert gone() is not None
    assert gc.isenabled()
    gc.collect()
    assert gone() is None


def test_who_had_switched_it_off_keeps_it_off():
    gc.disable()
    with paused(), paused():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_an_error_switches_it_on_again():
    with pytest.raises(ValueError, match="bad"), paused():
        raise ValueError("bad")
    assert gc.isenabled()


def test_it_decorates_a_function():
    @paused()
    def inside() -> bool:
        return gc.isenabled()

    assert [inside(), inside(), gc.isenabled()] == [False, False, True]


def test_what_was_loaded_is_set_aside_until_the_end():
    kept: list[list[int]] = []

    def load() -> None:
        assert not gc.isenabled()
        kept.extend([index] for index in range(10_000))

    with set_aside(load):
        assert gc.isenabled()
        assert gc.get_freeze_count() > 10_000
        young = Ring()
        gone = weakref.ref(young)
        del young
        gc.collect()
        assert gone() is None  # what comes afterwards is collected as ever
    assert gc.get_freeze_count() == 0
    assert len(kept) == 10_000


def test_garbage_that_was_set_aside_is_found_afterwards():
    gone = []
    with set_aside(lambda: gone.append(weakref.ref(Ring()))):
        gc.collect()
        assert gone[0]() is not None
    gc.collect()
    assert gone[0]() is None


def test_what_others_have_frozen_stays_so():
    gc.freeze()
    before = gc.get_freeze_count()
    with set_aside(lambda: None):
        assert gc.get_freeze_count() <= before
    assert gc.get_freeze_count() > 0


def _failing() -> None:
    raise ImportError("no such library")


def test_a_load_that_fails_leaves_nothing_aside():
    with pytest.raises(ImportError), set_aside(_failing):
        pass
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
