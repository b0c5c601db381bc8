"""Run folders: never overwritten, held by one process, and true to what was logged before a crash."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunewright.core import runs
from tunewright.core.errors import ConfigurationError, RunFolderError, StorageError
from tunewright.core.runs import RunFolder, WatchedFolder, create, existing


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = create(tmp_path / "runs", "first", "data")
    made.start("seed: 0\n", {"hash": "abc"})
    return made


def test_a_new_run_is_an_empty_folder(tmp_path):
    made = create(tmp_path / "deep" / "runs", "first", "data")
    assert made.path == tmp_path / "deep" / "runs" / "first"
    assert list(made.path.iterdir()) == []
    assert not made.is_run
    assert not made.is_done


def test_without_a_name_it_takes_the_datas_and_the_time(tmp_path):
    name = create(tmp_path, None, "orders").path.name
    stem, date, time = name.split("-")
    assert stem == "orders"
    assert (len(date), len(time)) == (8, 6)
    assert (date + time).isdigit()


def test_a_run_is_never_overwritten(folder):
    with pytest.raises(RunFolderError, match="already holds a run") as caught:
        create(folder.path.parent, "first", "data")
    assert f"tunewright resume {folder.path}" in caught.value.hint
    assert caught.value.exit_code == 2
    assert folder.settings.read_text() == "seed: 0\n"


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="exists and is not empty") as caught:
        create(tmp_path, "mine", "data")
    assert "resume" not in caught.value.hint
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("left", [[], [".lock"]])
def test_an_empty_folder_or_the_lock_of_a_killed_process_is_no_obstacle(tmp_path, left):
    (tmp_path / "mine").mkdir()
    for name in left:
        (tmp_path / "mine" / name).touch()
    assert create(tmp_path, "mine", "data").path == tmp_path / "mine"


@pytest.mark.parametrize("place", ["mine", "file/mine"])
def test_a_file_in_the_place_is_refused_and_kept(tmp_path, place):
    (tmp_path / place.partition("/")[0]).write_text("x")
    with pytest.raises(RunFolderError):
        create((tmp_path / place).parent, "mine", "data")
    assert (tmp_path / place.partition("/")[0]).read_text() == "x"


def test_a_folder_that_may_not_be_written_is_refused(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.access(locked, os.W_OK):
        pytest.skip("the system lets this user write everywhere")
    with pytest.raises(RunFolderError, match="cannot be written"):
        create(locked, "first", "data")
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize("owner", ["mkdir", "write_bytes"])
def test_a_disk_that_refuses_is_told_before_work_and_nothing_stays(tmp_path, monkeypatch, owner):
    def refused(path: Path, *_: object, **__: object) -> None:
        if owner == "write_bytes":
            path.touch()  # as a full disk does: the name is made, the bytes are refused
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, owner, refused)
    with pytest.raises(RunFolderError, match="No space left on device"):
        create(tmp_path, "first", "data")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert create(tmp_path, "first", "data").path.is_dir()


@pytest.mark.parametrize(("free", "allowed"), [(runs.LEAST_FREE, True), (runs.LEAST_FREE - 1, False)])
def test_a_disk_that_is_nearly_full_is_refused(tmp_path, monkeypatch, free, allowed):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    if allowed:
        assert create(tmp_path, "first", "data").path.is_dir()
        return
    with pytest.raises(RunFolderError, match=f"only {free} bytes are free"):
        create(tmp_path, "first", "data")
    assert list(tmp_path.iterdir()) == []


def test_what_makes_it_a_run_is_written_at_its_start(folder):
    assert folder.is_run
    assert folder.manifest == {"hash": "abc"}
    assert folder.checkpoints.is_dir()
    assert not folder.is_done
    inside = {folder.settings, folder.steps, folder.checkpoints, folder.data, folder.predictions}
    assert {path.parent for path in inside} == {folder.path}
    assert len(inside) == 5


def test_a_damaged_manifest_is_named(folder):
    (folder.path / "manifest.json").write_text("{")
    with pytest.raises(StorageError, match=r"manifest\.json"):
        _ = folder.manifest


def test_discard_removes_what_never_began_and_keeps_a_real_run(folder, tmp_path):
    folder.discard()
    assert folder.is_run
    begun = create(tmp_path, "second", "data")
    (begun.path / "data").mkdir()
    begun.discard()
    assert not begun.path.exists()
    begun.discard()  # and once more is no error


def test_steps_come_back_as_they_were_logged(folder):
    assert folder.logged() == []
    steps = [{"number": number, "loss": 1 / 3, "inner": {"tokens": number}} for number in range(1, 4)]
    for step in steps:
        folder.log(step)
    assert folder.logged() == steps


def test_a_loss_that_is_not_a_number_is_never_logged(folder):
    with pytest.raises(ValueError, match="JSON compliant"):
        folder.log({"number": 1, "loss": float("nan")})
    assert folder.logged() == []


def test_a_last_line_cut_at_any_byte_is_left_out(folder):
    folder.log({"number": 1})
    whole = folder.steps.read_bytes()
    last = json.dumps({"number": 2, "inner": {"loss": 0.5}, "more": [1]}).encode()
    for length in range(len(last)):
        folder.steps.write_bytes(whole + last[:length])
        assert folder.logged() == [{"number": 1}]
    folder.steps.write_bytes(whole + last)
    assert [step["number"] for step in folder.logged()] == [1, 2]


def test_zeros_that_a_power_cut_left_are_no_step(folder):
    folder.log({"number": 1})
    with folder.steps.open("ab") as file:
        file.write(b"\0" * 64)
    assert folder.logged() == [{"number": 1}]


@pytest.mark.parametrize(("step", "kept"), [(0, []), (2, [1, 2]), (9, [1, 2, 3])])
def test_steps_that_will_be_done_again_are_forgotten(folder, step, kept):
    for number in (1, 2, 3):
        folder.log({"number": number})
    with folder.steps.open("a") as file:
        file.write('{"number": 4, "lo')
    folder.forget_after(step)
    folder.log({"number": 99})
    assert [line["number"] for line in folder.logged()] == [*kept, 99]


def test_there_is_nothing_to_forget_before_the_first_step(folder):
    folder.forget_after(5)
    assert folder.logged() == []


def test_a_finished_run_is_not_gone_on_with(folder):
    folder.require_unfinished()
    (folder.path / "report.json").write_text("{}")
    assert folder.is_done
    with pytest.raises(RunFolderError, match="the run is finished") as caught:
        folder.require_unfinished()
    assert str(folder.path / "report.html") in caught.value.hint


def test_a_run_that_is_there_is_found(folder):
    assert existing(folder.path).path == folder.path


def test_a_run_that_is_not_there_names_those_beside_it(folder):
    other = RunFolder(folder.path.parent / "other")
    other.path.mkdir()
    (other.path / "run.yaml").write_text("")
    (folder.path.parent / "no-run").mkdir()
    with pytest.raises(RunFolderError, match="is not a run folder") as caught:
        existing(folder.path.parent / "frist")
    assert caught.value.allowed == (str(folder.path), str(other.path))
    assert f"Did you mean '{folder.path}'?" in str(caught.value)


def test_a_bare_name_is_looked_for_here(folder, monkeypatch):
    monkeypatch.chdir(folder.path.parent)
    with pytest.raises(RunFolderError, match="Did you mean 'first'"):
        existing(Path("frst"))
    monkeypatch.chdir(folder.path)
    with pytest.raises(RunFolderError):
        existing(Path("no/such/place"))


def test_a_lock_is_held_once_and_freed_also_after_an_error(folder):
    with folder.locked(), pytest.raises(RunFolderError, match="another process works in this run"), RunFolder(folder.path).locked():
        pass
    with pytest.raises(ZeroDivisionError), folder.locked():
        _ = 1 / 0
    with folder.locked():
        pass


def test_a_lock_keeps_another_process_out_and_dies_with_it(folder):
    program = """
import sys
from pathlib import Path
from tunewright.core.runs import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match="another process"), folder.locked():
            pass
    finally:
        other.kill()
        other.communicate()
    with folder.locked():
        assert folder.is_run


def test_all_processes_but_the_first_only_watch(tmp_path):
    folder = create(tmp_path, "run", "x")
    folder.start("a: 1\n", {})
    folder.log({"number": 1})
    watched = existing(folder.path, leads=False)
    with folder.locked(), watched.locked():
        watched.log({"number": 2})
        watched.forget_after(0)
        watched.discard()
    assert watched.logged() == folder.logged() == [{"number": 1}]
    nowhere = WatchedFolder(tmp_path / "not-there")
    with nowhere.locked():
        nowhere.discard()
    assert not nowhere.path.exists()


def test_what_a_run_or_a_merged_model_was_tuned_for_is_read_from_its_folder(tmp_path: Path) -> None:
    assert runs.settings_of(str(tmp_path)) == runs.settings_of("embedded") == {}
    (tmp_path / runs.MERGED).write_text("objective: {name: sft}\n")
    assert runs.settings_of(str(tmp_path)) == {"objective": {"name": "sft"}}
    (tmp_path / "run.yaml").write_text("objective: {name: reward}\n")
    assert runs.settings_of(str(tmp_path)) == {"objective": {"name": "reward"}}
    (tmp_path / "run.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(ConfigurationError, match="given twice"):
        runs.settings_of(str(tmp_path))
