from pathlib import Path

import pytest

from tunewright.core.errors import BaseModelError
from tunewright.models.facts import facts
from tunewright.models.loading import load
from tunewright.models.sources import folder_of, resolve
from tunewright.testing.tiny import save_tiny


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(f"base: {tmp_path / 'llama'}\nmethod: lora\n")
    return folder


def test_a_whole_network(run: Path):
    save_tiny("llama", run / "model")
    assert resolve(run).folder == run / "model"
    assert load(run).base == str(run)


def test_an_adapter_names_its_base(run: Path, llama: Path):
    (run / "adapter").mkdir()
    found = resolve(run)
    assert (found.kind, found.folder, found.adapter, found.base_of_adapter) == ("run", None, run / "adapter", str(llama))
    assert folder_of(run) == llama
    assert facts(run).family == "llama"
    with pytest.raises(BaseModelError, match=f"is an adapter on the base '{llama}', not a whole network.*merge"):
        load(run)


def test_a_run_on_a_run(run: Path, llama: Path, tmp_path: Path):
    (run / "adapter").mkdir()
    second = tmp_path / "second"
    (second / "adapter").mkdir(parents=True)
    (second / "run.yaml").write_text(f"base: {run}\n")
    assert folder_of(second) == llama


def test_runs_in_a_ring(run: Path):
    (run / "adapter").mkdir()
    (run / "run.yaml").write_text(f"base: {run}\n")
    with pytest.raises(BaseModelError, match="stand on each other in a ring"):
        folder_of(run)


def test_an_unfinished_run(run: Path):
    with pytest.raises(BaseModelError, match=r"no model/ and no adapter/ yet.*resume"):
        resolve(run)
