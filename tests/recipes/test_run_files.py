"""The run files in `recipes/`: each is one that `tunewright tune --config` takes as it stands."""

from pathlib import Path

import pytest

from tunewright.core.configuration import build, read_file
from tunewright.core.errors import ConfigurationError
from tunewright.finetune import Run
from tunewright.metrics import room as metrics

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_there_are_recipes() -> None:
    assert {"sentiment", "instruct", "faq"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_a_valid_run_file(path: Path) -> None:
    run = build(Run, read_file(path), path.name)
    assert set(run.evaluation.metrics) <= set(metrics.names())
    assert run.training.monitor in {"loss", "reward", *metrics.names()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_says_how_it_is_run_and_finds_its_data(path: Path) -> None:
    assert f"tunewright tune --config recipes/{path.name}" in path.read_text(encoding="utf-8")
    train = str(build(Run, read_file(path), path.name).data.train)
    assert not train.startswith("src/") or (ROOT / train).is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_misspelt_key_in_a_recipe_is_named(path: Path) -> None:
    data = read_file(path)
    data["trainin"] = data.get("training", {})
    with pytest.raises(ConfigurationError, match=r"unknown key 'trainin'.*Did you mean 'training'\?"):
        build(Run, data, path.name)
