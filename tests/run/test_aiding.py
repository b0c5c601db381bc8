"""Aids in whole runs: measured once and kept, resumed bit for bit, refused where they make no sense."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.core.errors import ConfigurationError, DataError, Interrupted, StorageError
from tunewright.core.runs import RunFolder
from tunewright.finetune import finetune, resume
from tunewright.run import aiding

from .conftest import losses, weights, write

DROPPING = {"name": "lora", "rank": 4, "dropout": 0.3}
EVERYTHING = {"neftune": 5, "r_drop": 0.5, "l2_to_base": 0.05, "order": {"kind": "easy_first", "by": "loss"}}


@pytest.fixture
def general(tmp_path: Path) -> Path:
    """A few lines of text that have nothing to do with the task."""
    path = tmp_path / "general.txt"
    path.write_text("\n\n".join(f"The {word} sat by the river in the {word}'s chair." for word in ("ant", "bee", "cat", "dog")))
    return path


def facts(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line)["facts"] for line in (folder / "steps.jsonl").read_text().splitlines()]


def settings(**aids: Any) -> dict[str, Any]:
    return {"aids": aids, "validate_every": 6}


def test_a_run_that_goes_on_measures_nothing_again(described, pairs, general, monkeypatch: pytest.MonkeyPatch):
    """The rows of `ewc` may even be gone."""
    aids = settings(**EVERYTHING, ewc={"rows": str(general), "strength": 20.0})
    whole = finetune(described("llama", pairs, name="whole", method=DROPPING, training=aids)).folder
    run = described("llama", pairs, name="stopped", method=DROPPING, training=aids)
    seen = iter(range(1, 100))
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=lambda: next(seen) >= 3)
    general.unlink()
    monkeypatch.setattr(aiding, "measure", lambda *_: pytest.fail("it was measured again"))
    monkeypatch.setattr(aiding, "difficulty", lambda *_: pytest.fail("it was measured again"))
    folder = resume(run.folder / "stopped").folder
    assert losses(folder) == losses(whole)
    assert facts(folder) == facts(whole)
    assert all(torch.equal(value, weights(folder)[name]) for name, value in weights(whole).items())
    found = RunFolder(whole).manifest["reasons"]
    assert found["training.aids.ewc"].startswith("20: how much general.txt needs each of")
    assert found["training.aids.order"] == "easy_first: by loss, linear from 0.1 on, in the first epoch"
    assert "states below the trained blocks" in found["training.aids.neftune"]
    assert "passed twice" in found["training.aids.r_drop"]
    assert "held near" in found["training.aids.l2_to_base"]


def test_penalties_stand_beside_the_loss(described, pairs, general):
    aids = settings(l2_to_base=0.1, ewc={"rows": str(general), "strength": 10.0})
    folder = finetune(described("llama", pairs, method="full", training=aids)).folder
    first, *later = facts(folder)
    assert first == {"l2_to_base": 0.0, "ewc": 0.0}  # at the base
    assert all(one["l2_to_base"] > 0 and one["ewc"] > 0 for one in later)
    kept = load_file(folder / aiding.FILE)
    assert set(kept) == {"fisher/" + name.partition("/")[2] for name in weights(folder)}
    free = finetune(described("llama", pairs, name="free", method="full")).folder
    assert losses(free)[0][1] == losses(folder)[0][1]
    assert losses(free)[-1][1] != losses(folder)[-1][1]
    assert not (free / aiding.FILE).exists()
    assert facts(free)[-1] == {}


def test_labels_are_aided_too(described, labelled):
    aids = settings(neftune=5, r_drop=1, l2_to_base=0.01, order="easy_first")
    folder = finetune(described("bert", labelled, method=DROPPING, training=aids | {"max_steps": 4})).folder
    assert [one["l2_to_base"] > 0 for one in facts(folder)] == [False, True, True, True]


def test_preferences_are_aided_too(described, tmp_path: Path, general):
    rows = [
        {"prompt": f"say {one}", "chosen": one.upper(), "rejected": one[::-1]}
        for one in (left + right for left in "abcd" for right in "efg")
    ]
    aids = settings(neftune=5, r_drop=1, l2_to_base=0.01, ewc=str(general), order={"kind": "easy_first", "by": "loss"})
    run = described(
        "llama", write(tmp_path / "dpo.jsonl", rows), method=DROPPING, training=aids | {"batch_size": 2, "max_steps": 2}
    )
    folder = finetune(run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"metrics": ("accuracy",)})})).folder
    assert losses(folder)[0][1] > 0.5
    assert set(facts(folder)[-1]) == {"l2_to_base", "ewc"}


def test_noise_forbids_to_keep_states(described, pairs, tmp_path: Path):
    upper = {"name": "selective", "last_blocks": 1}
    cache = {"when": "auto", "folder": str(tmp_path / "cache")}
    run = described("llama", pairs, name="noisy", method=upper, cache=cache, training=settings(neftune=5))
    finetune(run)
    assert not (tmp_path / "cache").exists()
    finetune(described("llama", pairs, name="quiet", method=upper, cache=cache))
    assert list((tmp_path / "cache").rglob("*"))


def test_easy_rows_come_first(described, tmp_path: Path):
    rows = write(tmp_path / "rows.jsonl", [{"prompt": "say", "completion": "ab" * (1 + number)} for number in range(24)])
    training = {"max_steps": 4, "batch_size": 4} | settings(order={"kind": "easy_first", "start": 0.01})
    folder = finetune(described("llama", rows, training=training)).folder
    tokens = [json.loads(line)["tokens"] for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert tokens == sorted(tokens)


def test_a_damaged_measurement_is_not_used(described, pairs, general):
    run = described("llama", pairs, name="stopped", training=settings(ewc=str(general)))
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=lambda: True)
    path = run.folder / "stopped" / aiding.FILE
    save_file({name: one + 1 for name, one in load_file(path).items()}, path)
    with pytest.raises(StorageError, match=r"aids.safetensors: what the run measured has changed since the run began"):
        resume(run.folder / "stopped")


# ---- what makes no sense ------------------------------------------------------------------------------------------------------


def refused(run: Any, said: str, kind: type[Exception] = ConfigurationError) -> None:
    with pytest.raises(kind, match=said):
        finetune(run)
    assert not (run.folder / str(run.name)).exists()


def test_r_drop_without_dropout(described, pairs):
    said = r"training.aids.r_drop: nothing drops out in what is trained, so both passes would say the same.*method.dropout"
    refused(described("llama", pairs, training=settings(r_drop=1)), said)


def test_weights_that_nobody_moves(described, labelled, general):
    refused(
        described("bert", labelled, method="head", training=settings(l2_to_base=1)), "only the new head is trained, and nothing of"
    )
    refused(described("bert", labelled, training=settings(ewc=str(general))), r"training.aids.ewc: an encoder writes no text")
    said = "`ewc` serves methods that train whole weights"
    refused(described("llama", labelled, method="prompt_tuning", training=settings(ewc=str(general))), said)


def test_an_order_by_a_loss_that_there_is_none_of(described, labelled):
    run = described("bert", labelled, training=settings(order={"kind": "easy_first", "by": "loss"}))
    refused(run, r"training.aids.order.by: the base has no loss of its own for these rows")


def test_old_rows_that_are_none(described, pairs, labelled, tmp_path: Path):
    refused(described("llama", pairs, training=settings(ewc=str(tmp_path / "gone.txt"))), "gone.txt", DataError)
    said = r"labels.jsonl: no row can be used for `training.aids.ewc`.*Give texts, or prompts with completions"
    refused(described("llama", pairs, training=settings(ewc=str(labelled))), said, DataError)


def test_a_policy_is_not_noisy(described, pairs):
    policy = {"name": "grpo", "grader": {"name": "string_check", "reference": "x"}}
    run = described("llama", pairs, objective=policy, training=settings(neftune=5))
    refused(run, r"training.aids.neftune: a policy learns from answers that it draws itself")
