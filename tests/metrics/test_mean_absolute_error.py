"""Mean absolute error."""

import pytest

from tunewright.metrics.mean_absolute_error import MeanAbsoluteError

from .sets import NumberContract, as_arrays, drawn_numbers


class TestMeanAbsoluteError(NumberContract):
    metric = MeanAbsoluteError()


@pytest.mark.parametrize("targets", [1, 3])
def test_parity(targets: int):
    import numpy as np
    from sklearn.metrics import mean_absolute_error

    answers, references = drawn_numbers(50, 5, targets)
    own, right = as_arrays(answers, references)
    assert MeanAbsoluteError().measure(answers, references) == pytest.approx(
        np.mean([mean_absolute_error(a, b) for a, b in zip(right.T, own.T, strict=True)]), rel=1e-9
    )


def test_by_hand():
    """Off by 1 and by 3; an answer that is no number counts as the mean of the references, 2."""
    assert MeanAbsoluteError().measure(["1", "6"], ["2", "3"]) == 2
    assert MeanAbsoluteError().per_row(["", "3"], ["1", "3"]) == [1, 0]
    with pytest.raises(ValueError, match="every reference must hold numbers"):
        MeanAbsoluteError().measure(["1"], ["one"])
