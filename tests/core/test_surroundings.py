"""Machine, versions, the state of the code; and what the package's own door does before anything heavy loads."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import tunewright
from tunewright.core import surroundings


def in_a_new_process(program: str) -> object:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_versions_name_what_a_result_depends_on():
    found = surroundings.versions()
    assert found["torch"] == version("torch")
    assert found["tunewright"] == tunewright.__version__
    assert found["python"] == platform.python_version()


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(surroundings, "PACKAGES", ("torch", "no-such-package-at-all"))
    assert set(surroundings.versions()) == {"python", "torch"}


def test_the_machine_is_described_without_the_name_of_host_or_user(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    facts = surroundings.machine()
    assert set(facts) == {"processor", "cores", "memory", "system"}
    assert all(isinstance(value, str) and value for value in facts.values())
    words = set(" ".join(facts.values()).split())
    assert not words & {"secret-host", socket.gethostname(), getpass.getuser()}
    assert float(facts["memory"].removesuffix(" GiB")) >= 0
    json.dumps(facts, allow_nan=False)


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    assert 1 <= surroundings.cores() <= os.cpu_count()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert surroundings.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert surroundings.cores() == 1


def test_variables_are_read_and_a_default_never_wins_over_the_user(monkeypatch):
    monkeypatch.delenv("TUNEWRIGHT_TEST_ONLY", raising=False)
    assert surroundings.variable("TUNEWRIGHT_TEST_ONLY") is None
    monkeypatch.setenv("TUNEWRIGHT_TEST_ONLY", "mine")
    surroundings.set_default("TUNEWRIGHT_TEST_ONLY", "default")
    assert surroundings.variable("TUNEWRIGHT_TEST_ONLY") == "mine"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch) -> Path:
    root = tmp_path / "tunewright"
    shutil.copytree(Path(surroundings.__file__).parent, root / "core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(surroundings, "__file__", str(root / "core" / "surroundings.py"))
    return root


def test_the_hash_of_the_code_changes_with_each_source_file_and_only_with_them(sources):
    before = surroundings.code_hash()
    (sources / "notes.txt").write_text("not code")
    assert surroundings.code_hash() == before
    changed = sources / "core" / "units.py"
    kept = changed.read_bytes()
    seen = {before}
    changed.write_bytes(kept + b"#")
    seen.add(surroundings.code_hash())
    changed.write_bytes(kept)
    assert surroundings.code_hash() == before
    changed.rename(sources / "core" / "unites.py")
    seen.add(surroundings.code_hash())
    (sources / "core" / "unites.py").unlink()
    seen.add(surroundings.code_hash())
    assert len(seen) == 4


def test_the_hash_does_not_depend_on_where_the_code_stands(sources, tmp_path, monkeypatch):
    before = surroundings.code_hash()
    elsewhere = shutil.copytree(sources, tmp_path / "elsewhere" / "tunewright")
    monkeypatch.setattr(surroundings, "__file__", str(elsewhere / "core" / "surroundings.py"))
    assert surroundings.code_hash() == before
    assert len(before) == 16


def test_the_door_of_the_package_loads_nothing_heavy():
    program = """
import json, sys
import tunewright
from tunewright.core import configuration, errors, narrator, registry, runs, scores, seeds, storage, surroundings, units
score = tunewright.Score(1, 0, 2, 3)
print(json.dumps([name for name in ("torch", "transformers", "numpy", "tunewright.finetune") if name in sys.modules]))
"""
    assert in_a_new_process(program) == []


def test_public_names_are_those_of_their_homes():
    assert tunewright.Score is __import__("tunewright.core.scores", fromlist=["Score"]).Score
    assert tunewright.TunewrightError is __import__("tunewright.core.errors", fromlist=["x"]).TunewrightError
    assert tunewright.Run is __import__("tunewright.finetune", fromlist=["Run"]).Run
    assert all(getattr(tunewright, name) is not None for name in tunewright.__all__)
    assert set(dir(tunewright)) >= {"__version__", "__all__"}


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tunewright' has no attribute 'finetun'"):
        tunewright.finetun  # noqa: B018
    with pytest.raises(ImportError):
        exec("from tunewright import Runn")
    assert not hasattr(tunewright, "torch")


def test_finetune_is_the_module_whatever_was_imported_before():
    program = """
import json
import tunewright
from tunewright.finetune import Run, finetune
print(json.dumps([callable(finetune), tunewright.Run is Run, tunewright.finetune.finetune is finetune]))
"""
    assert in_a_new_process(program) == [True, True, True]


def test_the_cache_stands_where_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for name in ("TUNEWRIGHT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert surroundings.cache_folder() == Path("/home/somebody/.cache/tunewright")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert surroundings.cache_folder() == Path("/scratch/tunewright")
    monkeypatch.setenv("TUNEWRIGHT_CACHE", "~/mine")
    assert surroundings.cache_folder() == Path("/home/somebody/mine")


LAUNCHED = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}


def test_a_launcher_says_which_process_this_is(monkeypatch):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert surroundings.process() == surroundings.Process(3, 4, 1, 2)
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert surroundings.process() == surroundings.Process(3, 4, 3, 4)


@pytest.mark.parametrize(("name", "value"), [("RANK", ""), ("RANK", "4"), ("WORLD_SIZE", "many"), ("MASTER_ADDR", "")])
def test_names_that_are_somebody_elses_do_not_make_several_processes(monkeypatch, name, value):
    for key, given in (LAUNCHED | {name: value}).items():
        monkeypatch.setenv(key, given)
    assert surroundings.process() == surroundings.Process(0, 1, 0, 1)
