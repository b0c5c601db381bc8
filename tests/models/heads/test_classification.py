import json
from pathlib import Path

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.models.heads import ClassificationHead

LABELS = ["no", "yes", "maybe"]
SIZES = (3, 1, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def packed(width: int = 8, padding: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    ends = torch.tensor(SIZES).cumsum(0)
    segment_T = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    hidden_TD = torch.randn(int(ends[-1]) + padding, width, generator=seeded(1))
    return hidden_TD, torch.cat([segment_T, torch.full((padding,), 3)]), ends - torch.tensor(SIZES), ends - 1


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
@pytest.mark.parametrize("hidden", [0, 5])
def test_packed_equals_alone(pooling: str, hidden: int):
    head = ClassificationHead(8, LABELS, seeded(), pooling=pooling, hidden=hidden)  # type: ignore[arg-type]
    hidden_TD, segment_T, first_S, last_S = packed()
    logits_SC = head(hidden_TD, segment_T, first_S, last_S)
    assert logits_SC.shape == (3, 3)
    for segment, (first, last) in enumerate(zip(first_S, last_S, strict=True)):
        own_TD = hidden_TD[first : last + 1]
        pooled = {"first": own_TD[0], "mean": own_TD.mean(0), "last": own_TD[-1]}[pooling]
        expected = head.output(torch.tanh(head.dense(pooled)) if head.dense is not None else pooled)
        torch.testing.assert_close(logits_SC[segment], expected)


def test_segments_need_not_be_contiguous_for_the_mean():
    head = ClassificationHead(8, LABELS, seeded(), pooling="mean")
    hidden_TD, segment_T, first_S, last_S = packed()
    order = torch.randperm(len(hidden_TD), generator=seeded(2))
    torch.testing.assert_close(
        head(hidden_TD[order], segment_T[order], first_S, last_S), head(hidden_TD, segment_T, first_S, last_S)
    )


def test_initialised_by_its_generator_alone():
    torch.manual_seed(1)
    one = ClassificationHead(8, LABELS, seeded(7), hidden=4).state_dict()
    torch.manual_seed(2)
    two, three = (
        ClassificationHead(8, LABELS, seeded(7), hidden=4).state_dict(),
        ClassificationHead(8, LABELS, seeded(8), hidden=4).state_dict(),
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["output.weight"], three["output.weight"])


def test_dropout_is_drawn_from_its_generator_and_only_in_training():
    head, batch = ClassificationHead(8, LABELS, seeded(), dropout=0.5), packed()
    assert torch.equal(head.train()(*batch, generator=seeded(3)), head(*batch, generator=seeded(3)))
    assert not torch.equal(head(*batch, generator=seeded(3)), head(*batch, generator=seeded(4)))
    assert torch.equal(head.eval()(*batch, generator=seeded(3)), head(*batch))


def test_half_precision_hidden_states():
    head, (hidden_TD, *places) = ClassificationHead(8, LABELS, seeded(), pooling="mean"), packed()
    logits_SC = head(hidden_TD.bfloat16(), *places)
    assert logits_SC.dtype == torch.float32
    torch.testing.assert_close(logits_SC, head(hidden_TD, *places), atol=2e-3, rtol=0)


def test_gradients_reach_the_body():
    head, (hidden_TD, *places) = ClassificationHead(8, LABELS, seeded(), pooling="mean"), packed()
    hidden_TD.requires_grad_(True)
    head(hidden_TD, *places).square().sum().backward()
    assert hidden_TD.grad is not None
    assert bool((hidden_TD.grad[:8] != 0).any(dim=1).all())
    assert torch.equal(hidden_TD.grad[8:], torch.zeros(2, 8))


def test_saved_and_loaded(tmp_path: Path):
    head, batch = ClassificationHead(8, LABELS, seeded(), pooling="last", hidden=4, dropout=0.1), packed()
    head.save(tmp_path)
    again = ClassificationHead.load(tmp_path)
    assert (again.labels, again.pooling, again.hidden, again.dropout) == (tuple(LABELS), "last", 4, 0.1)
    assert torch.equal(again(*batch), head.eval()(*batch))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]


def test_a_damaged_head(tmp_path: Path):
    with pytest.raises(BaseModelError, match="holds no classification head"):
        ClassificationHead.load(tmp_path)
    ClassificationHead(8, LABELS, seeded()).save(tmp_path)
    shape = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps({**shape, "labels": ["a", "b"]}))
    with pytest.raises(BaseModelError, match=r"head\.safetensors: does not fit head\.json"):
        ClassificationHead.load(tmp_path)
    (tmp_path / "head.json").write_text(json.dumps({**shape, "import": "os"}))
    with pytest.raises(BaseModelError, match="does not describe a head"):
        ClassificationHead.load(tmp_path)


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (["one"], {}, "two labels or more"),
        (["a", "b", "a"], {}, "'a' stands twice"),
        (["a", "b"], {"pooling": "frist"}, "Did you mean 'first'"),
        (["a", "b"], {"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_wrong_settings(labels: list[str], settings: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        ClassificationHead(8, labels, seeded(), **settings)
