"""Question answering: the contract, parity with transformers, long contexts in windows, the best span."""

import itertools

import pytest
import torch
from transformers import BertForQuestionAnswering

from tunewright.core.errors import ConfigurationError
from tunewright.data.rendering import Refusal, Renderer, Rendering
from tunewright.data.rendering.places import Window, windows
from tunewright.data.rows import LabelRow, QuestionRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.models import Model
from tunewright.objectives import Objective
from tunewright.objectives.question_answering import QuestionAnswering, best_span, marks, span_loss
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny

from .parity import assert_same_gradients, body_of, own_gradients


def asked(question: str, context: str, answer: str, where: str = "") -> QuestionRow:
    return QuestionRow(question=question, context=context, answers=(answer,), starts=(context.index(answer),), where=where)


ROWS = (
    asked("who?", "ann ran to ulm", "ann"),
    asked("where?", "ann ran to ulm", "ulm"),
    asked("what?", "so the fir fell", "the fir"),
    QuestionRow(question="why?", context="it fell", answers=(), starts=()),
)


class TestQuestionAnswering(ObjectiveContract):
    objective = QuestionAnswering()
    rows = ROWS
    useless = (
        LabelRow(text="x", label="y", where="a:1"),
        QuestionRow(question="q", context="", answers=(), starts=(), where="a:2"),
    )
    families = ("llama", "gpt2", "bert")

    def resolved(self, model: Model) -> Objective:
        return self.objective.decided(model.kind, self.rows)


def renderer_of(model: Model, **settings) -> Renderer:
    return Renderer(model.tokenizer, model.kind, model.context, Rendering(**settings))


def test_loss_and_gradients_are_those_of_transformers():
    """`BertForQuestionAnswering` on each row alone (it would let padding take part in the softmax), averaged."""
    reference = BertForQuestionAnswering(body_of("bert", num_labels=2)).eval()
    model = tiny("bert")
    reference.bert.load_state_dict(model.network.state_dict())
    objective = QuestionAnswering().decided("encoder", ROWS)
    head = objective.make_head(model, (), 0)
    reference.qa_outputs.load_state_dict(head.output.state_dict())
    trees = [item.tree for item in objective.plant(ROWS, renderer_of(model)) if not isinstance(item, Refusal)]
    loss = own_gradients(Engine(model, probed=probe(model), head=head.eval()), objective, trees)
    losses = []
    for row in ROWS:
        inputs = model.tokenizer(row.question, row.context, return_tensors="pt")
        offset = inputs["input_ids"].shape[1] - len(row.context)
        start = offset + row.starts[0] if row.answers else 0
        end = start + len(row.answers[0]) - 1 if row.answers else 0
        tokens = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        losses.append(reference(**tokens, start_positions=torch.tensor([start]), end_positions=torch.tensor([end])).loss)
    theirs = torch.stack(losses).mean()
    theirs.backward()
    assert loss == pytest.approx(float(theirs.detach()), rel=1e-5)
    assert_same_gradients({"head": (head.output, reference.qa_outputs), "body": (model.network, reference.bert)}, 12)


def test_a_long_context_is_learned_in_overlapping_windows():
    model = tiny("llama")
    row = asked("who?", "x" * 40 + " ann " + "y" * 35, "ann", "a:1")
    renderer, objective = renderer_of(model, max_tokens=40), QuestionAnswering(overlap=10)
    parts = windows(row.question, row.context, renderer, 10)
    assert all(len(part.tokens) <= 40 for part in parts)
    covered = [place for part in parts for place in part.places]
    assert {start for start, _ in covered} == set(range(80))
    assert [one.places[-1][1] - two.places[0][0] for one, two in itertools.pairwise(parts)] == [10] * (len(parts) - 1)
    planted = objective.plant([row], renderer)
    assert [item.row for item in planted] == [0] * len(parts)
    spans = [marks(part, row) for part in parts]
    pointing = [one for one in spans if one[0] != 3]
    assert len(pointing) in (1, 2)  # windows without the whole answer point to their first token
    for part, one in zip(parts, spans, strict=True):
        if one[0] != 3:
            begin, end = one.index(1) - part.begin, one.index(2) - part.begin
            assert row.context[part.places[begin][0] : part.places[end][1]] == "ann"


def test_a_question_that_leaves_no_room_is_refused():
    objective, short = QuestionAnswering(), renderer_of(tiny("bert"), max_tokens=20)
    (found,) = objective.plant([asked("who" * 5 + "?", "ann ran to ulm", "ann", "a:7")], short)
    assert isinstance(found, Refusal)
    assert (found.reason, found.where) == ("too_long", "a:7")


def test_the_best_span_by_hand():
    """Starts (0, 5, 1), ends (8, 2, 4): 5 + 4 is the largest sum with no end before its start; within one token it is 5 + 2."""
    window = Window((7, 7, 7, 7), 1, ((0, 3), (4, 7), (8, 11)))
    logits = torch.tensor([[99.0, 99.0], [0.0, 8.0], [5.0, 2.0], [1.0, 4.0]])
    assert best_span(logits, window, 30)[:3] == (4, 11, 9.0)
    logits[1, 1] = 6.0
    assert best_span(logits, window, 1)[:3] == (4, 7, 7.0)


def test_the_loss_of_a_span_by_hand():
    """Equal logits over four tokens: log 4 for the start and for the end."""
    assert float(span_loss(torch.zeros(4, 2), torch.tensor([0, 1, 2, 0]))) == pytest.approx(torch.tensor(4.0).log().item())


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_answer_is_taken_from_all_windows(family: str):
    """Logits made up by hand: the largest sum stands in the last window but one, and its characters are those of the context."""
    model = tiny(family)
    row, renderer = (
        asked("where?", "".join(chr(ord("a") + place % 26) for place in range(90)), "xyz"),
        renderer_of(model, max_tokens=32),
    )
    objective = QuestionAnswering(overlap=4).decided(model.kind, ROWS[:1])
    engine = Engine(model, probed=probe(model), head=objective.make_head(model, (), 0))
    parts = windows(row.question, row.context, renderer, 4)
    assert len(parts) > 3
    outputs = [torch.zeros(len(part.tokens), 2) for part in parts]
    outputs[0][parts[0].begin + 2, 0] = 3.0
    outputs[-2][parts[-2].begin + 5, 0] = outputs[-2][parts[-2].begin + 7, 1] = 2.0
    outputs[-2][0] = 50.0  # "not in this window", which only matters where a question may have no answer
    reading = objective.read(engine, renderer, row, outputs)
    begin = parts[-2].places[5][0]
    assert reading.text == row.context[begin : begin + 3]
    assert (reading.details["start"], reading.details["end"]) == (begin, begin + 3)
    planted = [torch.tensor(marks(part, row)) for part in parts]
    assert reading.loss == pytest.approx(sum(map(float, map(span_loss, outputs, planted))) / len(parts))
    with engine.evaluating():
        (again,) = objective.readings(engine, renderer, [row])
    assert again.text in row.context


def test_no_answer_is_an_answer_where_training_had_such_rows():
    assert QuestionAnswering().decided("encoder", ROWS).unanswerable is True
    assert QuestionAnswering().decided("encoder", ROWS[:3]).unanswerable is False
    model = tiny("bert")
    renderer = renderer_of(model)
    (part,) = windows("why?", "it fell", renderer, 0)
    outputs = torch.zeros(len(part.tokens), 2)
    outputs[0], outputs[part.begin, 0] = 1.0, 1.5
    for possible, nothing in ((True, 1.0), (False, 1.0), (True, 0.5)):
        objective = QuestionAnswering(unanswerable=possible).decided("encoder", ROWS)
        engine = Engine(model, probed=probe(model), head=objective.make_head(model, (), 0))
        outputs[0] = nothing
        reading = objective.read(engine, renderer, ROWS[3], [outputs])
        assert (reading.text == "") == (possible and nothing == 1.0)


def test_a_prompt_is_a_question_with_its_text():
    wanted = QuestionRow(question="who?", context="ann ran", answers=(), starts=())
    objective = QuestionAnswering()
    assert objective.asked("who?\nann ran") == objective.asked('{"question": "who?", "context": "ann ran"}') == wanted
    for wrong in ("who?", '{"question": "who?"}', "{who?"):
        with pytest.raises(ConfigurationError, match="needs the text that holds its answer"):
            objective.asked(wrong)
    assert objective.guess(ROWS).answer(ROWS[0]) == "ann"
