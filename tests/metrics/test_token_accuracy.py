"""Token accuracy."""

import pytest

from tunewright.metrics.token_accuracy import TokenAccuracy

from .sets import TagContract


class TestTokenAccuracy(TagContract):
    metric = TokenAccuracy()


def test_by_hand():
    """Words count, not rows: 1 of 1 and 2 of 4; a word without an answer is wrong."""
    assert TokenAccuracy().measure(["N", "N V"], ["N", "N V N V"]) == pytest.approx(3 / 5)
    assert TokenAccuracy().measure(["N N N"], ["N"]) == 1
