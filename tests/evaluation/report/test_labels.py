"""What the report says label by label and number by number."""

from tunewright.data.rows import LabelRow, LabelsRow, NumberRow, TagsRow
from tunewright.evaluation.report.charts import scatter_plot
from tunewright.evaluation.report.labels import POINTS, confusion_tables, label_report, scatter
from tunewright.evaluation.report.schema import Scatter
from tunewright.evaluation.task import Answer

SETS = [LabelsRow(text="1", labels=("a", "b")), LabelsRow(text="2", labels=("a",))]
TAGGED = [TagsRow(tokens=("x", "y", "z"), tags=("B-PER", "I-PER", "O")), TagsRow(tokens=("x",), tags=("B-LOC",))]


def test_sets_of_labels_label_by_label():
    before = [Answer('["a"]'), Answer('["a"]')]
    found = label_report("multi_label", SETS, before, [Answer('["a", "b"]'), Answer('["b"]')])
    assert found is not None
    assert found.unit == "rows"
    assert [(one.label, one.count, one.precision, one.recall, one.base_f1) for one in found.lines] == [
        ("a", 2, 1.0, 0.5, 1.0),
        ("b", 1, 0.5, 1.0, 0.0),
    ]


def test_entities_type_by_type_and_words_where_there_are_none():
    answers = [Answer("B-PER O O"), Answer("B-LOC")]
    found = label_report("token_classification", TAGGED, None, answers)
    assert found is not None
    assert found.unit == "entities"
    assert [(one.label, one.f1, one.base_f1) for one in found.lines] == [("LOC", 1.0, None), ("PER", 0.0, None)]
    words = [TagsRow(tokens=("x", "y"), tags=("N", "V"))]
    by_word = label_report("token_classification", words, None, [Answer("N N")])
    assert by_word is not None
    assert (by_word.unit, [one.label for one in by_word.lines]) == ("words", ["N", "V"])
    assert label_report("classification", [LabelRow(text="x", label="a")], None, [Answer("a")]) is None


def test_confusions_of_words():
    """A row that was refused answers nothing: its words are confused with whatever is no label."""
    found = confusion_tables("token_classification", TAGGED, [Answer("O O O"), Answer("O")], [Answer(""), Answer("B-LOC")])
    assert found is not None
    assert found.labels == ("B-LOC", "B-PER", "I-PER", "O", "(other)")
    assert found.tuned[0] == (1, 0, 0, 0, 0)
    assert [row[-1] for row in found.tuned[:4]] == [0, 1, 1, 1]
    assert confusion_tables("regression", [NumberRow(text="x", values=(1.0,))], [Answer("1")], [Answer("1")]) is None


def test_predicted_and_true_numbers():
    rows = [NumberRow(text=str(n), values=(float(n), 0.0)) for n in range(3 * POINTS)]
    found = scatter("regression", rows, [Answer(f"{n + 0.5} 1") for n in range(3 * POINTS)])
    assert found is not None
    assert len(found.wanted) == POINTS
    assert (found.wanted[1], found.answered[1]) == (3.0, 3.5)
    assert scatter("regression", rows[:1], [Answer("")]) is None
    assert scatter("classification", rows[:1], [Answer("1")]) is None


def test_the_plot_has_a_point_a_row_and_says_what_it_is():
    drawn = scatter_plot(Scatter(wanted=(1.0, 2.0, 3.0), answered=(1.5, 2.0, 9.0)))
    assert drawn.count("<circle") == 3
    assert "Predicted over true numbers of 3 rows" in drawn
    assert "true 3, predicted 9" in drawn
