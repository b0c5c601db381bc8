"""Entities in tags, and entity_f1, entity_precision, entity_recall: numbers counted by hand."""

import pytest

from tunewright.metrics._entities import Entity, entities, has_entities
from tunewright.metrics.entity_f1 import EntityF1
from tunewright.metrics.entity_precision import EntityPrecision
from tunewright.metrics.entity_recall import EntityRecall

from .sets import TagContract


class TestEntityF1(TagContract):
    metric = EntityF1()


class TestEntityPrecision(TagContract):
    metric = EntityPrecision()


class TestEntityRecall(TagContract):
    metric = EntityRecall()


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", [(0, 1, "PER"), (3, 3, "LOC")]),
        ("B-PER B-PER", [(0, 0, "PER"), (1, 1, "PER")]),  # B always begins anew
        ("I-PER I-PER O", [(0, 1, "PER")]),  # IOB1: I begins where nothing of its type stands before
        ("B-PER I-LOC", [(0, 0, "PER"), (1, 1, "LOC")]),  # another type ends the one before
        ("I-PER B-PER I-PER", [(0, 0, "PER"), (1, 2, "PER")]),  # IOB1: B parts neighbours of one type
        ("O I-PER", [(1, 1, "PER")]),
        ("S-LOC B-PER I-PER E-PER", [(0, 0, "LOC"), (1, 3, "PER")]),  # BIOES
        ("U-LOC B-PER L-PER I-PER", [(0, 0, "LOC"), (1, 2, "PER"), (3, 3, "PER")]),  # BILOU: what follows an end begins anew
        ("E-PER E-PER", [(0, 0, "PER"), (1, 1, "PER")]),
        ("B-a-b I-a-b", [(0, 1, "a-b")]),
        ("NOUN X-PER B", []),  # no prefix that is known, or nothing behind it
    ],
)
def test_what_a_sequence_of_tags_marks(tags: str, wanted: list[tuple[int, int, str]]):
    assert entities(tags.split()) == {Entity(*one) for one in wanted}


def test_precision_recall_and_f1_by_hand():
    """Wanted: PER 0-1 and LOC 3 in the first row, ORG 0-2 in the second. Answered: PER 0-1 (right), LOC 3-4 (one word too long),
    and in the second row ORG 0-1 (too short) and ORG 2. One hit of four answered and three wanted."""
    references = ["B-PER I-PER O B-LOC O", "B-ORG I-ORG I-ORG"]
    answers = ["B-PER I-PER O B-LOC I-LOC", "B-ORG I-ORG B-ORG"]
    assert EntityPrecision().measure(answers, references) == pytest.approx(1 / 4)
    assert EntityRecall().measure(answers, references) == pytest.approx(1 / 3)
    assert EntityF1().measure(answers, references) == pytest.approx(2 / 7)


def test_the_type_must_be_right_and_rows_do_not_mix():
    assert EntityF1().measure(["B-LOC"], ["B-PER"]) == 0
    assert EntityF1().measure(["B-PER", "O"], ["O", "B-PER"]) == 0


def test_no_entity_wanted_and_none_answered():
    assert EntityF1().measure(["O O"], ["O O"]) == EntityPrecision().measure(["O"], ["O"]) == 1
    assert EntityPrecision().measure(["O"], ["B-X"]) == EntityRecall().measure(["O"], ["B-X"]) == 0


def test_tags_that_mark_entities():
    assert has_entities(["O", "I-X"])
    assert not has_entities(["NOUN", "VERB", "O"])
