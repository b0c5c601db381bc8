"""What is chosen when a run is set up, why, and what is refused before anything is loaded or written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tunewright.core.errors import ConfigurationError, DoesNotFitError, RequestError
from tunewright.core.narrator import SILENT
from tunewright.data.reading import read
from tunewright.evaluation.dealt import Dealt
from tunewright.evaluation.task import Always
from tunewright.evaluation.tuned import Tuned
from tunewright.finetune import Run, finetune
from tunewright.run import workshop
from tunewright.run.workshop import Clock, Workshop, set_up
from tunewright.training import estimate

CHOSEN = ("method.rank", "training.learning_rate", "training.batch_size", "training.epochs", "training.precision")


def look(run: Run) -> Workshop:
    """The bench of a run that leaves nothing behind."""
    return set_up(run, read(run.data, run.seed), None, SILENT)


def value_of(run: Run, path: str) -> object:
    found: object = run.model_dump(mode="json")
    for key in path.split("."):
        assert isinstance(found, dict)
        found = found[key]
    return found


def test_everything_left_open_is_filled_with_a_reason(described: Callable[..., Run], pairs: Path):
    shop = look(described("llama", pairs).model_copy(update={"training": workshop.Training()}))
    assert set(shop.reasons) == set(CHOSEN)
    for path, reason in shop.reasons.items():
        value = value_of(shop.run, path)
        assert value not in (None, "auto")
        if isinstance(value, str):
            assert reason
        else:
            assert reason.startswith(f"{value:g}: "), f"{path} = {value} is explained by '{reason}'"


def test_what_was_given_has_no_reason_and_stays(described: Callable[..., Run], pairs: Path):
    given = {"learning_rate": 0.0123, "batch_size": 5, "epochs": 1.5, "max_steps": None, "precision": "float32"}
    run = described("llama", pairs, training=given, method={"name": "lora", "rank": 3})
    shop = look(run)
    assert shop.reasons == {}
    assert value_of(shop.run, "method.rank") == 3
    for key in ("learning_rate", "batch_size", "epochs", "precision"):
        assert value_of(shop.run, f"training.{key}") == given[key]


@pytest.mark.parametrize("path", CHOSEN)
def test_one_gap_has_one_reason(path: str, described: Callable[..., Run], pairs: Path):
    full = {"learning_rate": 0.01, "batch_size": 5, "epochs": 1.0, "max_steps": None, "precision": "float32"}
    room, key = path.split(".")
    training = {name: value for name, value in full.items() if (room, name) != ("training", key)}
    if key == "precision":
        training["precision"] = "auto"
    elif key == "epochs":
        training |= {"epochs": None}
    else:
        training.setdefault(key, None) if room == "training" else None
    method = {"name": "lora"} if room == "method" else {"name": "lora", "rank": 3}
    assert list(look(described("llama", pairs, training=training, method=method)).reasons) == [path]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_was_given_is_kept(precision: str, described: Callable[..., Run], pairs: Path):
    shop = look(described("llama", pairs, training={"precision": precision}))
    assert shop.engine.precision == shop.run.training.precision == precision
    assert "training.precision" not in shop.reasons


def test_auto_keeps_every_digit_on_a_narrow_base(described: Callable[..., Run], pairs: Path):
    shop = look(described("llama", pairs, training={"precision": "auto"}))
    assert shop.run.training.precision == "float32"
    assert "width 32" in shop.reasons["training.precision"]


def test_a_gpu_that_is_not_there_is_refused(described: Callable[..., Run], pairs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = described("llama", pairs, device="cuda:0")
    with pytest.raises(RequestError, match="'cuda:0' was asked for") as caught:
        finetune(run)
    assert caught.value.where == "device"
    assert not (run.folder / "run").exists()


def test_a_base_that_cannot_fit_is_refused_before_it_is_loaded(
    described: Callable[..., Run], pairs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(estimate, "available", lambda device: 50_000)
    monkeypatch.setattr(workshop, "load_base", lambda name: pytest.fail("the base was loaded"))
    run = described("llama", pairs)
    with pytest.raises(DoesNotFitError, match="the base is too large") as caught:
        finetune(run)
    assert caught.value.where == run.base
    assert "about 10 k parameters" in caught.value.hint  # 80 % of 50,000 bytes hold 10,000 numbers of 4 bytes
    assert not (run.folder / "run").exists()


def test_a_target_that_is_nowhere_in_the_base_leaves_no_folder(described: Callable[..., Run], labelled: Path):
    run = described("llama", labelled, method={"name": "lora", "targets": ["linear", "nowhere"]})
    with pytest.raises(ConfigurationError, match="nowhere"):
        finetune(run)
    assert not (run.folder / "run").exists()


def test_the_baseline_of_a_new_head_is_the_majority_of_training(described: Callable[..., Run], labelled: Path):
    shop = look(described("bert", labelled))
    counts = [row.target_text() for row in shop.dataset.train]
    baseline = shop.baseline()
    assert isinstance(baseline, Always)
    assert [one.text for one in baseline.answer(shop.dataset.test[:1], 0)] == [max(sorted(set(counts)), key=counts.count)]
    assert shop.has_new_head


def test_the_baseline_of_anything_else_is_the_base_itself(described: Callable[..., Run], pairs: Path):
    shop = look(described("llama", pairs))
    baseline = shop.baseline()
    assert isinstance(baseline, Dealt)
    assert isinstance(baseline.approach, Tuned)
    assert baseline.name == "base"
    assert not shop.has_new_head


def test_validation_looks_at_a_fixed_draw_of_rows(described: Callable[..., Run], pairs: Path):
    shop = look(described("llama", pairs, evaluation={"validation_rows": 2}))
    rows = shop.validation_rows()
    assert len(rows) == 2
    assert rows == shop.validation_rows()
    assert all(row in shop.dataset.validation for row in rows)
    assert look(described("llama", pairs)).validation_rows() == shop.dataset.validation


def test_answers_may_be_a_little_longer_than_those_trained_on(described: Callable[..., Run], pairs: Path):
    shop = look(described("llama", pairs, evaluation={"written": 1}))
    longest = max(len(row.target_text()) for row in shop.dataset.train) + 1  # and the end token
    assert shop.run.evaluation.sampling.max_new_tokens == longest + 8
    assert look(described("llama", pairs)).run.evaluation.sampling.max_new_tokens == 4


def test_a_padded_layout_stands_among_the_warnings(described: Callable[..., Run], pairs: Path, monkeypatch: pytest.MonkeyPatch):
    real = workshop.probe
    monkeypatch.setattr(
        workshop, "probe", lambda model, layouts: real(model, layouts)._replace(layout="padded", reason="it was asked for")
    )
    assert look(described("llama", pairs)).warnings == ["Layout: it was asked for."]


def test_the_clock_adds_up_stages_of_one_name(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([0.0, 2.0, 10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr(workshop.time, "perf_counter", lambda: next(ticks))
    clock = Clock(SILENT)
    for name in ("tune", "tune", "test"):
        with clock.stage(name):
            pass
    assert clock.seconds == {"tune": 5.0, "test": 1.0}
