"""Plain text from a file to a report, on each kind of base; what was tuned opens, merges and is tuned further as what it is."""

from pathlib import Path

import pytest

from tunewright.core.errors import BaseModelError
from tunewright.core.runs import existing
from tunewright.evaluation.opening import load_base, open_model
from tunewright.evaluation.report.card import render_card
from tunewright.finetune import Result, finetune
from tunewright.models.loading import load
from tunewright.run.merging import merge
from tunewright.run.records import kept_dataset
from tunewright.testing.tiny import save_tiny, tiny

from .conftest import WORDS, describe, write

STEPS = {"max_steps": 6, "batch_size": 6, "learning_rate": 1e-2, "validate_every": 6}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"{WORDS[number % 8]} and {WORDS[number % 5]} went to {WORDS[number % 3]} {number}"} for number in range(30)]
    return write(tmp_path_factory.mktemp("texts") / "texts.jsonl", rows)


def carried_out(root: Path, base: str, texts: Path, **settings: object) -> Result:
    data = {"train": str(texts), "validation_share": 0.2, "test_share": 0.2, "near_duplicates": 0}
    return finetune(describe(root, base, texts, training=STEPS, data=data, evaluation={"written": 3}, **settings))


@pytest.fixture(scope="module")
def masked(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    root = tmp_path_factory.mktemp("masked")
    return carried_out(root, str(save_tiny("bert", root / "base", own_head=True)), texts, objective="masked_language_modeling")


def test_words_are_filled_in_better(masked: Result, tmp_path: Path):
    found = {one.metric: one for one in masked.report.measures}
    assert list(found) == ["loss", "perplexity", "masked_accuracy"]
    assert found["loss"].base is not None
    assert found["loss"].tuned.value < found["loss"].base.value
    assert 'AutoModelForMaskedLM.from_pretrained("' in render_card(masked.report)
    assert "pipeline_tag: fill-mask" in render_card(masked.report)


def test_what_was_tuned_opens_with_its_head_and_says_the_same(masked: Result, tmp_path: Path):
    opened = open_model(str(masked.folder))
    merge(str(masked.folder), tmp_path / "merged")
    again = open_model(str(tmp_path / "merged"))
    rows = kept_dataset(existing(masked.folder)).test
    first, other = ([one.objective.readings(one.engine, one.renderer, rows)] for one in (opened, again))
    wanted = next(one.tuned.value for one in masked.report.measures if one.metric == "loss")
    for (readings,) in (first, other):
        total = sum((reading.loss or 0) * reading.tokens for reading in readings) / sum(reading.tokens for reading in readings)
        assert total == pytest.approx(wanted, rel=1e-4)


def test_it_is_a_base_for_labels(masked: Result, labelled: Path, tmp_path: Path):
    run = describe(tmp_path, str(masked.folder), labelled, training={"max_steps": 2})
    assert finetune(run).report.subject.head


def test_all_weights_are_put_back_with_the_head(texts: Path, tmp_path: Path):
    base = str(save_tiny("bert", tmp_path / "base", own_head=True))
    result = carried_out(tmp_path, base, texts, objective="masked_language_modeling", method="full")
    trained = load(result.folder / "model", head=True).network.state_dict()
    opened = load_base(str(result.folder), own_head=True)
    assert opened.has_own_head
    assert all(bool((opened.network.state_dict()[name] == value).all()) for name, value in trained.items())


def test_an_encoder_without_its_head_is_refused_before_anything_is_done(base, texts: Path, tmp_path: Path):
    with pytest.raises(BaseModelError, match="has no head for hidden words"):
        carried_out(tmp_path, base("bert"), texts, objective="masked_language_modeling")
    assert not list((tmp_path / "runs").glob("run*/run.yaml"))


def test_spans_are_written_better(texts: Path, tmp_path: Path):
    model = tiny("t5")
    model.tokenizer.add_tokens([f"<extra_id_{number}>" for number in range(30)], special_tokens=True)
    model.network.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    report = carried_out(tmp_path, str(tmp_path / "base"), texts, objective="span_corruption").report
    found = {one.metric: one for one in report.measures}
    assert list(found) == ["loss", "perplexity"]
    assert found["loss"].base is not None
    assert found["loss"].tuned.value < found["loss"].base.value


def test_plain_text_on_a_decoder_is_language_modeling(base, texts: Path, tmp_path: Path):
    report = carried_out(tmp_path, base("llama"), texts).report
    assert (report.subject.objective, report.subject.task) == ("language_modeling", "text")
    assert [one.metric for one in report.measures] == ["loss", "perplexity"]
