"""Spearman's correlation."""

import pytest

from tunewright.metrics.spearman import Spearman

from .sets import NumberContract, as_arrays, drawn_numbers


class TestSpearman(NumberContract):
    metric = Spearman()


@pytest.mark.parametrize("targets", [1, 3])
def test_parity(targets: int):
    import numpy as np
    from scipy.stats import spearmanr

    answers, references = drawn_numbers(50, 5, targets)
    own, right = as_arrays(answers, references)
    assert Spearman().measure(answers, references) == pytest.approx(
        np.mean([spearmanr(a, b)[0] for a, b in zip(right.T, own.T, strict=True)]), rel=1e-9
    )


def test_by_hand():
    """Only the order counts; equal values share their mean rank: ranks 1.5 1.5 3 and 1 2 3 correlate at the root of 3/4."""
    assert Spearman().measure(["1", "10", "1000"], ["1", "2", "3"]) == pytest.approx(1)
    assert Spearman().measure(["5", "5", "9"], ["1", "2", "3"]) == pytest.approx(0.75**0.5)
    assert Spearman().measure(["5", "5", "5"], ["1", "2", "3"]) == 0


def test_ranks_of_a_draw_are_those_of_the_drawn_rows():
    """Rows counted as often as they are drawn: the same as measuring the drawn rows, ties and rows left out included."""
    import numpy as np

    answers, references = drawn_numbers(30, 7)
    answers = [str(round(float(text))) for text in answers]
    counts = np.array([row % 3 for row in range(30)])
    drawn = np.repeat(np.arange(30), counts)
    wanted = Spearman().measure([answers[row] for row in drawn], [references[row] for row in drawn])
    assert Spearman().by_counts(answers, references)(counts[None, :].astype(float))[0] == pytest.approx(wanted)
