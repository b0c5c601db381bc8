"""From answers to numbers: quick ones while training, measures with intervals at the end."""

import math
from dataclasses import replace

import pytest

from tunewright.core.errors import UnknownNameError
from tunewright.data.rows import LabelRow, PromptRow, QuestionRow, Row, TextRow
from tunewright.evaluation.measuring import LOSS, direction, in_percent, mean_loss, measures, quick, retained, title
from tunewright.evaluation.task import Answer

ROWS: list[Row] = [PromptRow(prompt=f"ask {number}", completion=f"answer {number}") for number in range(6)]
RIGHT = [Answer(f"answer {number}", 1.0, 10) for number in range(6)]
WRONG = [Answer("no idea", 3.0, 10) for _ in range(6)]


def test_the_mean_loss_is_one_of_tokens_and_not_of_rows():
    answers = [Answer(None, 1.0, 30), Answer(None, 5.0, 10), Answer("", None, 0)]
    assert mean_loss(answers) == pytest.approx((30 * 1.0 + 10 * 5.0) / 40)
    assert mean_loss([Answer("x"), Answer(None)]) is None
    assert mean_loss([]) is None


def test_quick_numbers_are_loss_and_metrics_of_what_was_written():
    answers = [*RIGHT[:3], Answer("no", 2.0, 30), Answer(None, 1.0, 1), Answer(None)]
    found = quick(answers, ROWS, ["exact_match"])
    assert found == {"loss": pytest.approx((30 + 60 + 1) / 61), "exact_match": pytest.approx(0.75)}


def test_quick_leaves_out_what_nothing_was_measured_on():
    assert quick([Answer(None, 2.0, 5)] * 6, ROWS, ["exact_match"]) == {"loss": 2.0}
    assert quick([Answer("answer 0")], ROWS[:1], ["exact_match"]) == {"exact_match": 1.0}
    assert quick([], [], ["exact_match"]) == {}


def test_direction():
    assert not direction(LOSS)
    assert direction("accuracy")
    with pytest.raises(UnknownNameError, match="accuracy"):
        direction("acuracy")


def test_measures_with_a_base_compare_on_the_same_rows():
    match, loss = measures(["exact_match"], WRONG, RIGHT, ROWS, seed=0)
    assert (match.metric, match.title, match.split, match.percent) == ("exact_match", "Exact match", "test", True)
    assert match.base is not None
    assert match.difference is not None
    assert (match.base.value, match.tuned.value, match.difference.value) == (0, 1, 1)
    assert match.base.count == match.tuned.count == match.difference.count == 6
    assert match.tuned.low < 1  # six right answers do not show that all answers would be right
    assert (loss.metric, loss.title, loss.higher_is_better, loss.percent) == ("loss", "Loss per token", False, False)
    assert loss.base is not None
    assert loss.difference is not None
    assert (loss.base.value, loss.tuned.value, loss.difference.value) == (3, 1, -2)


def test_measures_without_a_base_have_nothing_to_compare_with():
    for found in measures(["exact_match", "bleu"], None, RIGHT, ROWS, seed=0, split="general text"):
        assert found.base is None
        assert found.difference is None
        assert found.split == "general text"


def test_metrics_look_at_rows_that_were_written_and_have_a_reference():
    rows: list[Row] = [*ROWS[:2], TextRow(text="no reference"), PromptRow(prompt="x", completion="")]
    answers = [RIGHT[0], Answer(None, 1.0, 4), Answer("made up", 2.0, 4), Answer("made up", None, 0)]
    match, loss = measures(["exact_match"], None, answers, rows, seed=0)
    assert (match.tuned.value, match.tuned.count) == (1.0, 1)
    assert (loss.tuned.value, loss.tuned.count) == (pytest.approx((10 + 4 + 8) / 18), 3)


def test_an_answer_that_the_base_did_not_give_counts_as_wrong():
    (match,) = measures(["exact_match"], [Answer(None)] * 2, [Answer("answer 0"), Answer("answer 1")], ROWS[:2], seed=0)
    assert match.base is not None
    assert match.base.value == 0


def test_without_written_answers_only_the_loss_is_measured():
    found = measures(["exact_match"], None, [Answer(None, 1.5, 3)] * 6, ROWS, seed=0)
    assert [measure.metric for measure in found] == [LOSS]
    assert measures(["exact_match"], None, [Answer(None)] * 6, ROWS, seed=0) == []


def test_the_final_loss_weighs_rows_by_their_tokens():
    before, after = [Answer(None, 4.0, 90), Answer(None, 2.0, 10)], [Answer(None, 1.0, 90), Answer(None, 3.0, 10)]
    loss, perplexity = measures([], before, after, ROWS[:2], seed=0)
    for found, of in ((loss, float), (perplexity, math.exp)):
        assert found.base is not None
        assert found.difference is not None
        assert (found.base.value, found.tuned.value) == (pytest.approx(of(3.8)), pytest.approx(of(1.2)))
        assert found.difference.value == pytest.approx(of(1.2) - of(3.8))
        assert found.tuned.low <= found.tuned.value <= found.tuned.high


def test_what_was_found_of_hidden_words_is_a_share_of_tokens():
    before = [Answer(None, 4.0, 9, scores={"masked_accuracy": 0.0}), Answer(None, 2.0, 1, scores={"masked_accuracy": 1.0})]
    after = [Answer(None, 4.0, 9, scores={"masked_accuracy": 1.0}), Answer(None, 2.0, 1, scores={"masked_accuracy": 0.0})]
    rows: list[Row] = [TextRow(text="nine tokens"), TextRow(text="one")]
    loss, perplexity, share = measures([], before, after, rows, seed=0)
    assert [one.metric for one in (loss, perplexity, share)] == [LOSS, "perplexity", "masked_accuracy"]
    assert share.base is not None
    assert (share.base.value, share.tuned.value) == (pytest.approx(0.1), pytest.approx(0.9))
    assert share.percent
    assert quick(after, rows, []) == {LOSS: pytest.approx(3.8), "masked_accuracy": pytest.approx(0.9)}
    assert direction("masked_accuracy")
    assert title("masked_accuracy") == "Accuracy at hidden words"
    assert in_percent("masked_accuracy")


def test_what_was_not_to_be_lost_is_told_by_its_loss():
    answers = [Answer(None, 1.5, 3)] * 6
    (kept,) = retained(measures([], answers, answers, ROWS, seed=0), "general text")
    assert (kept.metric, kept.role, kept.split) == (LOSS, "retention", "general text")


def test_a_baseline_without_losses_has_none_to_compare():
    rows: list[Row] = [LabelRow(text="x", label="a"), LabelRow(text="y", label="b")]
    accuracy, loss = measures(["accuracy"], [Answer("a")] * 2, [Answer("a", 0.1, 1), Answer("b", 0.3, 1)], rows, seed=0)
    assert accuracy.difference is not None
    assert accuracy.difference.value == 0.5
    assert loss.title == "Loss"  # one label a row: nothing is counted by tokens
    assert loss.base is None
    assert loss.difference is None


def test_the_seed_decides_the_interval():
    answers = [Answer(None, float(number), number + 1) for number in range(6)]
    one, again = (measures([], None, answers, ROWS, seed=3)[0].tuned for _ in range(2))
    other = measures([], None, answers, ROWS, seed=4)[0].tuned
    assert one == again
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)


def test_of_several_accepted_answers_the_nearest_counts():
    """SQuAD's rule, for each side on its own: before it came near to the first answer, now it is the second one whole."""
    row = QuestionRow(question="who?", context="ann or big ann", answers=("big ann", "ann or"), starts=(7, 0))
    rows = [row, replace(row, answers=("ann",), starts=(0,))]
    before, after = [Answer("ann"), Answer("ann")], [Answer("ann or"), Answer("")]
    exact, shared = measures(["squad_exact_match", "token_f1"], before, after, rows, seed=0)
    assert (exact.base.value, exact.tuned.value) == (0.5, 0.5)
    assert (exact.difference.value, exact.difference.test) == (0, "exact McNemar")
    assert shared.base.value == pytest.approx((2 / 3 + 1) / 2)
    assert shared.tuned.value == 0.5
    assert quick(after, rows, ["token_f1"]) == {"token_f1": 0.5}


def test_no_answer_is_compared_where_it_is_the_right_one():
    row = QuestionRow(question="why?", context="ann ran", answers=(), starts=())
    (found,) = measures(["squad_exact_match"], None, [Answer(""), Answer("ann")], [row, row], seed=0)
    assert (found.tuned.value, found.tuned.count) == (0.5, 2)
