"""Root mean squared error."""

import pytest

from tunewright.metrics.root_mean_squared_error import RootMeanSquaredError

from .sets import NumberContract, as_arrays, drawn_numbers


class TestRootMeanSquaredError(NumberContract):
    metric = RootMeanSquaredError()


@pytest.mark.parametrize("targets", [1, 3])
def test_parity(targets: int):
    import numpy as np
    from sklearn.metrics import root_mean_squared_error

    answers, references = drawn_numbers(50, 5, targets)
    own, right = as_arrays(answers, references)
    assert RootMeanSquaredError().measure(answers, references) == pytest.approx(
        np.mean([root_mean_squared_error(a, b) for a, b in zip(right.T, own.T, strict=True)]), rel=1e-9
    )


def test_by_hand():
    """Off by 1 and by 7: the root of 50 / 2."""
    assert RootMeanSquaredError().measure(["1", "10"], ["2", "3"]) == pytest.approx(5)
