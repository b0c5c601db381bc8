import pytest

from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import ChatRow, Message, PromptRow, TextRow
from tunewright.objectives.sft import SFT
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny


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
