"""Given continuations are as probable as plain transformers passes over each sequence alone find them."""

from itertools import chain

import pytest
import torch

from tunewright.data.forest import Segment, Tree
from tunewright.engine import scoring
from tunewright.engine.scoring import Scored, score_continuations, score_trees
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine

SHOTS = tuple(range(20, 60))
PROMPTS = [(*SHOTS, 10, 11, 12), (40,), (*SHOTS, 9, 8, 7, 6, 5), (9, 8), (*SHOTS[:30], 100)]
OPTIONS = [[(5,), (6, 7, 8), ()], [(9, 10)], [(5,), (5, 6), (7,), (250, 251, 252, 253)], [()], [(1, 2), (3, 4)]]


@torch.no_grad()
def plainly(family: str, prompt: tuple[int, ...], option: tuple[int, ...]) -> Scored:
    """One sequence, one pass, the model's own head."""
    network = tiny(family).network
    if family in ("t5", "bart"):
        start = network.config.decoder_start_token_id
        logits = network(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *option[:-1]]])).logits[0]
    else:
        logits = network(input_ids=torch.tensor([prompt + option])).logits[0, len(prompt) - 1 : -1]
    targets = torch.tensor(option)
    total = logits.log_softmax(1).gather(1, targets[:, None]).sum()
    return Scored(float(total), len(option), bool((logits.argmax(1) == targets).all()))


def check(family: str, found: list[list[Scored]], prompts: list[tuple[int, ...]], options: list[list[tuple[int, ...]]]) -> None:
    for prompt, own, scored in zip(prompts, options, found, strict=True):
        for option, one in zip(own, scored, strict=True):
            wanted = plainly(family, prompt, option) if option else Scored(0.0, 0, greedy=True)
            assert one.log_probability == pytest.approx(wanted.log_probability, abs=2e-3, rel=1e-4)
            assert (one.count, one.greedy) == (wanted.count, wanted.greedy)


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        *(("llama", "forest"), ("llama", "padded"), ("qwen3", "forest"), ("gemma2", "forest"), ("gemma2", "padded")),
        *(("gpt2", "forest"), ("mistral", "forest"), ("t5", None), ("bart", None)),
    ],
)
@pytest.mark.parametrize("budget", [4096, 60])
def test_scores_are_those_of_each_sequence_alone(family: str, layout: str | None, budget: int):
    engine = toy_engine(tiny(family), layout=layout)
    check(family, score_continuations(engine, PROMPTS, OPTIONS, token_budget=budget), PROMPTS, OPTIONS)


def test_what_the_network_would_write_is_greedy():
    engine = toy_engine(tiny("llama"))
    prompt = torch.tensor([PROMPTS[0]])
    written = tiny("llama").network.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0
    )
    answer = tuple(written[0, prompt.shape[1] :].tolist())
    other = (*answer[:3], answer[3] + 1)
    ((right, wrong),) = score_continuations(engine, PROMPTS[:1], [[answer, other]])
    assert (right.greedy, wrong.greedy) == (True, False)
    assert right.log_probability > wrong.log_probability


def test_a_shared_beginning_is_computed_once_and_the_head_once_a_state(monkeypatch: pytest.MonkeyPatch):
    engine = toy_engine(tiny("llama"))
    tokens, rows = [], []
    body, head = engine.model.body.forward, engine.model.network.lm_head.forward
    monkeypatch.setattr(engine.model.body, "forward", lambda **given: (tokens.append(given["input_ids"].numel()), body(**given))[1])
    monkeypatch.setattr(engine.model.network.lm_head, "forward", lambda x: (rows.append(len(x)), head(x))[1])
    prompts = [(*SHOTS, number) for number in range(5, 11)]
    found = score_continuations(engine, prompts, [[(1,), (2,), (3,), (4,)]] * 6)
    assert sum(tokens) == len(SHOTS) + 6 * (1 + 4)
    assert sum(rows) == 6  # the first token of every option is predicted by the same state
    check("llama", found, prompts, [[(1,), (2,), (3,), (4,)]] * 6)


def test_chunks_of_the_head_change_nothing(monkeypatch: pytest.MonkeyPatch):
    engine = toy_engine(tiny("llama"))
    whole = score_continuations(engine, PROMPTS, OPTIONS)
    monkeypatch.setattr(scoring, "chunk_rows", lambda vocabulary: 2)
    for one, other in zip(chain(*whole), chain(*score_continuations(engine, PROMPTS, OPTIONS)), strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        assert (one.count, one.greedy) == (other.count, other.greedy)


def test_packed_weights_change_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scoring, "MANY_TOKENS", 1)
    engine = toy_engine(tiny("llama"))
    check("llama", score_continuations(engine, PROMPTS, OPTIONS), PROMPTS, OPTIONS)


def test_trees_deeper_than_a_prompt_and_its_answers():
    """The second turn continues the first: both are scored, what was only read is not."""
    read = Segment((10, 11, 12))
    first = Segment((20, 21), 0, (1.0, 1.0))
    second = Segment((30, 31, 32), 1, (0.0, 0.0, 1.0))
    unread = Segment((50,), 0)
    engine = toy_engine(tiny("llama"))
    ((one, two, none), empty) = score_trees(engine, [Tree((read, first, second, unread)), Tree((read,))])
    assert one.log_probability == pytest.approx(plainly("llama", (10, 11, 12), (20, 21)).log_probability, abs=1e-3)
    assert two.log_probability == pytest.approx(plainly("llama", (10, 11, 12, 20, 21, 30, 31), (32,)).log_probability, abs=1e-3)
    assert (two.count, none, empty) == (1, Scored(0.0, 0, greedy=True), [])


def test_a_prompt_without_tokens_predicts_nothing():
    engine = toy_engine(tiny("llama"))
    with pytest.raises(ValueError, match="without tokens"):
        score_continuations(engine, [()], [[(5,)]])
    assert score_continuations(engine, [], []) == []
