"""What a run would learn, as far as rows and a tokenizer can tell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import BaseModelError, ConfigurationError, DataError
from tunewright.data.ledger import Findings, Ledger
from tunewright.data.reading import Dataset, read
from tunewright.data.rendering import Renderer, Rendering
from tunewright.data.rows import LabelRow, PromptRow, Row, TextRow
from tunewright.finetune import Run, finetune
from tunewright.objectives.classification import Classification
from tunewright.objectives.language_modeling import LanguageModeling
from tunewright.objectives.sft import SFT
from tunewright.run.targets import decided, look, objective_for, plant
from tunewright.testing.tiny import tiny

LABELLED: list[Row] = [LabelRow(text=f"x {label}", label=label, where=f"a.jsonl:{n}") for n, label in enumerate("bacab")]


def dataset(train: list[Row], validation: list[Row] | None = None) -> Dataset:
    shape = train[0].shape if train else "text"
    return Dataset(train, validation or [], [], shape, Ledger(), Findings(shape, "", {}, {}))


def run(**settings: Any) -> Run:
    return Run.model_validate({"data": {"train": "unread.jsonl"}, **settings})


def test_the_rows_decide_the_objective():
    assert isinstance(objective_for(run(), dataset(LABELLED)), Classification)
    assert isinstance(objective_for(run(), dataset([TextRow(text="x")])), LanguageModeling)
    assert isinstance(objective_for(run(), dataset([TextRow(text="x"), PromptRow(prompt="a", completion="b")])), SFT)


def test_rows_that_cannot_serve_are_refused_by_shape():
    with pytest.raises(DataError, match="rows of shape 'text_label' cannot serve") as caught:
        objective_for(run(objective="sft"), dataset(LABELLED))
    assert caught.value.allowed == ("prompt_completion", "chat", "text")
    with pytest.raises(DataError, match="text_label"):
        objective_for(run(objective="classification"), dataset([TextRow(text="x")]))


def test_a_monitor_that_compares_answers_needs_some():
    texts: list[Row] = [TextRow(text="x")]
    watched = run(training={"monitor": "exact_match"})
    with pytest.raises(ConfigurationError, match="compares answers") as caught:
        objective_for(watched, dataset(texts, texts))
    assert caught.value.where == "training.monitor"
    pairs: list[Row] = [PromptRow(prompt="a", completion="b")]
    assert isinstance(objective_for(watched, dataset(pairs, pairs)), SFT)


def test_sft_on_an_encoder_is_refused():
    with pytest.raises(BaseModelError, match="an encoder reads and cannot write"):
        decided(SFT(), "encoder", dataset([PromptRow(prompt="a", completion="b")]))


def test_sft_on_an_encoder_leaves_no_folder(described: Callable[..., Run], pairs: Path):
    asked = described("bert", pairs)
    with pytest.raises(BaseModelError, match="cannot write answers"):
        finetune(asked)
    assert not (asked.folder / "run").exists()


def test_labels_are_found_in_the_training_rows_in_order():
    found = decided(Classification(), "encoder", dataset(LABELLED))
    assert isinstance(found, Classification)
    assert found.labels == ("a", "b", "c")
    assert (found.head, found.pooling) == ("new", "mean")


def test_labels_that_are_given_keep_their_order_and_may_be_more():
    found = decided(Classification(labels=("z", "c", "b", "a")), "decoder", dataset(LABELLED))
    assert isinstance(found, Classification)
    assert found.labels == ("z", "c", "b", "a")


def test_labels_that_are_given_must_cover_the_rows():
    with pytest.raises(ConfigurationError, match=r"the label 'c' of a\.jsonl:2 is not among the labels") as caught:
        decided(Classification(labels=("a", "b")), "decoder", dataset(LABELLED))
    assert (caught.value.where, caught.value.allowed) == ("objective.labels", ("a", "b"))


def renderer(**settings: Any) -> Renderer:
    model = tiny("llama")
    return Renderer(model.tokenizer, model.kind, model.context, Rendering(**settings))


def test_the_sentence_counts_what_is_learned():
    planted = plant(SFT(), [PromptRow(prompt="ask ", completion="say"), PromptRow(prompt="a ", completion="b")], renderer())
    assert (planted.counts.rows, planted.counts.tokens, planted.counts.trained) == (2, 4 + 4 + 2 + 2, 4 + 2)
    assert planted.sentence.startswith("2 rows, 6 of 12 tokens learned (50")
    assert "longest 8 tokens" in planted.sentence


def test_the_sentence_names_what_was_cut_and_refused():
    rows = [
        PromptRow(prompt="p" * 30 + " ", completion="say"),
        PromptRow(prompt="p ", completion="s" * 30),
        PromptRow(prompt="p ", completion="s"),
    ]
    planted = plant(SFT(), rows, renderer(max_tokens=12))
    assert "1 rows truncated (0 of them lost a part of the answer)" in planted.sentence
    assert "1 rows refused: the answer alone does not fit into max_tokens" in planted.sentence


def test_rows_that_would_teach_nothing_are_refused():
    rows = [PromptRow(prompt="p ", completion="s" * 30)] * 3
    with pytest.raises(DataError, match="shortest prompt has 2 tokens and the shortest answer 31") as caught:
        plant(SFT(), rows, renderer(max_tokens=12))
    assert "max_tokens 33" in caught.value.hint
    head = Classification(head="new", pooling="last", labels=("a", "b"))
    with pytest.raises(DataError, match="no row is left to train on") as caught:
        plant(head, [LabelRow(text="", label="a")] * 2, renderer())
    assert "2 rows refused" in caught.value.hint


@pytest.mark.parametrize(("family", "data"), [("llama", "pairs"), ("bert", "labelled"), ("t5", "labelled")])
def test_looking_plants_what_the_run_would_train_on(
    family: str, data: str, described: Callable[..., Run], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    asked = described(family, request.getfixturevalue(data))
    rows = read(asked.data, asked.seed)
    monkeypatch.setattr("torch.load", lambda *_: pytest.fail("the network was loaded"))
    monkeypatch.setattr("tunewright.models.loading.load_folder", lambda *_: pytest.fail("the network was loaded"))
    planted, _ = look(asked, rows)
    assert len(planted.entries) == len(rows.train)
    assert (planted.sentence.find("one label a row") > 0) == (family == "bert")
