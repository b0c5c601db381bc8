"""The head of spans, and heads of every kind in their folders."""

import json
from pathlib import Path

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.models.heads import ClassificationHead, Head, room
from tunewright.models.heads.question_answering import QuestionAnsweringHead


def test_two_outputs_a_token(tmp_path: Path):
    head = QuestionAnsweringHead(8, (), torch.Generator().manual_seed(0))
    assert head.labels == ("start", "end")
    assert head(torch.randn(5, 8), torch.zeros(5, dtype=torch.long), torch.tensor([0]), torch.tensor([4])).shape == (5, 2)
    head.save(tmp_path)
    assert isinstance(Head.load(tmp_path), QuestionAnsweringHead)
    with pytest.raises(ConfigurationError, match="a start and an end"):
        QuestionAnsweringHead(8, ("a", "b"), torch.Generator())


def test_the_kind_is_the_name_of_the_file():
    assert {"classification", "multi_label", "question_answering", "regression", "token_classification"} <= set(room.names())
    assert all(room[name].kind() == name for name in room.names())


def test_a_head_of_an_earlier_run_names_no_kind_and_is_read(tmp_path: Path):
    head = ClassificationHead(8, ("no", "yes"), torch.Generator().manual_seed(1), pooling="last", hidden=3, dropout=0.1)
    head.save(tmp_path)
    shape = json.loads((tmp_path / "head.json").read_text())
    assert shape.pop("kind") == "classification"
    assert sorted(shape) == ["dropout", "hidden", "labels", "pooling", "width"]
    (tmp_path / "head.json").write_text(json.dumps(shape))
    again = Head.load(tmp_path)
    assert isinstance(again, ClassificationHead)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in head.state_dict().items())


def test_a_kind_that_nobody_knows(tmp_path: Path):
    with pytest.raises(BaseModelError, match="holds no task head"):
        Head.load(tmp_path)
    ClassificationHead(8, ("no", "yes"), torch.Generator()).save(tmp_path)
    shape = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps(shape | {"kind": "multi_lable"}))
    with pytest.raises(BaseModelError, match="'multi_lable', which this version does not know"):
        Head.load(tmp_path)
