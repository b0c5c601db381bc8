import pytest

from tunewright.core.scores import Score
from tunewright.evaluation.report.schema import Curves, Measure, Series
from tunewright.evaluation.report.verdict import judge, outcome_of
from tunewright.metrics.statistics.paired import Difference


def measured(change, half, p, rows=500, **other):
    base, tuned = Score(0.5, 0.45, 0.55, rows), Score(0.5 + change, 0.45 + change, 0.55 + change, rows)
    found = Difference(change, change - half, change + half, p, rows, "exact McNemar")
    return Measure(**{"metric": "accuracy", "title": "Accuracy", "base": base, "tuned": tuned, "difference": found, **other})


def words(verdict):
    return " ".join((verdict.headline, *verdict.sentences)).replace("\u202f", " ")


def test_better_says_by_how_much_on_how_many_rows():
    verdict = judge([measured(0.1, 0.04, 0.0001)])
    assert verdict.outcome == "better"
    assert "Tuning helped: accuracy rose from 50.0 % to 60.0 %." in words(verdict)
    assert "+10.0 points (95 % interval +6.0 to +14.0; p < 0.001, exact McNemar test) on the same 500 test rows" in words(verdict)


def test_worse_is_said_as_plainly():
    verdict = judge([measured(-0.1, 0.04, 0.0001)])
    assert verdict.outcome == "worse"
    assert "Tuning made it worse: accuracy fell from 50.0 % to 40.0 %." in words(verdict)


def test_unclear_says_what_is_left_open():
    verdict = judge([measured(0.02, 0.05, 0.4)])
    assert verdict.outcome == "unclear"
    assert "No measurable difference" in verdict.headline
    assert "leave open anything from \u22123.0 to +7.0 points" in words(verdict)


@pytest.mark.parametrize(("half", "p"), [(0.04, 0.06), (0.2, 0.01)])
def test_test_and_interval_must_agree(half, p):
    assert outcome_of(measured(0.1, half, p)) == "unclear"


def test_lower_loss_is_better():
    loss = measured(-0.1, 0.04, 0.001, metric="loss", title="Loss a token", higher_is_better=False, percent=False)
    verdict = judge([loss])
    assert verdict.outcome == "better"
    assert "loss a token fell from 0.5 to 0.4" in words(verdict)


def test_without_a_base_nothing_is_claimed():
    verdict = judge([measured(0.1, 0.04, 0.001, base=None, difference=None)])
    assert verdict.outcome == "unmeasured"
    assert "no measured base" in verdict.headline
    assert "What tuning bought is unknown" in words(verdict)
    assert judge([]).headline == "Nothing was measured."


def test_other_measures_agree_or_are_named():
    rising, flat = measured(0.1, 0.04, 0.001), measured(0.0, 0.04, 1.0, title="Macro F1")
    assert "Macro F1 shows no measurable difference" in words(judge([rising, flat]))
    again = measured(0.1, 0.04, 0.001, title="Macro F1")
    assert "Macro F1 improved as well." in words(judge([rising, again]))


def test_forgetting_is_told():
    loss = {"title": "Loss", "split": "general text", "role": "retention", "higher_is_better": False, "percent": False}
    lost, kept = measured(0.2, 0.1, 0.001, **loss), measured(0.0, 0.1, 0.9, **loss)
    assert "It forgot something: loss on general text got worse" in words(judge([measured(0.1, 0.04, 0.001), lost]))
    assert "Nothing measurable was forgotten" in words(judge([measured(0.1, 0.04, 0.001), kept]))


def test_few_rows_and_the_stand_in_for_a_base_are_told():
    verdict = judge([measured(0.1, 0.04, 0.001, rows=40)], baseline_note="the majority label: the base has no head.")
    assert "Only 40 rows were tested" in words(verdict)
    assert "“Before” is the majority label: the base has no head." in words(verdict)
    assert "Only" not in words(judge([measured(0.1, 0.04, 0.001)]))


def curves(validation, train=(3.0, 2.0, 1.5, 1.0, 0.5)):
    steps = tuple(range(0, 50, 10))
    return Curves(
        train_loss=Series(title="Training loss", steps=steps, values=train),
        validation=(Series(title="Validation loss", steps=steps, values=validation),),
        kept_step=20,
    )


def test_a_rise_of_validation_under_falling_training_loss_is_overfitting():
    verdict = judge([measured(0.1, 0.04, 0.001)], curves((3, 2, 1.8, 2.1, 2.6)))
    assert "A sign of overfitting: after step 20" in words(verdict)
    assert "The weights of step 20 were kept." in words(verdict)


@pytest.mark.parametrize(
    ("validation", "train"),
    [
        ((3, 2, 1.8, 1.7, 1.6), (3.0, 2.0, 1.5, 1.0, 0.5)),
        ((3, 2, 1.8, 1.801, 1.802), (3.0, 2.0, 1.5, 1.0, 0.5)),
        ((3, 2, 1.8, 2.1, 2.6), (3.0, 2.0, 1.5, 5.0, 9.0)),
        ((3, None, None, None, 4), (3.0, 2.0, 1.5, 1.0, 0.5)),
    ],
)
def test_no_alarm_without_reason(validation, train):
    assert "overfitting" not in words(judge([measured(0.1, 0.04, 0.001)], curves(validation, train)))
