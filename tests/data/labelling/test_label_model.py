"""The label model: what it recovers from votes of known accuracy, and that it is what it says it is."""

import math

import numpy as np
import pytest

from tunewright.core.errors import ConfigurationError
from tunewright.data.labelling.label_model import best_N, fit, kind_for, majority_NC
from tunewright.data.labelling.settings import LabelModel
from tunewright.data.labelling.votes import ABSTAIN, Votes

NAMES = ("f", "g", "h", "i", "j")


def synthetic(
    accuracies: tuple[float, ...], balance: tuple[float, ...], coverage: float = 0.6, rows: int = 4000
) -> tuple[Votes, np.ndarray]:
    """Votes of functions that err independently, and the labels that they are about."""
    draw = np.random.default_rng(0)
    classes = len(balance)
    truth_N = draw.choice(classes, size=rows, p=balance)
    votes_NF = np.full((rows, len(accuracies)), ABSTAIN)
    for place, accuracy in enumerate(accuracies):
        wrong_N = (truth_N + draw.integers(1, classes, size=rows)) % classes
        given_N = np.where(draw.random(rows) < accuracy, truth_N, wrong_N)
        votes_NF[:, place] = np.where(draw.random(rows) < coverage, given_N, ABSTAIN)
    return Votes(NAMES[: len(accuracies)], tuple("abcd"[:classes]), votes_NF), truth_N


def keyword_like(rows: int = 12000) -> tuple[Votes, np.ndarray, list[float]]:
    """Functions that give one label each, fire on few rows and more often where it is right; and how often each is right."""
    draw = np.random.default_rng(1)
    truth_N = draw.integers(0, 2, size=rows)
    rates = ((0, 0.30, 0.04), (0, 0.20, 0.08), (1, 0.25, 0.05), (1, 0.30, 0.10), (1, 0.15, 0.02))
    votes_NF = np.full((rows, len(rates)), ABSTAIN)
    accuracies = []
    for place, (label, hit, miss) in enumerate(rates):
        fires_N = draw.random(rows) < np.where(truth_N == label, hit, miss)
        votes_NF[fires_N, place] = label
        accuracies.append(float((truth_N[fires_N] == label).mean()))
    return Votes(NAMES, ("no", "yes"), votes_NF), truth_N, accuracies


def right(votes: Votes, probabilities_NC: np.ndarray, truth_N: np.ndarray) -> float:
    covered_N = votes.covered_N()
    return float((best_N(probabilities_NC, votes) == truth_N)[covered_N].mean())


@pytest.mark.parametrize("kind", ["symmetric", "class_conditional"])
@pytest.mark.parametrize("balance", [(0.5, 0.5), (0.5, 0.3, 0.2)])
def test_known_accuracies_are_recovered_without_a_label(kind: str, balance: tuple[float, ...]):
    wanted = (0.9, 0.8, 0.7, 0.6, 0.85)
    votes, truth_N = synthetic(wanted, balance)
    found = fit(votes, LabelModel(accuracies=kind, balance="estimated"))
    assert found.converged
    assert [found.accuracies[name] for name in NAMES] == pytest.approx(wanted, abs=0.05)
    assert found.balance == pytest.approx(balance, abs=0.05)
    assert right(votes, found.probabilities_NC(votes), truth_N) > right(votes, majority_NC(votes), truth_N) + 0.01


def test_rules_of_one_label_are_recovered_by_when_they_fire():
    votes, truth_N, wanted = keyword_like()
    found = fit(votes, LabelModel())
    assert found.kind == "class_conditional"
    assert [found.accuracies[name] for name in NAMES] == pytest.approx(wanted, abs=0.05)
    assert right(votes, found.probabilities_NC(votes), truth_N) >= right(votes, majority_NC(votes), truth_N)


def test_probabilities_mean_what_they_say():
    votes, truth_N, _ = keyword_like()
    probabilities_NC = fit(votes, LabelModel()).probabilities_NC(votes)
    assert probabilities_NC.sum(axis=1) == pytest.approx(1)
    likely_N = probabilities_NC.max(axis=1)
    hit_N = probabilities_NC.argmax(axis=1) == truth_N
    for low, high in ((0.6, 0.8), (0.8, 0.95), (0.95, 1.0)):
        inside_N = votes.covered_N() & (likely_N > low) & (likely_N <= high)
        assert hit_N[inside_N].mean() == pytest.approx(likely_N[inside_N].mean(), abs=0.06)


def test_two_votes_by_hand():
    """Equal shares, and functions that are right with 0.9 and 0.6: p(a) = 0.9 * 0.4 / (0.9 * 0.4 + 0.1 * 0.6) = 6/7."""
    votes, _ = synthetic((0.9, 0.6, 0.75), (0.5, 0.5))
    found = fit(votes, LabelModel(steps=1))
    log_FCO = np.log(np.array([[[accuracy, 1 - accuracy, 1], [1 - accuracy, accuracy, 1]] for accuracy in (0.9, 0.6, 0.75)]))
    fixed = type(found)(found.labels, (0.5, 0.5), found.accuracies, found.kind, log_FCO, 1, converged=True)
    rows = Votes(votes.names, votes.labels, np.array([[0, 1, -1], [-1, -1, -1], [0, 0, -1]]))
    assert fixed.probabilities_NC(rows)[:, 0].tolist() == pytest.approx([6 / 7, 0.5, 0.9 * 0.6 / (0.9 * 0.6 + 0.1 * 0.4)])


def test_the_prior_by_hand():
    """One step from the majority vote: f and g agree on 2 of 3 rows: (1 + 1 + 1/2 + 10 * 0.7) / (3 + 10)."""
    votes = Votes(("f", "g"), ("a", "b"), np.array([[0, 0], [1, 1], [0, 1]]))
    found = fit(votes, LabelModel(steps=1))
    assert not found.converged
    accuracy = (2.5 + 7) / 13
    sure = accuracy**2 / (accuracy**2 + (1 - accuracy) ** 2)
    assert found.accuracies["f"] == pytest.approx((2 * sure + 0.5 + 7) / 13)


def test_the_order_of_rows_and_of_functions_does_not_matter():
    votes, _ = synthetic((0.9, 0.6, 0.75), (0.6, 0.4), rows=300)
    found = fit(votes, LabelModel())
    turned = Votes(votes.names[::-1], votes.labels, votes.votes_NF[::-1, ::-1])
    again = fit(turned, LabelModel())
    assert again.accuracies == pytest.approx(dict(found.accuracies))
    assert fit(votes, LabelModel()).accuracies == found.accuracies
    assert again.probabilities_NC(turned)[::-1] == pytest.approx(found.probabilities_NC(votes))


def test_a_silent_function_says_nothing_and_is_believed_as_before():
    votes, _ = synthetic((0.9, 0.6, 0.75), (0.5, 0.5), rows=300)
    silent = np.full((300, 1), ABSTAIN)
    more = Votes((*votes.names, "s"), votes.labels, np.hstack([votes.votes_NF, silent]))
    for kind in ("symmetric", "class_conditional"):
        settings = LabelModel(accuracies=kind)
        found = fit(more, settings)
        assert found.accuracies["s"] == pytest.approx(0.7)
        assert found.probabilities_NC(more) == pytest.approx(fit(votes, settings).probabilities_NC(votes))


def test_majority_shares_and_ties():
    votes = Votes(("f", "g", "h"), ("a", "b"), np.array([[0, 1, -1], [1, 1, 0], [-1, -1, -1], [1, -1, -1]]))
    assert majority_NC(votes).tolist() == [[0.5, 0.5], [pytest.approx(1 / 3), pytest.approx(2 / 3)], [0.5, 0.5], [0, 1]]
    assert best_N(majority_NC(votes), votes).tolist() == [1, 1, 1, 1]


def test_what_is_estimated_follows_the_votes():
    one, several = np.array([[0, 1], [0, -1]]), np.array([[0, 1], [1, 0]])
    assert kind_for(Votes(("f", "g"), ("a", "b"), one), LabelModel()) == "class_conditional"
    assert kind_for(Votes(("f", "g"), ("a", "b"), several), LabelModel()) == "symmetric"
    with pytest.raises(ConfigurationError, match=r"model.accuracies: every function gives one label only.*class_conditional"):
        fit(Votes(("f", "g"), ("a", "b"), one), LabelModel(accuracies="symmetric"))


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        ({"a": 0.5, "c": 0.5}, r"model.balance: no function gives the label 'c'"),
        ({"a": 1.0}, r"model.balance: says nothing of the label 'b'"),
    ],
)
def test_shares_for_other_labels(balance: dict[str, float], message: str):
    with pytest.raises(ConfigurationError, match=message):
        fit(Votes(("f",), ("a", "b"), np.array([[0], [1]])), LabelModel(balance=balance))


def test_given_shares_pull_a_tie():
    votes = Votes(("f", "g"), ("a", "b"), np.array([[0, 1], [1, 0]] * 20))
    found = fit(votes, LabelModel(balance={"a": 0.2, "b": 0.8}))
    assert found.probabilities_NC(votes)[:, 1] == pytest.approx(0.8)
    assert math.isclose(sum(found.balance), 1)


def test_one_label_is_no_choice():
    with pytest.raises(ConfigurationError, match=r"two labels are needed, the functions give only 'a'"):
        fit(Votes(("f",), ("a",), np.array([[0]])), LabelModel())
