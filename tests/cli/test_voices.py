"""Of several processes, the first one speaks; another one only where it alone knows what is wrong."""

from __future__ import annotations

import pytest

from tunewright.cli import failing, terminal
from tunewright.core.errors import ConfigurationError, DivergedError, Interrupted, StorageError

ERRORS = [ConfigurationError("wrong"), DivergedError("not finite"), Interrupted("stopped"), StorageError("full")]


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.usefixtures("second")
def test_what_all_find_alike_the_first_one_says(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing.refused(error, as_json=True, debug=False) == error.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == ("✗ process 1 of 2: full.\n" if isinstance(error, StorageError) else "")


@pytest.mark.usefixtures("second")
def test_an_accident_of_another_process_is_told_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing.crashed(KeyError("lost"), as_json=True, debug=False) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "process 1 of 2: KeyError: 'lost'" in said.err


@pytest.mark.usefixtures("second")
def test_progress_and_results_are_the_first_ones(capfd: pytest.CaptureFixture[str]) -> None:
    with terminal.narrator() as told:
        told.stage("Tune")
        told.warn("careful")
        told.interject("stopping", last=False)
    terminal.show(terminal.Outcome({"run": "x"}), as_json=True)
    assert capfd.readouterr() == ("", "")


def test_alone_all_of_it_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    with terminal.narrator() as told:
        told.stage("Tune")
        told.interject("stopping", last=False)
    terminal.show(terminal.Outcome({"run": "x"}), as_json=True)
    assert failing.refused(DivergedError("not finite"), as_json=False, debug=False) == 1
    out, err = capfd.readouterr()
    assert out == '{"run": "x"}\n'
    assert "Tune" in err
    assert "stopping" in err
    assert "✗ not finite." in err
