"""Macro F1 of tags."""

import pytest

from tunewright.metrics.token_macro_f1 import TokenMacroF1

from .sets import TagContract, drawn_tags


class TestTokenMacroF1(TagContract):
    metric = TokenMacroF1()


def test_parity_with_scikit_learn_over_words():
    from sklearn.metrics import f1_score

    answers, references = drawn_tags(40, 6)
    own, right = (" ".join(side).split() for side in (answers, references))
    assert TokenMacroF1().measure(answers, references) == pytest.approx(f1_score(right, own, average="macro", zero_division=0))


def test_a_word_without_an_answer_is_wrong():
    """N: 1 hit, 1 answered, 1 wanted; V: wanted once; nothing: answered once. (1 + 0 + 0) / 3."""
    assert TokenMacroF1().measure(["N"], ["N V"]) == pytest.approx(1 / 3)
