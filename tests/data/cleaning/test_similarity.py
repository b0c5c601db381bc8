"""Near duplicates: found where they are, not invented by templates, independent of order."""

import random
import time

import pytest

from tunewright.data.cleaning import Pool
from tunewright.data.cleaning._similarity import _bands, _hashes, _jaccard, clusters
from tunewright.data.rows import LabelRow, PromptRow

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("ra", "lon", "mis", "ket")]


def sentence(draw, count):
    return " ".join(draw.choices(WORDS, k=count))


@pytest.mark.parametrize("count", [15, 100])
def test_near_duplicates_are_found_and_others_are_not(count):
    draw = random.Random(count)
    texts = [sentence(draw, count) for _ in range(300)]
    near = [text[:-1] + "x" for text in texts[:100]]
    ids = clusters([*texts, *near], 0.85)
    assert sum(ids[i] == ids[300 + i] for i in range(100)) >= 97
    assert len(set(ids[:300])) == 300


def test_clusters_do_not_depend_on_the_order():
    draw = random.Random(1)
    texts = [sentence(draw, 12) for _ in range(100)]
    texts += [text + suffix for text in texts[:30] for suffix in (".", " !", "?")]
    shuffled = draw.sample(texts, len(texts))

    def sets(order):
        groups = {}
        for text, cluster in zip(order, clusters(order, 0.8), strict=True):
            groups.setdefault(cluster, set()).add(text)
        return {frozenset(group) for group in groups.values()}

    assert sets(texts) == sets(shuffled)
    assert max(map(len, sets(texts))) == 4


def test_a_template_does_not_make_rows_alike():
    template = "Below is a sentence in English. Translate it into French and answer with the translation only. Sentence: {}"
    draw = random.Random(2)
    texts = [template.format(sentence(draw, 3)).lower() for _ in range(200)]
    assert len(set(clusters(texts, 0.9))) == len(set(texts))


def test_a_common_opening_still_counts():
    texts = [f"how do i {word} my account today" for word in WORDS] + [f"can i {word} my account today" for word in WORDS]
    assert len(set(clusters(texts, 0.9))) == len(texts)


def test_thousands_of_copies_cost_little_and_are_one():
    long = sentence(random.Random(4), 120)
    started = time.perf_counter()
    assert set(clusters([f"{long} {i}" for i in range(3000)], 0.9)) == {0}
    assert time.perf_counter() - started < 20


def test_off_finds_equal_ones_only():
    assert clusters(["aaaaaaaaaab", "aaaaaaaaaac", "aaaaaaaaaab"], 0) == [0, 1, 0]


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 0.99])
def test_bands_find_pairs_at_the_threshold(similarity):
    bands, rows = _bands(similarity)
    assert bands * rows <= 64
    assert 1 - (1 - similarity**rows) ** bands >= 0.97


def test_jaccard_is_that_of_the_shingles():
    left, right = _hashes("abcdefgh", {}), _hashes("abcdefgx", {})
    assert len(left) == 4
    assert _jaccard(left, right) == 3 / 5
    assert _jaccard(_hashes("ab", {}), _hashes("ab", {})) == 1


def test_one_endless_word_is_bounded():
    assert len(_hashes("".join(random.Random(3).choices("abcdefghij", k=1_000_000)), {})) == 4096


def test_a_shared_instruction_is_told_apart_by_its_answers():
    rows = tuple(PromptRow(prompt="Write a tweet.", completion=word * 5) for word in WORDS)
    assert len(set(Pool(rows).sides)) == len(rows)
    same = tuple(LabelRow(text="ok", label=word) for word in WORDS)
    assert len(set(Pool(same).sides)) == 1
