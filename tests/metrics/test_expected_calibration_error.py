"""Expected calibration error."""

import numpy as np
import pytest

from tunewright.metrics.expected_calibration_error import BINS, ExpectedCalibrationError

from .sets import ProbabilityContract, drawn_probabilities


class TestExpectedCalibrationError(ProbabilityContract):
    metric = ExpectedCalibrationError()


def plain(said: list[float], happened: list[int]) -> float:
    """The definition, bin by bin."""
    sure = [max(p, 1 - p) for p in said]
    right = [float(one == (p >= 0.5)) for p, one in zip(said, happened, strict=True)]
    total = 0.0
    for number in range(BINS):
        inside = [
            place for place, p in enumerate(sure) if number / BINS <= p < (number + 1) / BINS or (p == 1 and number == BINS - 1)
        ]
        if inside:
            total += abs(np.mean([right[i] for i in inside]) - np.mean([sure[i] for i in inside])) * len(inside)
    return total / len(said)


@pytest.mark.parametrize("seed", range(4))
def test_parity_with_its_definition(seed: int) -> None:
    said, happened = drawn_probabilities(200, seed)
    found = ExpectedCalibrationError().measure([repr(p) for p in said], [str(one) for one in happened])
    assert found == pytest.approx(plain(said, happened), rel=1e-9)


def test_by_hand() -> None:
    """Four judgements at 0.9 of which three are right are off by 0.15; two at 0.6, both right, by 0.4: (4 0.15 + 2 0.4) / 6."""
    said, happened = ["0.9", "0.9", "0.1", "0.9", "0.6", "0.4"], ["1", "1", "0", "0", "1", "0"]
    assert ExpectedCalibrationError().measure(said, happened) == pytest.approx(1.4 / 6)


def test_every_pair_of_a_ranking_counts() -> None:
    assert ExpectedCalibrationError().measure(["0.9 0.9", "0.9"], ["1 1", "0"]) == pytest.approx(abs(2 / 3 - 0.9))


def test_a_large_sample_of_true_probabilities_is_calibrated() -> None:
    draw = np.random.default_rng(0)
    said = draw.random(40000)
    happened = (draw.random(40000) < said).astype(int)
    assert ExpectedCalibrationError().measure([repr(float(p)) for p in said], [str(one) for one in happened]) < 0.01
    over = np.clip(2 * said - 0.5, 0, 1)  # the same, sure of itself
    assert ExpectedCalibrationError().measure([repr(float(p)) for p in over], [str(one) for one in happened]) > 0.1
