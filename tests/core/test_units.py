"""Numbers as people read them, above all where one unit ends and the next begins."""

from __future__ import annotations

import pytest

from tunewright.core.units import bytes_text, count_text, seconds_text, share_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.4, "999 B"),
        (999.5, "1 kB"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (99_960, "100 kB"),
        (123_456, "123 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (5_300_000, "5.3 MB"),
        (999_999_999, "1 GB"),
        (999_600_000_000, "1 TB"),
        (2.5e12, "2.5 TB"),
        (5e15, "5000 TB"),
        (-5_300_000, "-5.3 MB"),
        (-999_600, "-1 MB"),
    ],
)
def test_bytes(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.6, "1 k"),
        (1500, "1.5 k"),
        (999_499, "999 k"),
        (999_500, "1 M"),
        (3_735_808, "3.74 M"),
        (7e9, "7 G"),
        (999.9e9, "1 T"),
        (1.5e16, "15000 T"),
        (-1500, "-1.5 k"),
    ],
)
def test_counts(count, text):
    assert count_text(count) == text


@pytest.mark.parametrize("text_of", [bytes_text, count_text])
def test_no_power_of_ten_shows_an_exponent_or_four_digits_below_the_largest_unit(text_of):
    for exponent in range(14):
        for factor in (0.9994, 0.9995, 0.9996, 1, 1.0004, 9.996):
            said = text_of(factor * 10**exponent)
            assert "e" not in said
            assert float(said.split()[0]) < 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (75, "1 min 15 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (7199, "1 h 59 min"),
        (360_000, "100 h 0 min"),
        (-2.5, "-2.5 s"),
    ],
)
def test_seconds(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(1, 8, "12.5 %"), (0, 5, "0 %"), (5, 5, "100 %"), (1, 0, "-"), (1, 3, "33.3 %"), (-1, 8, "-12.5 %")]
)
def test_shares(part, whole, text):
    assert share_text(part, whole) == text
