"""A training that only ever made things worse is said to have done so."""

from types import SimpleNamespace
from typing import Any

import pytest

from tunewright.run.stages import warn_if_useless
from tunewright.training.around import Best


def warned(monitor: str, base: float, best: float, *, higher: bool = False, new_head: bool = False) -> list[str]:
    heard: list[str] = []
    shop: Any = SimpleNamespace(
        base_validation={monitor: base},
        has_new_head=new_head,
        run=SimpleNamespace(training=SimpleNamespace(learning_rate=10.0)),
        warn=heard.append,
    )
    warn_if_useless(shop, Best(monitor, higher, value=best, step=3))
    return heard


def test_a_learning_rate_that_blows_up_without_becoming_nan_is_named():
    (sentence,) = warned("loss", 6.736, 7.155)
    assert sentence.startswith("Training made validation worse from the start: loss was 6.736 for the base and 7.155 at best.")
    assert "Lower the learning rate (it was 10)" in sentence
    assert warned("accuracy", 0.9, 0.5, higher=True)


@pytest.mark.parametrize(("base", "best", "higher"), [(6.7, 2.0, False), (0.5, 0.9, True), (1.0, 1.0, False)])
def test_what_helped_or_changed_nothing_is_not_warned_about(base: float, best: float, higher: bool):
    assert warned("loss", base, best, higher=higher) == []


def test_a_new_head_has_no_base_to_be_worse_than():
    assert warned("loss", 0.7, 0.9, new_head=True) == []
