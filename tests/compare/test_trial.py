"""One real run of a comparison, and what is measured of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tunewright.compare import costs
from tunewright.compare.trial import MEASURED, carry_out, done, main
from tunewright.core.configuration import build
from tunewright.evaluation.opening import open_model
from tunewright.finetune import Run

TEXT = "The river is long.\n\nA small cat sat under the green tree and looked at the house.\n"


def run_of(bases: Path, folder: Path, family: str, method: object, rows: str) -> Run:
    training = {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-2}
    data = {"data": {"train": str(bases / rows)}, "base": str(bases / family), "method": method, "training": training}
    data |= {"evaluation": {"written": 4, "sampling": {"max_new_tokens": 4}}, "threads": 1}
    return build(Run, data | {"folder": str(folder), "name": "one"})


@pytest.mark.parametrize(
    ("family", "method", "rows", "kind"),
    [
        ("llama", {"name": "lora", "rank": 2}, "pairs.jsonl", "loss"),
        ("bert", "full", "labels.jsonl", "cosine"),
    ],
)
def test_a_trial_measures_what_the_run_cost(bases: Path, tmp_path: Path, family: str, method: object, rows: str, kind: str) -> None:
    text = tmp_path / "general.txt"
    text.write_text(TEXT)
    run = run_of(bases, tmp_path, family, method, rows)
    found = carry_out(run, text)
    folder = tmp_path / "one"
    assert done(folder) == found
    assert found.forgetting_kind == kind
    assert found.forgetting is not None
    assert abs(found.forgetting) > 1e-6
    tensors = (folder / ("adapter" if family == "llama" else "model")).glob("*.safetensors")
    assert found.bytes == sum(path.stat().st_size for path in tensors) > 0
    assert found.seconds_per_thousand > 0
    assert found.slow_down == 1 if method == "full" else 0.2 < found.slow_down < 20
    report = json.loads((folder / "report.json").read_text())
    assert found.quality._asdict() == report["measures"][0]["tuned"]
    assert 0 < found.share <= 1
    assert found.parameters == report["cost"]["trainable_parameters"]
    (folder / MEASURED).unlink()
    again = carry_out(run, text)  # the run stands, only the measuring is done again
    assert again.quality == found.quality
    assert again.forgetting == pytest.approx(found.forgetting, abs=1e-6)


def test_what_nothing_has_changed_has_forgotten_nothing(bases: Path, tmp_path: Path) -> None:
    from tunewright.methods.lora import LoRA
    from tunewright.models.loading import load_folder

    model = load_folder(bases / "llama")
    LoRA(rank=2).attach(model, 0).save(tmp_path)
    assert costs.forgetting(tmp_path, str(bases / "llama"), TEXT).rise == pytest.approx(0, abs=1e-7)


def test_the_loss_on_general_text_is_that_of_transformers(bases: Path) -> None:
    opened = open_model(str(bases / "llama"))
    found = costs._losses(opened, TEXT)
    wanted = []
    for line in filter(None, TEXT.splitlines()):
        tokens = torch.tensor(opened.model.tokenizer(line)["input_ids"])[None]
        opened.model.network.set_attn_implementation("eager")
        with torch.no_grad():
            logits = opened.model.network(input_ids=tokens).logits[0, :-1].log_softmax(-1)
        wanted.append(-logits.gather(1, tokens[0, 1:, None])[:, 0])
    assert torch.allclose(found, torch.cat(wanted), atol=1e-4)


def test_seconds_leave_out_the_first_step_and_count_the_users_tokens(tmp_path: Path) -> None:
    steps = [{"number": n, "epoch": n / 4, "seconds": 100.0 if n == 1 else 2.0} for n in range(1, 5)]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    # Three steps of 2 s read three quarters of the 4,000 tokens.
    assert costs.seconds_per_thousand(tmp_path, 4000) == pytest.approx(2.0)


def test_general_text_is_the_users_or_what_ships(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert costs.general_text(tmp_path / "mine.txt", "embedded") == "mine"
    assert costs.general_text(None, "embedded") != costs.general_text(None, "minilm")
    assert len(costs.general_text(None, "minilm").splitlines()) >= 30


def test_a_trial_that_is_refused_says_so_in_one_line(bases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(bases, tmp_path, "llama", "lora", "missing.jsonl")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"run": run.model_dump(mode="json"), "general": None}))
    assert main(request) == 1
    assert "missing.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()
