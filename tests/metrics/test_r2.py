"""R2."""

import pytest

from tunewright.metrics.r2 import R2

from .sets import NumberContract, as_arrays, drawn_numbers


class TestR2(NumberContract):
    metric = R2()


@pytest.mark.parametrize("targets", [1, 3])
def test_parity(targets: int):
    import numpy as np
    from sklearn.metrics import r2_score

    answers, references = drawn_numbers(50, 5, targets)
    own, right = as_arrays(answers, references)
    assert R2().measure(answers, references) == pytest.approx(
        np.mean([r2_score(a, b) for a, b in zip(right.T, own.T, strict=True)]), rel=1e-9
    )


def test_by_hand():
    """Targets 1 2 3 (squares about their mean: 2), predictions 1 2 2 (squared errors: 1)."""
    assert R2().measure(["1", "2", "2"], ["1", "2", "3"]) == pytest.approx(0.5)
    assert R2().measure(["2", "2", "2"], ["1", "2", "3"]) == pytest.approx(0)
    assert R2().measure(["7", "7"], ["7", "7"]) == 1
    assert R2().measure(["7", "8"], ["7", "7"]) == 0
