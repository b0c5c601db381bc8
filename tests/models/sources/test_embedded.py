from pathlib import Path

import pytest

from tunewright.core.errors import BaseModelError
from tunewright.models.loading import load
from tunewright.models.sources import embedded, resolve


def test_it_lies_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    found = resolve("embedded")
    assert (found.kind, found.folder) == ("embedded", tmp_path)


def test_an_installation_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    with pytest.raises(BaseModelError, match=r"lacks the embedded base.*Reinstall"):
        resolve("embedded")


@pytest.mark.skipif(not (embedded.FOLDER / "config.json").is_file(), reason="a source tree without the weights")
def test_the_real_one_is_a_sound_decoder():
    model = load("embedded")
    assert (model.kind, model.base, model.folder) == ("decoder", "embedded", embedded.FOLDER)
    assert model.tokenizer.pad_token_id != model.tokenizer.eos_token_id
