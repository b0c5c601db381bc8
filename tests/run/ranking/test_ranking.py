"""Ranking by hand without a screen: which questions are asked, how answers are given and taken back, and what they say."""

from __future__ import annotations

from collections import Counter

import pytest

from tunewright.core.errors import DataError
from tunewright.metrics.statistics.intervals import wilson
from tunewright.run.ranking import APART, CHOICES, MIRRORED, Question, Ranking, questions_of, tally
from tunewright.run.ranking.candidates import Answer, Asked, Candidates


def asked(number: int, *texts: str) -> Asked:
    names = [f"model {place}" for place in range(len(texts))]
    return Asked(f"prompt {number}", tuple(Answer(text, name) for text, name in zip(texts, names, strict=True)))


def candidates(count: int, answers: int = 2) -> Candidates:
    return Candidates(tuple(asked(number, *(f"answer {place} to {number}" for place in range(answers))) for number in range(count)))


def ids(questions: tuple[Question, ...]) -> list[str]:
    return [one.id for one in questions]


def test_every_pair_is_asked_once_in_an_order_that_is_drawn() -> None:
    found = questions_of(candidates(50), seed=1)
    assert len(set(ids(found.asked))) == 50
    assert found == questions_of(candidates(50), seed=1)
    other = questions_of(candidates(50), seed=2)
    assert ids(other.asked) != ids(found.asked)
    assert set(ids(other.asked)) == set(ids(found.asked))


def test_sides_are_drawn_and_hold_when_the_file_grows() -> None:
    small, large = (questions_of(candidates(count), seed=3).asked for count in (40, 400))
    sides = {one.id: one.left.source for one in large}
    assert all(sides[one.id] == one.left.source for one in small)
    counted = Counter(sides.values())
    # 400 fair draws are outside 160 to 240 once in 20,000 seeds.
    assert 160 < counted["model 0"] < 240


def test_prompts_with_many_answers_come_round_by_round() -> None:
    found = questions_of(candidates(10, answers=4)).asked
    assert len(found) == 60
    for start in range(0, 60, 10):
        assert len({str(one.prompt) for one in found[start : start + 10]}) == 10


def test_equal_answers_and_second_copies_are_not_asked_and_told() -> None:
    rows = Candidates((asked(1, "a", "b"), asked(2, "same", " same\n"), asked(1, "a", "b")), ("read",))
    found = questions_of(rows)
    assert len(found.asked) == 1
    assert found.notes == (
        "read",
        "1 of 3 pairs have the same answer on both sides and are not asked",
        "1 of 3 pairs stand there a second time and are asked once",
    )
    with pytest.raises(DataError, match="there is nothing to compare: both answers are the same in each of the 1 pairs"):
        questions_of(Candidates((asked(2, "same", "same"),)))


def test_repetitions_come_later_with_the_sides_changed() -> None:
    found = questions_of(candidates(100), repeat_share=0.2).asked
    place = {one.id: index for index, one in enumerate(found)}
    again = [one for one in found if one.again]
    assert len(again) == 20
    for one in again:
        first = found[place[one.first_id]]
        assert (first.left, first.right) == (one.right, one.left)
    gaps = [place[one.id] - place[one.first_id] for one in again if place[one.first_id] < 100 - APART]
    assert min(gaps) >= APART


def test_answers_are_given_taken_back_and_given_again() -> None:
    ranking = Ranking(questions_of(candidates(3)).asked)
    first = ranking.current
    assert first is not None
    ranking.give("left")
    second = ranking.current
    assert second is not None
    assert second.id != first.id
    ranking.give("tie")
    assert ranking.take_back() == second
    assert ranking.take_back() == first
    assert ranking.take_back() is None
    assert ranking.current == first
    for choice in ("right", "skip", "both_bad"):
        ranking.give(choice)
    assert ranking.current is None
    with pytest.raises(ValueError, match="no question waits"):
        ranking.give("left")


def test_an_unknown_answer_is_no_answer() -> None:
    ranking = Ranking(questions_of(candidates(1)).asked)
    with pytest.raises(ValueError, match="'better'"):
        ranking.give("better")
    assert ranking.answers == {}


def test_earlier_answers_go_on_and_those_of_others_are_left_alone() -> None:
    found = questions_of(candidates(4)).asked
    ranking = Ranking(found, {found[2].id: "left", "of another file": "right"})
    assert [one.id for one in ranking.waiting] == ids((found[0], found[1], found[3]))
    assert ranking.take_back() == found[2]
    assert ranking.take_back() is None


def test_what_was_skipped_is_not_asked_a_second_time() -> None:
    found = questions_of(candidates(2), repeat_share=1.0).asked
    ranking = Ranking(found)
    ranking.give("skip")
    assert len(ranking.waiting) == 2
    ranking.take_back()
    assert len(ranking.waiting) == 4


def preferring(source: str, ranking: Ranking, count: int) -> None:
    for _ in range(count):
        question = ranking.current
        assert question is not None
        ranking.give("left" if question.left.source == source else "right")


def test_the_rate_is_of_what_was_decided_with_wilsons_interval() -> None:
    ranking = Ranking(questions_of(candidates(14)).asked)
    preferring("model 1", ranking, 7)
    preferring("model 0", ranking, 3)
    for choice in ("tie", "both_bad", "skip"):
        ranking.give(choice)
    found = tally(ranking)
    counts = (found.answered, found.remaining, found.decided, found.ties, found.both_bad, found.skipped)
    assert counts == (13, 1, 10, 1, 1, 1)
    best, other = found.records
    assert (best.source, best.wins, best.losses, best.undecided) == ("model 1", 7, 3, 2)
    assert best.rate is not None
    assert best.rate == (0.7, *wilson(7, 10), 10)
    assert other.rate is not None
    assert other.rate.value == pytest.approx(0.3)
    assert found.as_dict()["sources"][0]["rate"]["count"] == 10


def test_the_left_habit_is_measured() -> None:
    ranking = Ranking(questions_of(candidates(12)).asked)
    for _ in range(12):
        ranking.give("left")
    found = tally(ranking)
    assert found.left is not None
    assert found.left.value == 1
    assert found.left.low > 0.5


def test_agreement_is_of_questions_asked_twice() -> None:
    ranking = Ranking(questions_of(candidates(4), repeat_share=1.0).asked)
    firm, sided, tied, skipped = (one for one in ranking.questions if not one.again)
    ranking.answers = {firm.id: "left", sided.id: "left", tied.id: "tie", skipped.id: "left"}
    again = {firm: "right", sided: "left", tied: "tie", skipped: "skip"}
    ranking.answers |= {f"{one.id}.again": choice for one, choice in again.items()}
    found = tally(ranking)
    assert found.agreement is not None
    assert (found.agreement.value, found.agreement.count) == (pytest.approx(2 / 3), 3)
    # A repetition is no second vote.
    assert (found.answered, found.decided) == (4, 3)


def test_nothing_answered_says_nothing() -> None:
    found = tally(Ranking(questions_of(candidates(2)).asked))
    assert (found.answered, found.remaining, found.records, found.left, found.agreement) == (0, 2, (), None, None)
    assert found.as_dict()["left"] is None
    assert set(MIRRORED) < set(CHOICES)
