"""Brier score."""

import pytest

from tunewright.metrics.brier_score import BrierScore

from .sets import ProbabilityContract, drawn_probabilities


class TestBrierScore(ProbabilityContract):
    metric = BrierScore()


@pytest.mark.parametrize("seed", range(3))
def test_parity(seed: int) -> None:
    from sklearn.metrics import brier_score_loss

    said, happened = drawn_probabilities(150, seed)
    found = BrierScore().measure([repr(p) for p in said], [str(one) for one in happened])
    assert found == pytest.approx(brier_score_loss(happened, said), rel=1e-9)


def test_by_hand() -> None:
    """(0.1^2 + 0.2^2 + 0.5^2) / 3; what is no probability says nothing."""
    assert BrierScore().measure(["0.9 0.2", "perhaps"], ["1 0", "1"]) == pytest.approx(0.3 / 3)
    for wrong in ("1.2", "-0.1", "nan", "0.4 0.6", ""):
        assert BrierScore().measure([wrong], ["1"]) == 0.25


@pytest.mark.parametrize("reference", ["", "0.5", "yes", "2"])
def test_what_happened_is_one_or_zero(reference: str) -> None:
    with pytest.raises(ValueError, match="is 0 or 1"):
        BrierScore().measure(["0.5"], [reference])
