import sys
from importlib.util import find_spec

import pytest

from tunewright.core.errors import MissingExtraError
from tunewright.models.loading import load
from tunewright.models.sources import minilm, resolve


@pytest.mark.skipif(find_spec(minilm.PACKAGE) is None, reason="the extra is not installed")
def test_the_real_encoder_loads():
    model = load("minilm")
    assert (model.kind, model.family, model.width, len(model.blocks), model.context) == ("encoder", "bert", 384, 6, 512)
    assert minilm.PACKAGE not in sys.modules  # its files are used, its code is not


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package")
    with pytest.raises(MissingExtraError, match=r"pip install 'tunewright\[minilm\]'"):
        resolve("minilm")
