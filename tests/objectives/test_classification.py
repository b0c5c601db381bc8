import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.data.rendering import Renderer
from tunewright.data.rows import LabelRow, PromptRow
from tunewright.engine.engine import Engine
from tunewright.models import Model
from tunewright.objectives import Objective, room
from tunewright.objectives.classification import Classification
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine

LABELS = ("dog", "cat", "ant")
ROWS = tuple(
    LabelRow(text=text, label=LABELS[number % 3]) for number, text in enumerate(("bow wow", "meow", "tik", "woof woof", "purr"))
)


class OnLabels(ObjectiveContract):
    rows = ROWS
    useless = (PromptRow(prompt="a", completion="", where="f:1"),)

    def labels(self) -> tuple[str, ...]:
        return LABELS

    def resolved(self, model: Model) -> Objective:
        return self.objective.resolve(model.kind)


class TestNewHead(OnLabels):
    objective = Classification(labels=LABELS)
    families = ("bert", "roberta", "modernbert")


class TestNewHeadOnDecoders(OnLabels):
    objective = Classification(head="new", labels=LABELS)
    families = ("llama", "gpt2")


class TestFirstToken(OnLabels):
    objective = Classification(head="new", labels=LABELS, pooling="first")
    families = ("bert",)


class TestLabelWords(OnLabels):
    objective = Classification(labels=LABELS)
    families = ("llama", "gpt2", "t5")


@pytest.mark.parametrize(
    ("kind", "head", "pooling"),
    [("encoder", "new", "mean"), ("decoder", "words", "last"), ("encoder_decoder", "words", "last")],
)
def test_what_is_left_open_follows_the_kind(kind: str, head: str, pooling: str):
    found = Classification().resolve(kind)
    assert (found.head, found.pooling) == (head, pooling)
    assert found.resolve(kind) == found


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"head": "words"}, "encoder", r"objective.head: an encoder writes no words.*Use `head: new`"),
        ({"head": "new"}, "encoder_decoder", r"objective.head: a new head is not offered.*Use `head: words`"),
    ],
)
def test_heads_that_cannot_be(settings: dict, kind: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        Classification(**settings).resolve(kind)


def test_a_head_needs_its_pooling():
    with pytest.raises(ConfigurationError, match="not decided yet"):
        Classification(head="new").make_head(tiny("bert"), LABELS, 0)
    with pytest.raises(ConfigurationError, match="two labels or more"):
        Classification(head="new", pooling="mean").make_head(tiny("bert"), ("one",), 0)


def test_heads_are_a_function_of_the_seed():
    one, same, other = (Classification(head="new", pooling="mean").make_head(tiny("bert"), LABELS, seed) for seed in (1, 1, 2))
    assert torch.equal(one.output.weight, same.output.weight)
    assert not torch.equal(one.output.weight, other.output.weight)


def test_a_label_without_a_place_is_no_target():
    """Rows of a label that the head does not know can be asked, and teach nothing."""
    model = tiny("bert")
    objective = Classification(labels=("no", "yes")).resolve("encoder")
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    rows = [LabelRow(text="a b c", label="yes"), LabelRow(text="d e", label="perhaps")]
    trees = [item.tree for item in objective.plant(rows, renderer)]
    assert [tree.segments[0].label for tree in trees] == [1, None]
    engine: Engine = toy_engine(model)
    both, one = objective.loss(engine, engine.collate(trees)), objective.loss(engine, engine.collate(trees[:1]))
    assert both.count == one.count == 1
    torch.testing.assert_close(both.total, one.total)


def test_the_room_lists_its_files():
    assert {"sft", "classification"} <= set(room.names())
    needed = {name: {"grader": {"name": "string_check"}} for name in ("grpo", "rloo", "ppo")}
    needed["distillation"] = {"teacher": "embedded"}
    for name in room.names():
        objective = room.make({"name": name, **needed.get(name, {})})
        assert room.make(room.dump(objective)) == objective
    with pytest.raises(ConfigurationError, match=r"poolling.*Did you mean 'pooling'"):
        room.make({"name": "classification", "poolling": "mean"})
