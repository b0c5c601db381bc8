"""Changes of hidden states while text is written: prompts are changed where they are read, and what is written is not a prompt."""

from __future__ import annotations

import pytest
import torch

from tunewright.engine.engine import Engine
from tunewright.engine.members import Member
from tunewright.engine.sampling import Prompt, sample, sample_groups
from tunewright.engine.sampling.forest import common
from tunewright.engine.settings import Sampling
from tunewright.methods import Method, Tuning
from tunewright.methods._reft import Positions
from tunewright.methods.bottleneck_adapter import BottleneckAdapter
from tunewright.methods.direft import DiReFT
from tunewright.methods.ia3 import IA3
from tunewright.methods.loreft import LoReFT
from tunewright.models import Model
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine

METHODS: dict[str, Method] = {
    "loreft": LoReFT(rank=4, positions=Positions(first=2, last=4), share=False),
    "direft": DiReFT(rank=4, positions=Positions(first=0, last=3)),
    "parallel": BottleneckAdapter(width=4, kind="parallel"),
    "ia3": IA3(),
}
BEGINNING = tuple(range(40, 62))
PROMPTS = [(*BEGINNING, 7), (*BEGINNING, *range(100, 110)), BEGINNING[:21], (*BEGINNING, 9, 8)]  # the ends of some lie in all
SETTINGS = Sampling(max_new_tokens=10, temperature=0.7, seed=5)
ENDS = frozenset({2, 60, 61, 62, 63})  # some rows leave before the others


def roughened(model: Model, method: Method, seed: int = 1) -> Tuning:
    tuning = method.attach(model, 0)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return tuning


def by_hand(model: Model, prompt: tuple[int, ...], steps: int) -> list[int]:
    """Greedy decoding from transformers' own calls on a plain copy, with the places of the prompt set for each."""
    from tunewright.engine.places import at, of_prompt

    written: list[int] = []
    for _ in range(steps):
        tokens = torch.tensor([[*prompt, *written]])
        ahead, behind = of_prompt(prompt)
        rest = [-1] * len(written)
        with model.lanes.during((), places=at(tokens, [(ahead + rest, behind + rest)])), torch.no_grad():
            written.append(int(model.network(input_ids=tokens, use_cache=False).logits[0, -1].argmax()))
    return written


@pytest.mark.parametrize("layout", [None, "padded"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_prompts_that_begin_alike_are_each_alone(family: str, name: str, layout: str | None) -> None:
    model = tiny(family)
    engine = toy_engine(model, roughened(model, METHODS[name]), layout)
    together = sample(engine, PROMPTS, SETTINGS, ends=ENDS)
    assert together == sample(engine, PROMPTS, SETTINGS, ends=ENDS, cache=False)
    greedy = Sampling(max_new_tokens=6, temperature=0.0)
    found = sample(engine, PROMPTS, greedy, ends=frozenset())
    plain = toy_engine(model, None, "padded")
    with plain.evaluating():
        assert [list(one.tokens) for one in found] == [by_hand(model, prompt, 6) for prompt in PROMPTS]


@pytest.mark.parametrize("name", ["loreft", "parallel", "ia3"])
def test_an_encoder_decoder_reads_its_source_once(name: str) -> None:
    model = tiny("t5")
    engine = toy_engine(model, roughened(model, METHODS[name]))
    assert sample(engine, PROMPTS, SETTINGS, ends=ENDS) == sample(engine, PROMPTS, SETTINGS, ends=ENDS, cache=False)
    alone = [sample(engine, [prompt], Sampling(max_new_tokens=6, temperature=0.0), ends=ENDS)[0] for prompt in PROMPTS]
    assert sample(engine, PROMPTS, Sampling(max_new_tokens=6, temperature=0.0), ends=ENDS) == alone


def test_several_samples_of_prompts_that_end_apart() -> None:
    model = tiny("llama")
    forest = toy_engine(model, roughened(model, METHODS["loreft"]))
    found = sample_groups(forest, PROMPTS[:2], SETTINGS, ends=ENDS, samples=3)
    padded = sample_groups(toy_engine(model, None, "padded"), PROMPTS[:2], SETTINGS, ends=ENDS, samples=3)
    assert found == padded


@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_two_tunings_write_side_by_side(layout: str) -> None:
    alone = []
    for name in ("loreft", "parallel"):
        model = tiny("llama")
        alone.append(sample(toy_engine(model, roughened(model, METHODS[name]), layout), PROMPTS, SETTINGS, ends=ENDS))
    model = tiny("llama")
    probed = toy_engine(model, None, layout).probed
    tunings = [roughened(model, METHODS[name]) for name in ("loreft", "parallel")]
    engine = Engine(model, tunings[0].parameters(), probed)
    engine.join(1, Member(dict(tunings[1].parameters())))
    for number in (
        0,
        1,
    ):  # the draws of an answer depend on its number, so each tuning has its own call and the other's prompts beside
        asked = [Prompt(prompt, number) for prompt in PROMPTS] + [Prompt(prompt, 1 - number) for prompt in PROMPTS]
        assert sample(engine, asked, SETTINGS, ends=ENDS)[: len(PROMPTS)] == alone[number]


def test_what_prompts_share_ends_before_the_edge() -> None:
    prompts = [Prompt(prompt) for prompt in (PROMPTS[0], PROMPTS[1], PROMPTS[3])]
    assert common(prompts) == 22
    assert common(prompts, 5) == 18
    assert common(prompts, 10) == 0
    virtual = [Prompt((-1, -2, -3, *one)) for one in ((5, 6, 7), (5, 6, 8))]
    assert common(virtual) == 5
    assert common(virtual, 7) == 3
