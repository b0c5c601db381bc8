import pytest

from tunewright.evaluation.report.wording import p_text, plain, signed, value_text


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [(0.9123, True, "91.2\u202f%"), (-0.05, True, "\u22125.0\u202f%"), (2.34567, False, "2.346"), (3.1e-6, False, "3.10e\u221206")],
)
def test_values(value, percent, text):
    assert value_text(value, percent) == text


@pytest.mark.parametrize(
    ("value", "percent", "text"), [(0.081, True, "+8.1"), (-0.0002, True, "0.0"), (-0.2, False, "\u22120.2"), (0, False, "0")]
)
def test_differences_carry_their_sign(value, percent, text):
    assert signed(value, percent) == text


def test_p_never_claims_more_than_resampling_shows():
    assert [p_text(p) for p in (0.0005, 0.0312, 0.5)] == ["p < 0.001", "p = 0.031", "p = 0.50"]


def test_zero_is_zero():
    assert plain(0) == "0"
