import numpy as np
import pytest
from scipy.stats import binomtest

from tunewright.metrics import room
from tunewright.metrics.statistics.paired import compare, compare_means, mcnemar


def labels(rows, seed, share):
    generator = np.random.default_rng(seed)
    wanted = generator.integers(4, size=rows)
    answered = np.where(generator.random(rows) < share, wanted, generator.integers(4, size=rows))
    return [f"l{label}" for label in answered], [f"l{label}" for label in wanted]


def test_mcnemar_counts_only_changed_rows():
    base = [True] * 50 + [False] * 12 + [True] * 3
    tuned = [True] * 50 + [True] * 12 + [False] * 3
    found = mcnemar(base, tuned)
    assert found.value == pytest.approx(9 / 65)
    assert found.p == pytest.approx(binomtest(3, 15, 0.5).pvalue)
    assert found.low < found.value < found.high
    assert found.test == "exact McNemar"


def test_nothing_changed_is_no_difference_with_an_honest_interval():
    found = mcnemar([True] * 20, [True] * 20)
    assert (found.value, found.p) == (0, 1)
    assert found.low < -0.05
    assert found.high > 0.05


def test_right_or_wrong_metrics_take_mcnemar_and_others_permute():
    base, references = labels(100, 1, 0.3)
    tuned, _ = labels(100, 1, 0.9)
    assert compare(room["accuracy"](), base, tuned, references).test == "exact McNemar"
    found = compare(room["macro_f1"](), base, tuned, references)
    assert found.test == "paired permutation"
    metric = room["macro_f1"]()
    assert found.value == pytest.approx(metric.measure(tuned, references) - metric.measure(base, references))


@pytest.mark.parametrize("name", ["macro_f1", "macro_recall"])
def test_p_is_uniform_enough_without_a_difference(name):
    """Under the null, p < 0.1 in about 10 of 100 tries (150 tries: 3 standard errors are 7.3 points)."""
    hits = 0
    for seed in range(150):
        generator = np.random.default_rng(seed)
        wanted = generator.integers(3, size=60)
        base, tuned = (np.where(generator.random(60) < 0.6, wanted, generator.integers(3, size=60)) for _ in range(2))
        texts = [[str(label) for label in system] for system in (base, tuned, wanted)]
        hits += compare(room[name](), *texts, seed=seed).p < 0.1
    assert 0.02 <= hits / 150 <= 0.18


def test_means_are_weighed_by_tokens():
    found = compare_means([2.0, 4.0], [1.0, 4.0], [3, 1])
    assert found.value == pytest.approx(-0.75)
    assert found.count == 2


def test_a_clear_fall_of_loss_is_found():
    generator = np.random.default_rng(5)
    base = generator.gamma(2.0, 1.0, size=300)
    found = compare_means(base.tolist(), (base - 0.2 + generator.normal(0, 0.3, 300)).tolist())
    assert found.p == pytest.approx(1 / 2000)
    assert found.low < -0.2 < found.high < 0


def test_interval_of_the_difference_covers():
    generator = np.random.default_rng(6)
    held = 0
    for attempt in range(120):
        base = generator.normal(0, 1, 80)
        found = compare_means(base.tolist(), (base + generator.normal(0.1, 0.5, 80)).tolist(), seed=attempt)
        held += found.low <= 0.1 <= found.high
    assert 0.88 <= held / 120 <= 1.0


def test_sides_are_symmetric():
    base, references = labels(80, 2, 0.5)
    tuned, _ = labels(80, 2, 0.7)
    there, back = (compare(room["macro_f1"](), *pair, references, seed=4) for pair in ((base, tuned), (tuned, base)))
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high)


def test_unequal_rows_are_refused():
    with pytest.raises(ValueError, match="every row needs both"):
        compare(room["bleu"](), ["a"], ["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="every row needs both"):
        compare_means([1.0], [1.0, 2.0])
