"""Ranking by hand: which questions a person is asked, what stands of the answers, and what they say.

Nothing here reads or writes: `candidates` says what is compared, `ranking_journal` keeps the answers, a terminal or a page asks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tunewright.core.errors import DataError
from tunewright.core.scores import Score
from tunewright.core.seeds import derive, shuffled
from tunewright.run.ranking.candidates import Answer, Candidates, Prompt

CHOICES = ("left", "right", "tie", "both_bad", "skip")
MIRRORED = {"left": "right", "right": "left"}
APART = 10  # questions at least between a question and its repetition, where there are so many
AGAIN = ".again"


class Question(NamedTuple):
    """Two answers to a prompt, side by side.

    Args:
        id: a hash of prompt, answers and sources, whichever side they stand on; of a repetition with `AGAIN` behind it.
        prompt: a text, or a conversation so far.
        left: the one, drawn by seed and id.
        right: the other.
        tools: of the conversation.
    """

    id: str
    prompt: Prompt
    left: Answer
    right: Answer
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def again(self) -> bool:
        """Whether it was asked before, the other way round."""
        return self.id.endswith(AGAIN)

    @property
    def first_id(self) -> str:
        """The id of the question that this one is or repeats."""
        return self.id.removesuffix(AGAIN)


class Questions(NamedTuple):
    """What is asked, in order, and what should be known of it, as sentences."""

    asked: tuple[Question, ...]
    notes: tuple[str, ...] = ()


def questions_of(candidates: Candidates, seed: int = 0, repeat_share: float = 0.0) -> Questions:
    """Every pair of answers to every prompt as a question: each prompt once, then each a second time with another pair, and so on.

    Prompts and pairs come in an order drawn by seed, so whoever stops early has seen a random part. Which answer stands on the left
    is drawn for each question alone, so it stays when the file grows.

    Args:
        candidates: prompts with two or more answers.
        seed: of order and sides.
        repeat_share: how many of the questions are asked a second time, later and with the sides changed.

    Raises:
        DataError: all answers are equal, so there is nothing to compare.
    """
    found: dict[str, tuple[tuple[int, int], Question]] = {}
    equal = twice = 0
    order = shuffled(len(candidates.asked), seed, "prompts")
    for place, index in enumerate(order):
        row = candidates.asked[index]
        couples = [(one, other) for number, one in enumerate(row.answers) for other in row.answers[number + 1 :]]
        for turn, chosen in enumerate(shuffled(len(couples), seed, "pairs", index)):
            one, other = couples[chosen]
            name = _id(row.prompt, one, other)
            if one.text.strip() == other.text.strip():
                equal += 1
            elif name in found:
                twice += 1
            else:
                left, right = (one, other) if derive(seed, "side", name) & 1 else (other, one)
                found[name] = ((turn, place), Question(name, row.prompt, left, right, row.tools))
    if not found:
        raise DataError(f"there is nothing to compare: both answers are the same in each of the {equal:,} pairs")
    every = f"of {len(found) + equal + twice:,} pairs"
    notes = [f"{equal:,} {every} have the same answer on both sides and are not asked"] if equal else []
    notes += [f"{twice:,} {every} stand there a second time and are asked once"] if twice else []
    plain = [question for _, question in sorted(found.values(), key=lambda item: item[0])]
    return Questions(tuple(_with_repetitions(plain, seed, repeat_share)), (*candidates.notes, *notes))


def _id(prompt: Prompt, one: Answer, other: Answer) -> str:
    text = json.dumps([prompt, sorted([one, other])], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _with_repetitions(plain: Sequence[Question], seed: int, share: float) -> list[Question]:
    chosen = shuffled(len(plain), seed, "repeated")[: round(share * len(plain))]
    placed: list[tuple[float, Question]] = list(enumerate(plain))
    for index in chosen:
        one = plain[index]
        gap = APART + derive(seed, "gap", one.id) % (2 * APART)
        placed.append((index + gap + 0.5, one._replace(id=one.id + AGAIN, left=one.right, right=one.left)))
    return [question for _, question in sorted(placed, key=lambda item: (item[0], item[1].id))]


class Ranking:
    """Where a person stands: the question that waits, and what was answered, in order.

    Args:
        questions: what is asked, in order.
        answers: what was answered in earlier sittings, by id and in order; ids of other questions are left alone.
    """

    def __init__(self, questions: Sequence[Question], answers: Mapping[str, str] | None = None) -> None:
        known = {question.id for question in questions}
        self.questions = tuple(questions)
        self.answers = {name: choice for name, choice in (answers or {}).items() if name in known}

    @property
    def waiting(self) -> list[Question]:
        """What is still to be asked; what was skipped is not repeated."""
        return [one for one in self.questions if one.id not in self.answers and self.answers.get(one.first_id) != "skip"]

    @property
    def current(self) -> Question | None:
        """The question that waits; None when all are answered."""
        return next(iter(self.waiting), None)

    def give(self, choice: str) -> None:
        """Answer the question that waits with one of `CHOICES`."""
        question = self.current
        if question is None or choice not in CHOICES:
            raise ValueError(f"no question waits for '{choice}'")
        self.answers[question.id] = choice

    def last(self) -> Question | None:
        """The question answered last."""
        name = next(reversed(self.answers), None)
        return next((one for one in self.questions if one.id == name), None)

    def take_back(self) -> Question | None:
        """Forget the last answer; its question waits again. None when there is no answer."""
        question = self.last()
        if question is not None:
            del self.answers[question.id]
        return question


class Record(NamedTuple):
    """How often the answers of one source were preferred. `rate` is wins among what was decided; None where nothing was."""

    source: str
    wins: int
    losses: int
    undecided: int
    rate: Score | None


class Tally(NamedTuple):
    """What the answers say; repetitions count for `agreement` only.

    Args:
        answered: questions with an answer, skipped ones too.
        remaining: questions that wait.
        decided: one answer was preferred.
        ties: both were found alike.
        both_bad: neither was found good.
        skipped: no answer was given.
        records: one a source, the best first.
        left: how often the left one was preferred. Sides are drawn, so far from one half is a habit.
        agreement: of questions asked twice, the share with the same answer both times.
    """

    answered: int
    remaining: int
    decided: int
    ties: int
    both_bad: int
    skipped: int
    records: tuple[Record, ...]
    left: Score | None
    agreement: Score | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        counts = {name: getattr(self, name) for name in ("answered", "remaining", "decided", "ties", "both_bad", "skipped")}
        records = [one._asdict() | {"rate": _plain(one.rate)} for one in self.records]
        return counts | {"sources": records, "left": _plain(self.left), "agreement": _plain(self.agreement)}


def tally(ranking: Ranking) -> Tally:
    """What the answers of a ranking say.

    Rates and agreement are shares of what was decided, with Wilson's interval: a tie is no half win, it is told beside. Comparisons
    are treated as independent; with several of one prompt the interval is too narrow.
    """
    first = [(one, ranking.answers[one.id]) for one in ranking.questions if one.id in ranking.answers and not one.again]
    choices = [choice for _, choice in first]
    decided = [(one, choice) for one, choice in first if choice in MIRRORED]
    return Tally(
        answered=len(first),
        remaining=len(ranking.waiting),
        decided=len(decided),
        ties=choices.count("tie"),
        both_bad=choices.count("both_bad"),
        skipped=choices.count("skip"),
        records=_records(first),
        left=_share([choice == "left" for _, choice in decided]),
        agreement=_share(_agreements(ranking)),
    )


def _records(given: Iterable[tuple[Question, str]]) -> tuple[Record, ...]:
    outcomes: dict[str, list[str]] = {}
    for one, choice in given:
        for side, answer in (("left", one.left), ("right", one.right)):
            outcome = "undecided" if choice not in MIRRORED else "win" if choice == side else "loss"
            if choice != "skip":
                outcomes.setdefault(answer.source, []).append(outcome)
    found = []
    for source, many in outcomes.items():
        wins, losses = many.count("win"), many.count("loss")
        found.append(Record(source, wins, losses, many.count("undecided"), _share([True] * wins + [False] * losses)))
    return tuple(sorted(found, key=lambda one: (-(one.rate.value if one.rate else -1.0), one.source)))


def _agreements(ranking: Ranking) -> list[bool]:
    found = []
    for one in ranking.questions:
        again, before = ranking.answers.get(one.id), ranking.answers.get(one.first_id)
        if one.again and again is not None and before is not None and "skip" not in (again, before):
            found.append(MIRRORED.get(again, again) == before)
    return found


def _share(outcomes: Sequence[bool]) -> Score | None:
    from tunewright.metrics.statistics.intervals import value_score

    return value_score([float(one) for one in outcomes]) if outcomes else None


def _plain(score: Score | None) -> dict[str, float] | None:
    return None if score is None else score._asdict()
