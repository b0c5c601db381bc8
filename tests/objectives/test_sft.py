import pytest
import torch
from torch import Tensor
from transformers.trainer_pt_utils import LabelSmoother

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import ChatRow, Message, PromptRow, TextRow
from tunewright.methods.full import Full
from tunewright.models import Model
from tunewright.objectives.sft import SFT
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine


def said(*contents: str) -> tuple[Message, ...]:
    return tuple(Message(role=("user", "assistant")[place % 2], content=content) for place, content in enumerate(contents))


class TestPrompts(ObjectiveContract):
    objective = SFT()
    families = ("llama", "gemma2", "gpt2", "t5")
    rows = tuple(PromptRow(prompt=f"spell {word}", completion=" ".join(word)) for word in ("ab", "cde", "f", "ghij", "kl"))
    useless = (
        PromptRow(prompt="a", completion="", where="f:1"),
        PromptRow(prompt="a", completion="b", weight=0.0, where="f:2"),
    )


class TestSmoothed(ObjectiveContract):
    objective = SFT(label_smoothing=0.2)
    families = ("llama", "t5")
    rows = TestPrompts.rows


class TestWhole(ObjectiveContract):
    objective = SFT(learn="whole")
    families = ("llama", "gemma2")
    rows = TestPrompts.rows


class TestTexts(ObjectiveContract):
    objective = SFT()
    families = ("llama", "gpt2")
    rows = tuple(TextRow(text=text) for text in ("one two", "three", "four five six", "seven eight"))
    useless = (TextRow(text=" ", where="f:1"), TextRow(text="a b", weight=0.0, where="f:2"))


class TestChats(ObjectiveContract):
    objective = SFT()
    families = ("llama", "t5")
    rows = tuple(
        ChatRow(messages=said(*turns)) for turns in (("hi", "ho"), ("a", "b", "c", "d"), ("x", "yz"), ("what", "that", "so", "no"))
    )
    useless = (ChatRow(messages=said("only asked"), where="f:1"), ChatRow(messages=(), where="f:2"))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_answer_beyond_the_context_is_refused(family: str):
    model = tiny(family)
    row = PromptRow(prompt="a", completion="long " * 200, where="f:4")
    (found,) = SFT().plant([row], Renderer(model.tokenizer, model.kind, model.context))
    assert isinstance(found, Refusal)
    assert found.where == "f:4"


# ---- what is learned, and how much -------------------------------------------------------------------------------------------


def planted(model: Model, objective: SFT, *rows: PromptRow | ChatRow) -> list[Tree]:
    return [item.tree for item in objective.plant(rows, Renderer(model.tokenizer, model.kind, model.context))]


def by_transformers(model: Model, tree: Tree, weights: list[float]) -> Tensor:
    """sum w -log p / sum w over a whole conversation, from transformers' own logits; `weights` of every token."""
    tokens = torch.tensor([tree.segments[0].tokens])
    costs = -model.network(input_ids=tokens).logits[0, :-1].log_softmax(1).gather(1, tokens[0, 1:, None])[:, 0]
    learned = torch.tensor(weights[1:])
    return (costs * learned).sum() / learned.sum()


def spoken(model: Model, tree: Tree) -> str:
    """The row as it is read, with `$` for the end token: one character a token."""
    return "".join("$" if token == 2 else model.tokenizer.decode([token]) for token in tree.segments[0].tokens)


CHAT = ChatRow(
    weight=0.5,
    messages=(
        Message(role="user", content="ask"),
        Message(role="assistant", content="one", weight=0.5),
        Message(role="user", content="more"),
        Message(role="assistant", content="two", weight=0.0),
        Message(role="user", content="and"),
        Message(role="assistant", content="three"),
        Message(role="user", content="bye"),
        Message(role="assistant", content="never", weight=0.0),
    ),
)
READ = "User: ask\nAssistant: one$\nUser: more\nAssistant: two$\nUser: and\nAssistant: three$"


def test_every_message_counts_by_its_own_weight_and_its_rows():
    """By hand: 0.25 for " one" and its end, 0 for " two", 0.5 for " three" and its end; what comes behind is not even read."""
    model = tiny("llama")
    (tree,) = planted(model, SFT(), CHAT)
    assert spoken(model, tree) == READ
    weights = [0.0] * len(READ)
    for words, weight in ((" one$", 0.25), (" three$", 0.5)):
        start = READ.index(words)
        weights[start : start + len(words)] = [weight] * len(words)
    assert list(tree.segments[0].targets) == weights
    engine = toy_engine(model, Full().attach(model, 0))
    total, count = SFT().loss(engine, engine.collate([tree]))
    other = tiny("llama")  # the same weights, without the engine's attention
    wanted = by_transformers(other, tree, weights)
    assert float(count) == 5 * 0.25 + 7 * 0.5
    torch.testing.assert_close(total / count, wanted, atol=1e-5, rtol=1e-5)
    parameters = dict(other.network.named_parameters())
    ours = torch.autograd.grad(total / count, list(engine.parameters.values()))
    theirs = torch.autograd.grad(wanted, [parameters[name] for name in engine.parameters])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_half_the_weight_is_half_the_pull():
    """In a step with another row, a message of weight 0.5 counts as half of one of weight 1, and one of weight 0 not at all."""
    model = tiny("llama")
    engine = toy_engine(model, Full().attach(model, 0))

    def sums(weight: float) -> tuple[float, float]:
        messages = (Message(role="user", content="a"), Message(role="assistant", content="bc", weight=weight))
        later = (Message(role="user", content="d"), Message(role="assistant", content="e"))
        (tree,) = planted(model, SFT(), ChatRow(messages=messages + later))
        with engine.evaluating():
            total, count = SFT().loss(engine, engine.collate([tree]))
        return float(total), float(count)

    none, half, full = (sums(weight) for weight in (0.0, 0.5, 1.0))
    assert [count for _, count in (none, half, full)] == [3.0, 5.0, 7.0]
    assert half[0] == pytest.approx((none[0] + full[0]) / 2, rel=1e-5)


def test_the_whole_text_by_transformers():
    """Every token but the first, each with the weight of its row; the loss is that of transformers with `labels=input_ids`."""
    model = tiny("llama")
    row = PromptRow(prompt="spell ab", completion="a b")
    (whole,), (answer,) = (planted(model, SFT(learn=learn), row) for learn in ("whole", "completion"))
    assert whole.segments[0].tokens == answer.segments[0].tokens
    assert whole.segments[0].targets == (0.0,) + (1.0,) * (whole.size - 1)
    assert answer.trained == len("a b$")
    engine = toy_engine(model, Full().attach(model, 0))
    total, count = SFT(learn="whole").loss(engine, engine.collate([whole]))
    tokens = torch.tensor([whole.segments[0].tokens])
    wanted = tiny("llama").network(input_ids=tokens, labels=tokens).loss
    torch.testing.assert_close(total / count, wanted, atol=1e-5, rtol=1e-5)
    (half,) = planted(model, SFT(learn="whole"), CHAT)
    assert set(half.segments[0].targets[1:]) == {0.5}


@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothing_is_that_of_transformers(family: str, smoothing: float):
    """Their LabelSmoother on the network's own logits, in value and in every gradient; losses are measured without it."""
    model = tiny(family)
    trees = planted(model, SFT(), PromptRow(prompt="spell ab", completion="a b"), PromptRow(prompt="c", completion="de f"))
    engine = toy_engine(model, Full().attach(model, 0))
    batch = engine.collate(trees)
    total, count = SFT(label_smoothing=smoothing).loss(engine, batch)
    wanted = LabelSmoother(smoothing)({"logits": engine.target_logits(batch)}, batch.targets_N)
    torch.testing.assert_close(total / count, wanted, atol=1e-5, rtol=1e-5)
    parameters = [one for one in engine.parameters.values() if one.requires_grad]
    ours, theirs = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (total / count, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert engine.language_loss(batch).total.item() != total.item()
    assert SFT(label_smoothing=0.0).loss(engine, batch).total.item() == engine.language_loss(batch).total.item()


def test_what_cannot_be_learned_so():
    with pytest.raises(ConfigurationError, match=r"objective.learn: an encoder-decoder reads the prompt and never writes it"):
        SFT(learn="whole").decided("encoder_decoder", TestPrompts.rows)
    assert SFT(learn="whole").decided("decoder", TestPrompts.rows) == SFT(learn="whole")
    for given, said in (({"label_smoothing": 1}, "less than 1"), ({"label_smoothing": -0.1}, "0"), ({"learn": "all"}, "'whole'")):
        with pytest.raises(ConfigurationError, match=said):
            build(SFT, given)
