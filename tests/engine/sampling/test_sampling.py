"""Writing text: greedy as transformers writes it, whatever shares a batch; groups, stop strings, scores, a bank."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from tunewright.engine import sampling
from tunewright.engine.attention import ForestUnsupportedError
from tunewright.engine.engine import Engine
from tunewright.engine.sampling import Prompt, Sample, sample, sample_groups
from tunewright.engine.sampling.forest import ForestDecoder
from tunewright.engine.settings import Sampling
from tunewright.models import Model
from tunewright.testing.tiny import DECODERS, ENCODER_DECODERS, tiny
from tunewright.testing.toy import toy_engine

PROMPTS = [(10, 11, 12), (40,), (9, 8, 7, 6, 5, 30, 31), (100, 101), (200, 61, 62, 63)]
SHOTS = tuple(range(20, 60))
NO_END = frozenset({-1})


def narrow_mistral() -> Model:
    """With a window of 8: shorter than the longest prompt and than the answers."""
    model = tiny("mistral")
    model.network.config.sliding_window = 8
    return model


def by_transformers(family: str, prompt: Sequence[int], new: int, ends: Sequence[int] = ()) -> list[int]:
    model = narrow_mistral() if family == "narrow" else tiny(family)
    ids = torch.tensor([list(prompt)])
    written = model.network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=list(ends) or None,
        pad_token_id=0,
    )[0].tolist()
    written = written[1:] if model.kind == "encoder_decoder" else written[len(prompt) :]
    return written[:-1] if ends and written[-1] in ends else written


def tokens_of(answers: Sequence[Sample]) -> list[list[int]]:
    return [list(answer.tokens) for answer in answers]


@pytest.mark.parametrize("family", [*DECODERS, *ENCODER_DECODERS])
def test_greedy_is_what_transformers_writes(family: str):
    """40 tokens: past the first room for keys, which has 32 places."""
    engine = toy_engine(tiny(family))
    found = sample(engine, PROMPTS, Sampling(max_new_tokens=40), ends=NO_END)
    assert tokens_of(found) == [by_transformers(family, prompt, 40) for prompt in PROMPTS]
    assert {one.reason for one in found} == {"length"}
    assert not any(one.finished for one in found)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma", "gemma2", "gpt2", "gpt_neox", "phi3", "t5"])
def test_greedy_groups_behind_a_shared_beginning(family: str):
    """The shots are a root of all prompts; windows of 64 tokens (Gemma 2) end inside root, prompt and answer in turn."""
    engine = toy_engine(tiny(family))
    prompts = [SHOTS + prompt for prompt in PROMPTS]
    found = sample_groups(engine, prompts, Sampling(max_new_tokens=30), ends=NO_END, samples=3)
    for prompt, answers in zip(prompts, found, strict=True):
        assert tokens_of(answers) == [by_transformers(family, prompt, 30)] * 3


def test_a_narrow_window():
    found = sample(toy_engine(narrow_mistral()), PROMPTS, Sampling(max_new_tokens=20), ends=NO_END)
    assert tokens_of(found) == [by_transformers("narrow", prompt, 20) for prompt in PROMPTS]
    assert tokens_of(found) != [by_transformers("mistral", prompt, 20) for prompt in PROMPTS]


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bart"])
def test_rows_end_where_transformers_ends_them(family: str):
    engine = toy_engine(tiny(family))
    free = sample(engine, PROMPTS, Sampling(max_new_tokens=12), ends=NO_END)
    ends = frozenset({free[0].tokens[3], free[2].tokens[0]})
    found = sample(engine, PROMPTS, Sampling(max_new_tokens=12), ends=ends)
    assert tokens_of(found) == [by_transformers(family, prompt, 12, sorted(ends)) for prompt in PROMPTS]
    assert (found[2].tokens, found[2].drawn, found[2].reason) == ((), free[2].tokens[:1], "end")
    assert found[0].finished


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_prompts_are_read_once_and_finished_rows_leave(family: str, monkeypatch: pytest.MonkeyPatch):
    engine = toy_engine(tiny(family))
    free = sample_groups(engine, PROMPTS, Sampling(max_new_tokens=12, temperature=1.0), ends=NO_END, samples=4)
    ends = frozenset(answer.tokens[place] for answers in free for place, answer in enumerate(answers, 2))
    widths: list[int] = []
    body = engine.model.body
    forward = body.forward
    monkeypatch.setattr(body, "forward", lambda **given: (widths.append(given["input_ids"].numel()), forward(**given))[1])
    found = sample_groups(engine, PROMPTS, Sampling(max_new_tokens=12, temperature=1.0), ends=ends, samples=4)
    assert widths[0] == sum(map(len, PROMPTS))
    assert widths[1] <= 20
    assert widths[1:] == sorted(widths[1:], reverse=True)
    assert 0 < widths[-1] < 15
    for answers, whole in zip(found, free, strict=True):
        assert all(one.tokens == full.tokens[: len(one.tokens)] for one, full in zip(answers, whole, strict=True))


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral", "gpt2", "opt", "t5", "bart"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "seed": 4}], ids=str)
def test_cached_is_uncached(family: str, settings: dict):
    engine = toy_engine(tiny(family))
    asked = Sampling(max_new_tokens=9, **settings)
    assert sample(engine, PROMPTS, asked, ends=NO_END) == sample(engine, PROMPTS, asked, ends=NO_END, cache=False)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_answer_does_not_depend_on_its_neighbours(family: str, monkeypatch: pytest.MonkeyPatch):
    engine = toy_engine(tiny(family))
    asked = Sampling(max_new_tokens=8, temperature=1.2, seed=9)
    together = sample_groups(engine, PROMPTS, asked, ends=NO_END, samples=3)
    assert [answers[0] for answers in together] == sample(engine, PROMPTS, asked, ends=NO_END)
    monkeypatch.setattr(sampling, "BATCH_TOKENS", 1)  # every row alone, the prompt read once for all of its rows
    assert sample_groups(engine, PROMPTS, asked, ends=NO_END, samples=3) == together
    assert sample(engine, PROMPTS, asked.model_copy(update={"seed": 10}), ends=NO_END) != [answers[0] for answers in together]
    assert any(len({answer.tokens for answer in answers}) == 3 for answers in together)


def test_a_family_that_the_forest_cannot_decode_is_padded(monkeypatch: pytest.MonkeyPatch):
    engine = toy_engine(tiny("llama"))
    wanted = sample(engine, PROMPTS, Sampling(max_new_tokens=6), ends=NO_END)

    def refuse(self: ForestDecoder) -> None:
        raise ForestUnsupportedError("attention sinks")

    monkeypatch.setattr(ForestDecoder, "read", refuse)
    assert sample(engine, PROMPTS, Sampling(max_new_tokens=6), ends=NO_END) == wanted
    assert engine.model.network.config._attn_implementation == "tunewright_forest"


def test_layers_that_share_a_number_are_found_out():
    model = tiny("llama")
    for block in model.network.model.layers:
        block.self_attn.layer_idx = 0
    engine = toy_engine(model)
    decoder = ForestDecoder(engine, [Prompt(PROMPTS[0])], engine.language_head)
    model.network.set_attn_implementation(sampling.DECODE)
    with torch.no_grad(), pytest.raises(ForestUnsupportedError, match="call themselves layer 0"):
        decoder.read()


def test_nothing_asked_nothing_answered():
    engine = toy_engine(tiny("llama"))
    assert sample(engine, [], Sampling(), ends=NO_END) == []
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        sample(engine, [(5,), ()], Sampling(), ends=NO_END)
    with pytest.raises(ValueError, match="0 samples"):
        sample_groups(engine, [(5,)], Sampling(), ends=NO_END, samples=0)


def test_the_network_is_left_as_it_was():
    model = tiny("llama")
    engine = Engine(model)
    model.network.train()
    before = [vars(module).keys() for module in model.network.modules()]
    sample(engine, PROMPTS[:1], Sampling(max_new_tokens=12), ends=NO_END)
    assert model.network.training
    assert model.network.config._attn_implementation == "tunewright_forest"
    assert [vars(module).keys() for module in model.network.modules()] == before
    assert model.lanes.runs == ()


# ---- stop strings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_stop_strings_end_an_answer_before_them(family: str):
    model = tiny(family)
    engine = toy_engine(model)
    asked = Sampling(max_new_tokens=30, temperature=1.5, seed=2)
    free = sample(engine, PROMPTS, asked, ends=NO_END)
    # One byte is one token, so a stop string of two letters spans tokens.
    number, place, stop = next(
        (number, place, text)
        for number, one in enumerate(free)
        for place in range(1, len(one.tokens) - 1)
        if (text := model.tokenizer.decode(one.tokens[place : place + 2])).isascii() and len(text) == 2
    )
    found = sample(engine, PROMPTS, asked.model_copy(update={"stops": ("never said", stop)}), ends=NO_END)[number]
    assert (found.reason, found.finished) == ("stop", True)
    assert found.drawn == free[number].tokens[: place + 2]
    assert found.tokens == free[number].tokens[:place]
    assert found.text == model.tokenizer.decode(found.tokens)


# ---- scores -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_log_probabilities_are_those_of_a_plain_pass(family: str, temperature: float):
    model = tiny(family)
    engine = toy_engine(model)
    settings = Sampling(max_new_tokens=10, temperature=temperature, top_k=20)
    plain = tiny(family).network
    for prompt, answers in zip(
        PROMPTS, sample_groups(engine, PROMPTS, settings, ends=frozenset(range(5, 30)), samples=2, scored=True), strict=True
    ):
        for answer in answers:
            written = list(answer.drawn)
            with torch.no_grad():
                if family == "t5":
                    logits = plain(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *written[:-1]]])).logits[0]
                else:
                    logits = plain(input_ids=torch.tensor([[*prompt, *written]])).logits[0, len(prompt) - 1 : -1]
            wanted = (logits / (temperature or 1.0)).log_softmax(1).gather(1, torch.tensor(written)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(answer.log_probabilities), wanted, atol=1e-4, rtol=1e-4)
    assert sample(engine, PROMPTS[:1], settings, ends=NO_END)[0].log_probabilities == ()


# ---- a bank -------------------------------------------------------------------------------------------------------------------


class Shift(nn.Module):
    """Adds a tuning's own number to the tokens of its lane, as attached modules do."""

    def __init__(self, host: nn.Module, lanes: object) -> None:
        super().__init__()
        self.host, self.lanes = host, lanes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.host(x)
        flat = y.reshape(-1, y.shape[-1]).clone()
        assert self.lanes.runs
        assert self.lanes.runs[-1].stop == len(flat)
        for lane in self.lanes.runs:
            flat[lane.start : lane.stop] += lane.tuning * torch.linspace(-1, 1, y.shape[-1])
        return flat.view(y.shape)


@pytest.mark.parametrize("layout", [None, "padded"])
def test_rows_of_several_tunings_in_one_batch(layout: str | None):
    model = tiny("llama")
    engine = toy_engine(model, layout=layout)
    for block in model.network.model.layers:
        block.mlp.down_proj = Shift(block.mlp.down_proj, model.lanes)
    prompts = [Prompt(PROMPTS[number % 5], number % 3) for number in range(9)]
    settings = Sampling(max_new_tokens=10, temperature=0.9)
    ends = frozenset(range(100, 120))
    together = sample(engine, prompts, settings, ends=ends)
    for number, prompt in enumerate(prompts):
        filled = [Prompt((7,), prompt.tuning)] * number + [prompt]  # the same index, so the same draws
        assert sample(engine, filled, settings, ends=ends)[number] == together[number]
    greedy = sample(engine, [Prompt(PROMPTS[0], tuning) for tuning in range(3)], Sampling(max_new_tokens=10), ends=NO_END)
    assert len(set(greedy)) == 3
