"""Votes and what they come to: failures, hidden labels, and the counts by hand."""

import numpy as np
import pytest

from tunewright.core.errors import DataError
from tunewright.data.labelling.analysis import alike, analyse
from tunewright.data.labelling.functions import LabellingFunction
from tunewright.data.labelling.votes import ABSTAIN, Votes, relabelled, unlabelled, vote
from tunewright.data.rows import LabelRow, PromptRow, TextRow

ROWS = [TextRow(text=text, where=f"a:{number}") for number, text in enumerate(("a", "ab", "b", "c"), start=1)]


def has(letter: str, label: str) -> LabellingFunction:
    return LabellingFunction(letter, lambda row: label if letter in row.text else None)


def test_votes_stand_by_row_and_function():
    found = vote([has("a", "yes"), has("b", "no"), has("z", "no")], ROWS)
    assert found.labels == ("no", "yes")
    assert found.votes_NF.tolist() == [[1, -1, -1], [1, 0, -1], [-1, 0, -1], [-1, -1, -1]]
    assert found.counts_NC().tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]
    assert found.covered_N().tolist() == [True, True, True, False]


def test_labels_of_rules_count_although_they_never_vote():
    silent = LabellingFunction("s", lambda row: None, labels=("maybe",))
    assert vote([has("a", "yes"), silent], ROWS).labels == ("maybe", "yes")


def test_no_function_sees_the_label():
    seen = []
    spy = LabellingFunction("spy", lambda row: seen.append((row.label, row.second_text, row.metadata)))
    vote([spy], [LabelRow(text="x", second_text="y", label="secret", metadata={"id": 1})])
    assert seen == [("", "y", {"id": 1})]


def test_a_pair_without_a_label_is_a_pair():
    found = unlabelled(TextRow(text="x", metadata={"second_text": "y", "id": 1}))
    assert (found.second_text, found.metadata) == ("y", {"id": 1})


def test_rows_that_are_no_texts_are_refused():
    with pytest.raises(DataError, match=r"f:1: a row of shape 'prompt_completion' is no text to label.*--columns"):
        vote([has("a", "x")], [PromptRow(prompt="a", completion="b", where="f:1")])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (1, r"gave 1 (int); it should give a label as text, or None"),
        (" ", r"gave ' ' (str); it should give a label as text, or None"),
        ("yess", r"gave 'yess', which is not among the labels (did you mean 'yes'?)"),
    ],
)
def test_what_is_no_label_abstains_and_is_told(given: object, problem: str):
    odd = LabellingFunction("odd", lambda row: given if row.text == "c" else None)
    found = vote([odd], ROWS, ("no", "yes"))
    assert (found.votes_NF == ABSTAIN).all()
    assert [tuple(one) for one in found.failures] == [("odd", "a:4", problem)]


def test_a_function_that_raises_abstains_there_and_votes_elsewhere(capsys: pytest.CaptureFixture[str]):
    def loud(row: LabelRow) -> str:
        print("loud")
        return {"a": "yes"}[row.text]

    found = vote([LabellingFunction("loud", loud)], ROWS)
    assert found.votes_NF[:, 0].tolist() == [0, -1, -1, -1]
    assert [one.problem for one in found.failures] == ["raised KeyError: 'ab'", "raised KeyError: 'b'", "raised KeyError: 'c'"]
    assert capsys.readouterr().out == ""
    conduct = analyse(found).functions[0]
    assert (conduct.failures, conduct.first_failure) == (3, "a:2: raised KeyError: 'ab'")


def test_the_counts_by_hand():
    """Rows a, ab, b, c; `a` says yes on a and ab, `b` says no on ab and b, `ab` says yes on ab, `z` nothing.

    Any vote: a, ab, b = 3/4. Two or more: ab = 1/4, and there yes and no meet.
    """
    functions = [has("a", "yes"), has("b", "no"), has("ab", "yes"), has("z", "no")]
    found = analyse(vote(functions, ROWS), vote(functions, ROWS[:3]), ("yes", "no", "no"))
    assert found[:4] == (4, 0.75, 0.25, 0.25)
    assert found.silent() == ["z"]
    rows = [(one.name, one.polarity, one.votes, one.coverage, one.overlaps, one.conflicts) for one in found.functions]
    assert rows == [
        ("a", ("yes",), 2, 0.5, 0.25, 0.25),
        ("b", ("no",), 2, 0.5, 0.25, 0.25),
        ("ab", ("yes",), 1, 0.25, 0.25, 0.25),
        ("z", (), 0, 0.0, 0.0, 0.0),
    ]
    assert [(one.right, one.judged) for one in found.functions] == [(1, 2), (2, 2), (0, 1), (0, 0)]


def test_agreeing_votes_overlap_and_do_not_conflict():
    found = analyse(Votes(("f", "g"), ("x", "y"), np.array([[0, 0], [0, -1], [-1, -1], [1, 0]])))
    assert found[1:4] == (0.75, 0.5, 0.25)
    assert [one.conflicts for one in found.functions] == [0.25, 0.25]
    assert found.functions[0].polarity == ("x", "y")


def test_copies_are_found():
    column = [0, 1] * 6
    votes_NF = np.array([column, column, [0] * 12, [-1] * 12, [-1] * 12]).T
    assert alike(Votes(("f", "copy", "g", "h", "i"), ("x", "y"), votes_NF)) == [("f", "copy")]


def test_labels_in_another_order():
    votes = Votes(("f", "g"), ("x", "y"), np.array([[0, -1], [1, 0]]))
    assert relabelled(votes, ("y", "w", "x")).votes_NF.tolist() == [[2, -1], [0, 2]]
