import pytest
from sklearn.metrics import confusion_matrix

from tunewright.metrics.statistics.confusion import OTHER, confusion, label_order


def test_is_scikit_learns_matrix():
    references, answers = list("aabbccca"), list("abbbccaa")
    found = confusion(answers, references)
    assert [list(row) for row in found.matrix] == confusion_matrix(references, answers, labels=list(found.labels)).tolist()


def test_labels_are_in_the_order_of_people():
    assert label_order(["step 10", "step 2", "Apple", "banana"]) == ("Apple", "banana", "step 2", "step 10")


def test_free_answers_share_one_place():
    labels = label_order(["yes", "no"], ["I would say yes", "no"], ["yes", "no"])
    assert labels == ("no", "yes", OTHER)
    found = confusion(["I would say yes", "no"], ["yes", "no"], labels)
    assert found.matrix == ((1, 0, 0), (0, 0, 1), (0, 0, 0))


def test_an_answer_without_a_place_is_refused():
    with pytest.raises(ValueError, match="'maybe' is not among the 2 labels"):
        confusion(["maybe"], ["yes"], ["no", "yes"])
