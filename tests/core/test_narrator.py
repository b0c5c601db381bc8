"""The narrator: silent by itself, heard when a subclass speaks."""

from __future__ import annotations

import pytest

from tunewright.core.narrator import SILENT, Narrator

CALLS = [("stage", ("Read",)), ("say", ("a fact",)), ("warn", ("a doubt",)), ("progress", (1, 2, {"loss": 0.5}))]


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_the_library_is_silent(name, arguments, capfd):
    assert getattr(SILENT, name)(*arguments) is None
    assert capfd.readouterr() == ("", "")


def test_a_subclass_may_hear_one_thing_and_ignore_the_rest():
    class Heard(Narrator):
        def __init__(self):
            self.warnings = []

        def warn(self, text):
            self.warnings.append(text)

    heard = Heard()
    for name, arguments in CALLS:
        getattr(heard, name)(*arguments)
    assert heard.warnings == ["a doubt"]


def test_nothing_is_kept_between_runs():
    assert type(SILENT) is Narrator
    assert not vars(SILENT)
