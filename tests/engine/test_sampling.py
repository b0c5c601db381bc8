"""Writing text: greedy as transformers writes it, drawn numbers by (seed, row, place), cached as uncached."""

import pytest
import torch

from tunewright.engine import sampling
from tunewright.engine.engine import Engine
from tunewright.engine.sampling import _pick, sample
from tunewright.engine.settings import Sampling
from tunewright.testing.tiny import DECODERS, ENCODER_DECODERS, tiny
from tunewright.testing.toy import toy_engine

PROMPTS = [(10, 11, 12), (40,), (9, 8, 7, 6, 5, 30, 31), (100, 101), (200, 61, 62, 63)]
NO_END = frozenset({-1})


def by_transformers(family: str, prompt: tuple[int, ...], new: int, ends: list[int]) -> list[int]:
    model = tiny(family)
    ids = torch.tensor([prompt])
    written = model.network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=ends or None,
        pad_token_id=0,
    )[0].tolist()
    written = written[1:] if model.kind == "encoder_decoder" else written[len(prompt) :]
    return written[:-1] if ends and written[-1] in ends else written


@pytest.mark.parametrize("family", [*DECODERS, *ENCODER_DECODERS])
def test_greedy_is_what_transformers_writes(family: str):
    engine = toy_engine(tiny(family))
    found = sample(engine, PROMPTS, Sampling(max_new_tokens=10), ends=NO_END)
    assert [list(one.tokens) for one in found] == [by_transformers(family, prompt, 10, []) for prompt in PROMPTS]
    assert not any(one.finished for one in found)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bart"])
def test_rows_end_where_transformers_ends_them(family: str):
    engine = toy_engine(tiny(family))
    free = sample(engine, PROMPTS, Sampling(max_new_tokens=12), ends=NO_END)
    ends = frozenset({free[0].tokens[3], free[2].tokens[0]})
    found = sample(engine, PROMPTS, Sampling(max_new_tokens=12), ends=ends)
    assert [list(one.tokens) for one in found] == [by_transformers(family, prompt, 12, sorted(ends)) for prompt in PROMPTS]
    assert found[2].tokens == ()
    assert found[0].finished
    assert found[2].finished


def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch):
    model = tiny("llama")
    engine = toy_engine(model)
    free = sample(engine, PROMPTS, Sampling(max_new_tokens=8), ends=NO_END)
    widths: list[int] = []
    forward = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda **given: (widths.append(len(given["input_ids"])), forward(**given))[1])
    ends = frozenset(one.tokens[2] for one in free[:3])
    found = sample(engine, PROMPTS, Sampling(max_new_tokens=8), ends=ends)
    assert widths[0] == len(PROMPTS)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < len(PROMPTS)
    assert all(one.tokens == full.tokens[: len(one.tokens)] for one, full in zip(found, free, strict=True))


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral", "gpt2", "opt", "t5", "bart"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "seed": 4}], ids=str)
def test_cached_is_uncached(family: str, settings: dict):
    engine = toy_engine(tiny(family))
    asked = Sampling(max_new_tokens=9, **settings)
    assert sample(engine, PROMPTS, asked, ends=NO_END) == sample(engine, PROMPTS, asked, ends=NO_END, cache=False)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_beyond_a_sliding_window(family: str):
    """Windows are 64 here: rows of different lengths pass it at different places, and one leaves on the way."""
    engine = toy_engine(tiny(family))
    prompts = [tuple(range(10, 10 + length)) for length in (60, 70, 20)]
    asked = Sampling(max_new_tokens=12)
    free = sample(engine, prompts, asked, ends=NO_END)
    assert [list(one.tokens) for one in free] == [by_transformers(family, prompt, 12, []) for prompt in prompts]
    ends = frozenset({free[2].tokens[4]})
    assert sample(engine, prompts, asked, ends=ends) == sample(engine, prompts, asked, ends=ends, cache=False)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_answer_does_not_depend_on_its_neighbours(family: str, monkeypatch: pytest.MonkeyPatch):
    engine = toy_engine(tiny(family))
    asked = Sampling(max_new_tokens=8, temperature=1.2, seed=9)
    together = sample(engine, PROMPTS, asked, ends=NO_END)
    monkeypatch.setattr(sampling, "BATCH_TOKENS", 1)  # every row alone
    assert sample(engine, PROMPTS, asked, ends=NO_END) == together
    assert sample(engine, PROMPTS, asked.model_copy(update={"seed": 10}), ends=NO_END) != together
    assert sample(engine, [PROMPTS[0]] * 3, asked, ends=NO_END)[1] != sample(engine, [PROMPTS[0]] * 3, asked, ends=NO_END)[2]


def test_nothing_asked_nothing_answered():
    assert sample(toy_engine(tiny("llama")), [], Sampling(), ends=NO_END) == []


def test_the_layout_and_the_mode_are_left_as_they_were():
    model = tiny("llama")
    engine = Engine(model)
    model.network.train()
    sample(engine, PROMPTS[:1], Sampling(max_new_tokens=2), ends=NO_END)
    assert model.network.training
    assert model.network.config._attn_implementation == "tunewright_forest"


def drawn(logits: torch.Tensor, rows: int = 4000, **settings) -> torch.Tensor:
    """How often each token is picked."""
    asked = Sampling(temperature=1.0, seed=1).model_copy(update=settings)
    return torch.bincount(torch.tensor(_pick(logits.expand(rows, -1), asked, range(rows), 0)), minlength=logits.shape[1]) / rows


LOGITS = torch.tensor([[0.4, 0.05, 0.3, 0.25]]).log()


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


def test_a_draw_at_the_very_top_stays_inside(monkeypatch: pytest.MonkeyPatch):
    """0.99999999 is 1 in float32: it must pick the last token that was kept, not the last one that there is."""
    monkeypatch.setattr(sampling.random, "Random", lambda seed: type("Top", (), {"random": lambda self: 0.9999999999})())
    for settings, last in (
        (Sampling(temperature=1, top_k=2), 2),
        (Sampling(temperature=1, top_p=0.6), 2),
        (Sampling(temperature=1), 1),
    ):
        assert _pick(LOGITS, settings, [0], 0) == [last]
