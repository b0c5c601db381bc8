import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from tunewright.core.errors import BaseModelError
from tunewright.models.loading import load
from tunewright.models.sources import folder_of, resolve


def test_an_id_with_and_without_a_revision():
    assert (resolve("owner/name").kind, resolve("owner/name@v1.0").hub_id) == ("hub", "owner/name@v1.0")


def test_a_folder_of_that_name_wins(llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(llama.parent.parent)
    assert resolve(f"{llama.parent.name}/llama").kind == "folder"


def test_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.perf_counter()
    with pytest.raises(BaseModelError) as caught:
        load("owner/name")
    assert time.perf_counter() - started < 2
    assert "'owner/name' is neither a folder nor in the local cache, and the hub cannot be reached" in str(caught.value)
    assert "copy the base here as a folder" in str(caught.value)
    assert caught.value.exit_code == 2


class FakeHub:
    """Stands for the hub: remembers what it was asked for and gives what a remote folder has."""

    def __init__(self, remote: Path, here: Path) -> None:
        self.remote, self.here, self.asked = remote, here, []

    def __call__(
        self, name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str], local_files_only: bool
    ) -> str:
        from huggingface_hub.utils import filter_repo_objects

        self.asked.append((name, revision, local_files_only))
        if local_files_only and not self.here.exists():
            raise LocalEntryNotFoundError("nothing here")
        self.here.mkdir(exist_ok=True)
        if not local_files_only:
            names = [str(path.relative_to(self.remote)) for path in self.remote.rglob("*") if path.is_file()]
            for found in filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
                shutil.copy(self.remote / found, self.here / found)
        return str(self.here)


@pytest.fixture
def hub(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    for name in ("pytorch_model.bin", "modeling_evil.py", "weights.pt", "original/model.safetensors", "consolidated.safetensors"):
        (llama / name).parent.mkdir(exist_ok=True)
        (llama / name).write_bytes(b"x")
    fake = FakeHub(llama, tmp_path / "here")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return fake


def test_only_plain_files_are_fetched_and_once(hub: FakeHub):
    assert load("owner/name@v1").base == "owner/name@v1"
    assert {path.suffix for path in hub.here.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    assert not (hub.here / "consolidated.safetensors").exists()
    assert hub.asked == [("owner/name", "v1", True), ("owner/name", "v1", False), ("owner/name", "v1", False)]
    hub.asked.clear()
    folder_of("owner/name@v1")
    assert hub.asked == [("owner/name", "v1", True)]


def test_a_refused_base_costs_no_download_of_its_weights(hub: FakeHub, edit):
    edit(hub.remote / "config.json", auto_map={"AutoModel": "modeling_evil.Model"})
    with pytest.raises(BaseModelError, match="asks for code"):
        load("owner/name")
    assert not (hub.here / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError, "accepted its licence"),
        (RepositoryNotFoundError, "no model 'owner/name'"),
        (RevisionNotFoundError, "no revision 'v9'"),
    ],
)
def test_what_the_hub_says(error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch):
    response = SimpleNamespace(headers={}, request=None)

    def refuse(*_: object, local_files_only: bool, **__: object) -> str:
        raise LocalEntryNotFoundError("nothing") if local_files_only else error("no", response=response)  # type: ignore[call-arg]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(BaseModelError, match=message):
        load("owner/name@v9")


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(BaseModelError, match=r"could not be fetched \(No space left"):
        load("owner/name")
