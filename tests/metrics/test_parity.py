"""The numbers are those of scikit-learn, sacrebleu and rouge-score, on rows drawn to hit the corners."""

import random
import warnings

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from tunewright.metrics import room

WORDS = ["The", "river", "bends,", "slowly", "past", "7", "mills.", "bread", "new-baked", "and", "sold", "it's"]


def drawn_labels(rows: int, seed: int):
    draw = random.Random(seed)
    references = [draw.choice("abcdefg") for _ in range(rows)]
    # "h" and "i" are answered though no reference has them; "g" is never answered.
    return [draw.choice("abcdefhi") if draw.random() < 0.5 else r.replace("g", "a") for r in references], references


def drawn_texts(rows: int, seed: int):
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(1, 20))) for _ in range(rows)]
    answers = [" ".join(w for w in text.split() if draw.random() < 0.7) for text in references]
    return answers, references


MACRO = {"macro_f1": f1_score, "macro_precision": precision_score, "macro_recall": recall_score}


@pytest.mark.parametrize("name", MACRO)
@pytest.mark.parametrize("rows", [1, 9, 300])
def test_macro_averages_are_scikit_learns(name, rows):
    answers, references = drawn_labels(rows, seed=rows)
    metric = room[name]()
    wanted = MACRO[name](references, answers, average="macro", zero_division=0)
    assert metric.measure(answers, references) == pytest.approx(wanted)
    sums = np.asarray(metric.tallies(answers, references).sum(axis=0)).reshape(1, -1)
    assert metric.from_tallies(sums)[0] == pytest.approx(wanted)


def test_accuracy_is_scikit_learns():
    answers, references = drawn_labels(300, seed=4)
    assert room["accuracy"]().measure(answers, references) == pytest.approx(accuracy_score(references, answers))


@pytest.mark.parametrize(("name", "peer"), [("bleu", BLEU()), ("chrf", CHRF())])
def test_corpus_metrics_are_sacrebleus(name, peer):
    answers, references = drawn_texts(200, seed=5)
    wanted = peer.corpus_score(answers, [references]).score / 100
    metric = room[name]()
    assert metric.measure(answers, references) == pytest.approx(wanted)
    assert metric.from_tallies(metric.tallies(answers, references).sum(axis=0, keepdims=True))[0] == pytest.approx(wanted)


@pytest.mark.parametrize(("name", "kind"), [("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")])
def test_rouge_is_rouge_scores(name, kind):
    answers, references = drawn_texts(100, seed=6)
    peer = RougeScorer([kind])
    wanted = [peer.score(reference, answer)[kind].fmeasure for answer, reference in zip(answers, references, strict=True)]
    assert room[name]().per_row(answers, references) == pytest.approx(wanted)


def test_rouge_reads_other_scripts():
    text = ["Το ποτάμι κυλά αργά", "今天天气很好"]
    assert room["rouge1"]().per_row(text, text) == [1, 1]
    assert room["rouge_l"]().per_row(["今天天气很坏"], ["今天天气很好"]) == [pytest.approx(5 / 6)]


def test_free_words_as_labels_do_not_warn():
    answers, references = [f"I think it is {n}" for n in range(30)], ["a", "b"] * 15
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert room["macro_f1"]().measure(answers, references) == 0


def test_the_room_holds_metrics_only():
    assert {"accuracy", "macro_f1", "exact_match", "token_f1", "rouge1", "rouge2", "rouge_l", "bleu", "chrf"} <= set(room.names())
    for name in room.names():
        assert room.name_of(room[name]()) == name
