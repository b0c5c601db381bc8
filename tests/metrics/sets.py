"""Random sets of labels, numbers and tags for the metrics that measure them."""

import json
import random
from collections.abc import Sequence

import numpy as np

from tunewright.testing.metric_contract import MetricContract

LABELS = ("billing", "card, lost", "Grüße", "transfer")
TAGS = ("B-PER", "I-PER", "B-LOC", "I-LOC", "O")


def drawn_sets(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Answers, some labels of which are wrong, and references."""
    draw = random.Random(seed)
    wanted = [{label for label in LABELS if draw.random() < 0.4} for _ in range(count)]
    given = [{label for label in LABELS if (label in own) != (draw.random() < 0.2)} for own in wanted]
    return [json.dumps(sorted(own)) for own in given], [json.dumps(sorted(own)) for own in wanted]


def binarised(answers: Sequence[str], references: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sets as the indicator matrices of scikit-learn."""
    from sklearn.preprocessing import MultiLabelBinarizer

    sides = [[json.loads(text) for text in side] for side in (answers, references)]
    made = MultiLabelBinarizer().fit([*sides[0], *sides[1]])
    return made.transform(sides[0]), made.transform(sides[1])


def drawn_numbers(count: int, seed: int, targets: int = 1) -> tuple[list[str], list[str]]:
    """Predictions that come near to their targets, about 1,000 so that rounding would show."""
    draw = random.Random(seed)
    wanted = [[1000 + draw.gauss(0, 3) for _ in range(targets)] for _ in range(count)]
    given = [[value + draw.gauss(0.5, 1) for value in row] for row in wanted]
    return [" ".join(map(repr, row)) for row in given], [" ".join(map(repr, row)) for row in wanted]


def as_arrays(answers: Sequence[str], references: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Texts of numbers as arrays."""
    return np.array([text.split() for text in answers], float), np.array([text.split() for text in references], float)


def drawn_tags(count: int, seed: int, labels: Sequence[str] = TAGS) -> tuple[list[str], list[str]]:
    """Tags of sentences, some of them answered wrongly."""
    draw = random.Random(seed)
    wanted = [draw.choices(labels, k=draw.randint(3, 9)) for _ in range(count)]
    given = [[draw.choice(labels) if draw.random() < 0.3 else tag for tag in row] for row in wanted]
    return [" ".join(row) for row in given], [" ".join(row) for row in wanted]


class SetContract(MetricContract):
    """The contract over sets of labels."""

    def rows(self, count: int = 40, seed: int = 1) -> tuple[list[str], list[str]]:
        return drawn_sets(count, seed)


class NumberContract(MetricContract):
    """The contract over numbers."""

    def rows(self, count: int = 40, seed: int = 1) -> tuple[list[str], list[str]]:
        return drawn_numbers(count, seed)


class TagContract(MetricContract):
    """The contract over tags."""

    def rows(self, count: int = 40, seed: int = 1) -> tuple[list[str], list[str]]:
        return drawn_tags(count, seed)


def drawn_probabilities(count: int, seed: int) -> tuple[list[float], list[int]]:
    """Probabilities that are a little too sure, and what happened."""
    draw = random.Random(seed)
    truth = [draw.random() for _ in range(count)]
    return [min(1.0, max(0.0, 1.4 * p - 0.2)) for p in truth], [int(draw.random() < p) for p in truth]


class ProbabilityContract(MetricContract):
    """The contract over probabilities."""

    def rows(self, count: int = 40, seed: int = 1) -> tuple[list[str], list[str]]:
        said, happened = drawn_probabilities(count, seed)
        return [repr(p) for p in said], [str(one) for one in happened]
