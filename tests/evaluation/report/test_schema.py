import json

import pytest
from pydantic import ValidationError

from tunewright.core.scores import Score
from tunewright.evaluation.report.schema import Cost, Measure, Report, Series, ShownRow, Targets


def test_a_report_survives_its_file(report):
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_numbers_are_written_with_their_names(label_report):
    first = json.loads(label_report.model_dump_json())["measures"][0]
    assert set(first["tuned"]) == {"value", "low", "high", "count"}
    assert set(first["difference"]) == {"value", "low", "high", "p", "count", "test"}


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_numbers_must_be_finite(broken):
    with pytest.raises(ValidationError, match="finite"):
        Measure(metric="loss", title="Loss", tuned=Score(broken, 0, 1, 3))


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="extra"):
        Measure.model_validate({"metric": "a", "title": "A", "tuned": Score(1, 1, 1, 1), "tunned": 3})


def test_broken_unicode_of_rows_is_shown_and_not_fatal():
    row = ShownRow(prompt="half \ud83d", reference="", tuned_answer="ok")
    assert row.prompt == "half ?"
    assert ShownRow.model_validate_json(row.model_dump_json()) == row


def test_derived_shares():
    assert Targets(tokens=8, trained_tokens=2).share == 0.25
    assert Targets().share == 0
    assert Cost(stages={"a": 1.5, "b": 2}, trainable_parameters=1, total_parameters=4).share == 0.25
    assert Cost(stages={"a": 1.5, "b": 2}).seconds == 3.5


def test_points_leave_out_what_was_not_measured():
    assert Series(title="x", steps=(3, 1, 2), values=(0.3, 0.1, None)).points() == [(1, 0.1), (3, 0.3)]
