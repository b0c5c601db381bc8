"""The battery every metric must pass: inherit `MetricContract`, set `metric`, and pytest runs it.

>>> class TestMine(MetricContract):
...     metric = Mine()
"""

from __future__ import annotations

import math
import random
import re
from typing import get_args

import pytest

from tunewright.metrics import Metric, MetricTask
from tunewright.metrics.statistics.intervals import score
from tunewright.metrics.statistics.paired import compare

_LABELS = ("billing", "card lost", "transfer", "Grüße")
_WORDS = (
    "the",
    "old",
    "river",
    "bends",
    "slowly",
    "past",
    "seven",
    "quiet",
    "mills",
    "where",
    "bread",
    "and",
    "news",
    "were",
    "sold",
)


class MetricContract:
    """What holds for every metric. Subclass with `metric`; a metric of texts shorter than five words may widen `rows`."""

    metric: Metric

    def rows(self, count: int = 40, seed: int = 1) -> tuple[list[str], list[str]]:
        """Answers, some of them wrong, and references of the metric's task."""
        draw = random.Random(seed)
        if self.metric.task == "label":
            references = [draw.choice(_LABELS) for _ in range(count)]
            return [draw.choice(_LABELS) if draw.random() < 0.4 else text for text in references], references
        references = [" ".join(draw.choices(_WORDS, k=draw.randint(6, 14))) for _ in range(count)]
        return [text if draw.random() < 0.5 else self._damaged(text, draw) for text in references], references

    @staticmethod
    def _damaged(text: str, draw: random.Random) -> str:
        return " ".join(draw.choice(_WORDS) if draw.random() < 0.3 else word for word in text.split())

    def test_says_what_it_is(self) -> None:
        assert re.fullmatch(r"\S.{1,28}\S", self.metric.title)
        assert self.metric.task in get_args(MetricTask)
        assert type(self.metric).__doc__

    def test_equal_answers_are_best(self) -> None:
        answers, references = self.rows()
        best, given = self.metric.measure(references, references), self.metric.measure(answers, references)
        assert best > given if self.metric.higher_is_better else best < given
        if self.metric.percent and self.metric.higher_is_better:
            assert best == pytest.approx(1.0)

    def test_shares_lie_between_0_and_1(self) -> None:
        answers, references = self.rows()
        worst = self.metric.measure(["" for _ in references], references)
        for value in (self.metric.measure(answers, references), worst):
            assert math.isfinite(value)
            assert not self.metric.percent or 0 <= value <= 1

    def test_order_of_rows_does_not_matter(self) -> None:
        answers, references = self.rows()
        turned = self.metric.measure(answers[::-1], references[::-1])
        assert turned == pytest.approx(self.metric.measure(answers, references), abs=1e-12)

    def test_per_row_averages_to_measure(self) -> None:
        answers, references = self.rows()
        values = self.metric.per_row(answers, references)
        if values is None:
            pytest.skip("not a mean over rows")
        assert len(values) == len(references)
        assert sum(values) / len(values) == pytest.approx(self.metric.measure(answers, references))

    def test_tallies_lead_to_measure(self) -> None:
        answers, references = self.rows()
        table = self.metric.tallies(answers, references)
        if table is None:
            pytest.skip("no tallies")
        counts = [row % 3 for row in range(len(references))]
        drawn = [row for row, count in enumerate(counts) for _ in range(count)]
        wanted = self.metric.measure([answers[row] for row in drawn], [references[row] for row in drawn])
        sums = (counts @ table).reshape(1, -1)
        assert self.metric.from_tallies(sums)[0] == pytest.approx(wanted)

    def test_no_rows_and_unequal_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no rows"):
            self.metric.measure([], [])
        with pytest.raises(ValueError, match="every row needs both"):
            self.metric.measure(["a"], ["a", "b"])

    def test_interval_holds_the_value(self) -> None:
        answers, references = self.rows()
        found = score(self.metric, answers, references, seed=3)
        assert found.low < found.value < found.high
        assert found == score(self.metric, answers, references, seed=3)

    def test_comparison_knows_the_better(self) -> None:
        answers, references = self.rows()
        difference = compare(self.metric, answers, references, references, seed=3)
        assert (difference.value > 0) == self.metric.higher_is_better
        assert difference.p < 0.01
        same = compare(self.metric, answers, answers, references, seed=3)
        assert (same.value, same.p) == (0, 1)
