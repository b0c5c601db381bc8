"""Drawing: shares of drawn tokens against the exact distribution, and draws that are functions of their place."""

import pytest
import torch

from tunewright.engine.sampling import draw
from tunewright.engine.sampling.draw import Place, log_probabilities, pick, uniform
from tunewright.engine.settings import Sampling

LOGITS = torch.tensor([[0.4, 0.05, 0.3, 0.25]]).log()


def drawn(logits: torch.Tensor, rows: int = 4000, **settings) -> torch.Tensor:
    """How often each token is picked."""
    asked = Sampling(temperature=1.0, seed=1).model_copy(update=settings)
    places = [Place(row, 0, 0) for row in range(rows)]
    return torch.bincount(pick(logits.expand(rows, -1), asked, places), minlength=logits.shape[1]) / rows


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, [0.4, 0.05, 0.3, 0.25]),
        ({"top_k": 2}, [4 / 7, 0, 3 / 7, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_p": 0.6}, [4 / 7, 0, 3 / 7, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0]),
        ({"top_p": 0.99, "top_k": 3}, [0.4 / 0.95, 0, 0.3 / 0.95, 0.25 / 0.95]),
        ({"top_k": 2, "top_p": 0.5}, [1, 0, 0, 0]),  # of the two that are left, the first alone has 4/7
        ({"temperature": 0.5}, [0.16 / 0.315, 0.0025 / 0.315, 0.09 / 0.315, 0.0625 / 0.315]),
        ({"top_k": 99}, [0.4, 0.05, 0.3, 0.25]),
    ],
    ids=str,
)
def test_shares_of_drawn_tokens(settings: dict, wanted: list[float]):
    found = drawn(LOGITS, **settings)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float32), atol=0.025, rtol=0)
    assert not found[torch.tensor(wanted) == 0].any()


@pytest.mark.parametrize(
    "settings", [Sampling(temperature=1), Sampling(temperature=1, top_k=2), Sampling(temperature=1, top_p=0.6)]
)
def test_a_draw_at_the_very_top_stays_inside(settings: Sampling, monkeypatch: pytest.MonkeyPatch):
    """0.99999999 is 1 in float32: it must pick the last token that may be drawn, not the last one that there is."""
    monkeypatch.setattr(draw, "uniform", lambda seed, place: 0.9999999999)
    logits = torch.cat([LOGITS, torch.full((1, 2), -torch.inf)], dim=1)
    last = 3 if settings.top_p == 1 and not settings.top_k else 2
    assert pick(logits, settings, [Place(0, 0, 0)]).tolist() == [last]


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.999999])
def test_few_candidates_are_as_good_as_all(top_p: float, monkeypatch: pytest.MonkeyPatch):
    """Whether the largest 256 suffice or all are sorted, the same token is drawn: 0.999999 of 3000 needs them all."""
    torch.manual_seed(0)
    logits, places = torch.randn(20, 3000) * 4, [Place(row, 1, 2) for row in range(20)]
    asked = Sampling(temperature=1, top_p=top_p)
    found = pick(logits, asked, places)
    monkeypatch.setattr(draw, "CANDIDATES", 3000)
    assert pick(logits, asked, places).tolist() == found.tolist()


def test_numbers_are_even_and_a_function_of_their_place():
    numbers = torch.tensor([uniform(3, Place(row, sample, 7)) for row in range(50) for sample in range(40)])
    assert len(numbers.unique()) == len(numbers)
    assert ((numbers >= 0) & (numbers < 1)).all()
    torch.testing.assert_close(torch.histc(numbers, 4, 0, 1) / 2000, torch.full((4,), 0.25), atol=0.04, rtol=0)
    assert uniform(3, Place(1, 2, 3)) == uniform(3, Place(1, 2, 3)) != uniform(4, Place(1, 2, 3))


def test_log_probabilities_know_nothing_of_what_was_cut_off():
    found = log_probabilities(LOGITS, torch.tensor([2]), Sampling(temperature=1, top_k=1))
    torch.testing.assert_close(found.exp(), torch.tensor([0.3]))
    warmed = log_probabilities(LOGITS, torch.tensor([2]), Sampling(temperature=0.5))
    torch.testing.assert_close(warmed.exp(), torch.tensor([0.09 / 0.315]))
    torch.testing.assert_close(log_probabilities(LOGITS, torch.tensor([0]), Sampling()).exp(), torch.tensor([0.4]))
