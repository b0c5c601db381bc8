"""Task arithmetic on runs of one base."""

from pathlib import Path

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError, RunFolderError
from tunewright.core.storage import read_json
from tunewright.evaluation.opening import load_base, open_model
from tunewright.finetune import finetune
from tunewright.methods._saved import save_tuning
from tunewright.methods.lora import LoRA
from tunewright.models.loading import load_folder
from tunewright.run.combining import Term, combine, combine_adapters
from tunewright.testing.toy import difference, outputs, toy_engine, toy_trees, train

from .conftest import describe, spelling

SHORT = {"max_steps": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("combining")


@pytest.fixture(scope="module")
def runs(base, root: Path) -> dict[str, str]:
    """Three runs of one base, by different methods and on different rendering."""
    rows = spelling(root)
    settings = {
        "full": {"method": "full"},
        "lora": {"method": {"name": "lora", "rank": 2}, "seed": 1},
        "sparse": {"method": {"name": "sparse", "share": 0.1}, "rendering": {"separator": " => "}},
    }
    return {
        name: str(finetune(describe(root, base("llama"), rows, name=name, training=SHORT, **one)).folder)
        for name, one in settings.items()
    }


def whole(name: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in load_base(name).network.state_dict().items()}


def test_the_sum_is_the_formula_whatever_the_methods(runs: dict[str, str], base, tmp_path: Path) -> None:
    names, factors = list(runs.values()), [1.0, 0.5, -1.0]
    made = combine(list(map(Term, names, factors)), tmp_path / "sum")
    start, found = whole(base("llama")), load_folder(tmp_path / "sum").network.state_dict()
    tuned = [whole(name) for name in names]
    for name, value in found.items():
        wanted = start[name] + sum(factor * (one[name] - start[name]) for factor, one in zip(factors, tuned, strict=True))
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6, msg=name)
    assert made.changed > 0
    assert made.notes == (f"{names[0]} and {names[2]} differ in rendering: the combined model has the first one's.",)
    assert read_json(tmp_path / "sum" / "MANIFEST.json")["combined_from"] == [
        {"run": name, "weight": factor} for name, factor in zip(names, factors, strict=True)
    ]
    assert open_model(str(tmp_path / "sum")).settings["rendering"] == open_model(names[0]).settings["rendering"]


def test_what_is_added_and_taken_away_leaves_the_base(runs: dict[str, str], base, tmp_path: Path) -> None:
    combine([Term(runs["full"], 1.0), Term(runs["full"], -1.0)], tmp_path / "none")
    start = whole(base("llama"))
    assert all(torch.equal(value, start[name]) for name, value in load_folder(tmp_path / "none").network.state_dict().items())


def test_one_run_with_weight_one_is_that_run(runs: dict[str, str], tmp_path: Path) -> None:
    combine([Term(runs["lora"], 1.0)], tmp_path / "same")
    tuned = whole(runs["lora"])
    for name, value in load_folder(tmp_path / "same").network.state_dict().items():
        torch.testing.assert_close(value, tuned[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_runs_of_different_bases_are_not_added(method: str, runs: dict[str, str], described, pairs, tmp_path: Path) -> None:
    from tunewright.testing.tiny import save_tiny

    other = save_tiny("llama", tmp_path / "other", seed=3)
    run = described("llama", pairs, name="other", base=str(other), method=method, training=SHORT)
    with pytest.raises(BaseModelError, match="another base"):
        combine([Term(runs["lora"], 1.0), Term(str(finetune(run).folder), 1.0)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_head_of_its_own_cannot_be_added(described, labelled, tmp_path: Path) -> None:
    run = finetune(described("bert", labelled, training=SHORT)).folder
    with pytest.raises(BaseModelError, match="a head of its own, which no base has"):
        combine([Term(str(run), 1.0)], tmp_path / "out")


def test_what_is_asked_must_fit(runs: dict[str, str], base, tmp_path: Path) -> None:
    for combining in (combine, combine_adapters):
        with pytest.raises(ConfigurationError, match="no run to combine"):
            combining([], tmp_path / "out")
        with pytest.raises(RunFolderError, match="exists already"):
            combining([Term(runs["full"], 1.0)], tmp_path)
    with pytest.raises(BaseModelError, match="does not say which base"):
        combine([Term(base("llama"), 1.0)], tmp_path / "out")
    for name in ("full", "sparse"):
        with pytest.raises(ConfigurationError, match=f"{name}: is no LoRA, and only LoRAs"):
            combine_adapters([Term(runs["lora"], 1.0), Term(runs[name], 1.0)], tmp_path / "out")


@pytest.mark.parametrize("rank", [None, 3, 1])
def test_loras_become_one_lora(rank: int | None, base, tmp_path: Path) -> None:
    """Exactly, where the rank allows it; the sum of ranks 2 and 1 has rank 3."""
    terms = []
    for place, width in (("one", 2), ("two", 1)):
        model = load_folder(Path(base("llama")))
        tuning = LoRA(rank=width, targets=("linear",) if width == 2 else ("attention.query", "mlp.up")).attach(model, width)
        train(toy_engine(model, tuning), toy_trees(model, seed=width), 3)
        (tmp_path / place).mkdir()
        save_tuning(tuning, tmp_path / place, model)
        terms.append(Term(str(tmp_path / place), 1.5 if width == 2 else -0.5))
    combine(terms, tmp_path / "model")
    combine_adapters(terms, tmp_path / "adapter", rank=rank)
    whole, opened = load_folder(tmp_path / "model"), open_model(str(tmp_path / "adapter"))
    assert opened.tuning is not None
    trees = toy_trees(whole)
    apart = difference(outputs(opened.model, trees), outputs(whole, trees))
    assert apart < 1e-5 if rank != 1 else apart > 1e-4
    assert read_json(tmp_path / "adapter" / "MANIFEST.json")["combined_from"][1]["weight"] == -0.5
