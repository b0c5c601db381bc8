"""Every method on every kind of base, from rows to a report, and opened again from its folder."""

import json

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError, DataError
from tunewright.data.rows import LabelRow
from tunewright.data.stored import read_rows
from tunewright.evaluation.opening import open_model
from tunewright.evaluation.report.schema import Report
from tunewright.finetune import finetune

from .conftest import losses, weights, write

NEW_HEAD = {"objective": {"name": "classification", "head": "new"}}


def answered_again(folder, run) -> list[str | None]:
    """What the finished run answers when it is opened from its folder."""
    opened = open_model(str(folder))
    rows = read_rows(folder / "data" / "test.jsonl")
    return [answer.text for answer in opened.approach(run.evaluation.sampling).answer(rows, run.evaluation.written)]


def predictions(folder) -> list[str | None]:
    lines = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    return [line["tuned"]["text"] if isinstance(line["tuned"], dict) else line["tuned"] for line in lines]


@pytest.mark.parametrize(
    ("family", "data", "settings", "folder"),
    [
        ("llama", "pairs", {}, "adapter"),
        ("llama", "pairs", {"method": "full"}, "model"),
        ("gpt2", "pairs", {"method": {"name": "selective", "last_blocks": 1}}, "model"),
        ("llama", "pairs", {"method": "head"}, "model"),
        ("mixtral", "pairs", {"method": "full"}, "model"),
        ("gemma2", "pairs", {"method": {"name": "lora", "targets": ["linear", "head"]}}, "adapter"),
        ("t5", "pairs", {}, "adapter"),
        ("bart", "pairs", {"method": "full"}, "model"),
        ("bert", "labelled", {}, "adapter"),
        ("bert", "labelled", {"method": "head"}, "model"),
        ("roberta", "labelled", {"method": "full"}, "model"),
        ("llama", "labelled", {}, "adapter"),
        ("t5", "labelled", {}, "adapter"),
        ("llama", "labelled", NEW_HEAD, "adapter"),
        ("gpt2", "labelled", {**NEW_HEAD, "method": "head"}, "model"),
    ],
    ids=str,
)
def test_from_rows_to_report(family: str, data: str, settings: dict, folder: str, described, request):
    run = described(family, request.getfixturevalue(data), **settings)
    found = finetune(run)
    assert (found.folder / folder).is_dir()
    assert not (found.folder / ("model" if folder == "adapter" else "adapter")).exists()
    steps = losses(found.folder)
    assert len(steps) == 6
    assert steps[-1][1] < steps[0][1] * 1.05
    assert answered_again(found.folder, run) == predictions(found.folder)
    for name in ("run.yaml", "manifest.json", "report.html", "README.md", "steps.jsonl"):
        assert (found.folder / name).stat().st_size
    report = Report.model_validate_json((found.folder / "report.json").read_text())
    assert report == found.report
    assert report.measures
    assert report.subject.weights == ("peft_adapter" if folder == "adapter" else "full_model")


def test_the_report_is_complete(described, labelled):
    report = finetune(described("bert", labelled)).report
    assert report.name == "run"
    assert report.verdict
    assert report.baseline_note.startswith("always answering the most frequent label")
    assert {measure.metric for measure in report.measures} == {"accuracy", "loss"}
    for measure in report.measures:
        assert measure.tuned.low <= measure.tuned.value <= measure.tuned.high
        assert measure.tuned.count == report.data.splits["test"]
    assert report.rows.best or report.rows.worst
    assert report.curves.train_loss.steps == (1, 2, 3, 4, 5, 6)
    assert report.curves.validation[0].steps == (0, 2, 4, 6)
    assert report.curves.kept_step in (2, 4, 6)
    assert report.data.kept == sum(report.data.splits.values())
    assert set(report.data.labels["train"]) == {"early", "late"}
    assert report.targets.rows == report.data.splits["train"]
    assert report.targets.layout == "forest"
    assert report.targets.probe_difference < 1e-5
    assert report.confusion.labels == ("early", "late")
    assert sum(map(sum, report.confusion.tuned)) == report.data.splits["test"]
    assert {"base", "code", "data/train", "data/test"} <= set(report.environment.hashes)
    assert {"torch", "transformers", "python"} <= set(report.environment.versions)
    assert report.cost.trainable_parameters < report.cost.total_parameters
    assert report.cost.tokens > 0
    assert {"Load the base", "Estimate", "Tune", "Test once"} <= set(report.cost.stages)
    assert report.settings.values["method"]["name"] == "lora"
    assert report.settings.reasons["method.rank"].startswith("8: ")


@pytest.mark.parametrize(
    ("family", "data", "method"),
    [
        ("llama", "pairs", "lora"),
        ("gpt2", "pairs", "full"),
        ("llama", "pairs", {"name": "selective", "last_blocks": 1}),
        ("bert", "labelled", {"name": "selective", "bias_only": True}),
        ("t5", "pairs", "lora"),
    ],
    ids=str,
)
def test_bfloat16_from_rows_to_report(family: str, data: str, method, described, request):
    run = described(family, request.getfixturevalue(data), method=method, training={"precision": "bfloat16"})
    found = finetune(run)
    assert "bfloat16" in found.report.subject.base_description
    exact = finetune(described(family, request.getfixturevalue(data), name="exact", method=method))
    for one, other in zip(losses(found.folder), losses(exact.folder), strict=True):
        assert one[1] == pytest.approx(other[1], rel=0.05)
    trained = [tensor for name, tensor in weights(found.folder).items() if "lora" in name or "head" in name]
    assert all(tensor.dtype == torch.float32 for tensor in trained)
    assert len(answered_again(found.folder, run)) == found.report.data.splits["test"]


def test_recomputed_activations_change_nothing(described, pairs):
    found = [
        finetune(described("llama", pairs, name=str(again), training={"checkpointing": again})).folder for again in (False, True)
    ]
    assert [loss[1] for loss in losses(found[0])] == pytest.approx([loss[1] for loss in losses(found[1])], rel=1e-5)


def test_one_row(described, tmp_path):
    data = write(tmp_path / "one.jsonl", [{"prompt": "a", "completion": "b"}])
    found = finetune(described("llama", data, data={"train": str(data), "validation_share": 0, "test_share": 0}))
    assert found.report.data.splits == {"train": 1, "validation": 0, "test": 0}
    assert found.report.measures == ()
    assert len(losses(found.folder)) == 6
    assert (found.folder / "adapter" / "adapter_model.safetensors").is_file()


def test_two_rows_of_two_labels(described, tmp_path):
    data = write(tmp_path / "labels.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    found = finetune(described("bert", data, data={"train": str(data), "validation_share": 0, "test_share": 0}))
    assert found.report.data.splits["train"] == 2


def test_plain_text(described, tmp_path):
    data = write(
        tmp_path / "texts.jsonl", [{"text": f"{word} and {word} again, number {place}"} for place, word in enumerate("abcdefghij")]
    )
    found = finetune(described("gpt2", data, evaluation={"metrics": [], "written": 0}))
    assert {measure.metric for measure in found.report.measures} == {"loss", "perplexity"}
    with pytest.raises(ConfigurationError, match=r"'rouge1' compares answers, and these rows have none.*Monitor `loss`"):
        finetune(described("gpt2", data, name="other", training={"monitor": "rouge1"}))


def test_a_metric_may_be_watched(described, labelled):
    found = finetune(described("bert", labelled, training={"monitor": "macro_f1"}))
    assert [series.title for series in found.report.curves.validation][:2] == ["Validation loss", "Validation Accuracy"]
    assert all(set(validation) == {"loss", "accuracy", "macro_f1"} for _, _, validation in losses(found.folder) if validation)


@pytest.mark.parametrize(
    ("family", "data", "settings", "error", "message"),
    [
        ("gemma2", "pairs", {"method": "head"}, BaseModelError, "shares its weights with the embeddings"),
        ("bert", "pairs", {}, BaseModelError, "an encoder reads and cannot write answers"),
        ("llama", "pairs", {"objective": "classification"}, DataError, "cannot serve this objective"),
        ("t5", "labelled", NEW_HEAD, ConfigurationError, "a new head is not offered on an encoder-decoder"),
        (
            "llama",
            "pairs",
            {"method": {"name": "lora", "targets": ["q_porj"]}},
            ConfigurationError,
            "nothing in a llama network is called",
        ),
        (
            "llama",
            "pairs",
            {"method": {"name": "lora", "targets": ["norm"]}},
            ConfigurationError,
            "embeddings and convolutions only",
        ),
        ("llama", "pairs", {"method": {"name": "selective", "bias_only": True}}, ConfigurationError, "the selection is empty"),
        (
            "bert",
            "labelled",
            {"objective": {"name": "classification", "labels": ["early", "lat"]}},
            ConfigurationError,
            "the label 'late' of .* is not among the labels.*Did you mean 'lat'",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_leaves_no_folder(family, data, settings, error, message, described, request):
    run = described(family, request.getfixturevalue(data), **settings)
    with pytest.raises(error, match=message):
        finetune(run)
    assert not (run.folder / "run").exists()


def test_labels_in_an_order_of_ones_own(described, labelled):
    run = described("bert", labelled, objective={"name": "classification", "labels": ["late", "early", "never"]})
    found = finetune(run)
    assert open_model(str(found.folder)).labels == ("late", "early", "never")
    assert all(isinstance(row, LabelRow) for row in read_rows(found.folder / "data" / "test.jsonl"))
