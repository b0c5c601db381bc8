"""What a model answers and how probable it finds the references, against plain transformers calls on each row alone or padded."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from tunewright.data.rendering import Renderer, Rendering
from tunewright.data.rows import ChatRow, LabelRow, Message, PromptRow, Row, TextRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.engine.settings import Sampling
from tunewright.evaluation import tuned
from tunewright.evaluation.task import Answer
from tunewright.evaluation.tuned import Tuned
from tunewright.models import Model
from tunewright.models.heads import ClassificationHead
from tunewright.objectives import Objective
from tunewright.objectives.classification import Classification
from tunewright.objectives.sft import SFT
from tunewright.testing.tiny import tiny

LABELS = ("no", "yes", "neither of both")
PAIRS = [
    PromptRow(prompt=f"say {word * (number + 1)} ", completion=word) for number, word in enumerate(("a", "bcd", "ef", "long one"))
]
TEXTS = [LabelRow(text=f"{'text ' * number}number {number}", label=LABELS[number % 3]) for number in range(7)]


def approach(
    model: Model,
    objective: Objective,
    *,
    layout: str | None = None,
    head: ClassificationHead | None = None,
    new: int = 4,
    **rendering,
) -> Tuned:
    found = probe(model)
    engine = Engine(model, probed=found if layout is None else found._replace(layout=layout), head=head)
    renderer = Renderer(model.tokenizer, model.kind, model.context, Rendering(**rendering))
    labels = LABELS if isinstance(objective, Classification) else ()
    return Tuned(engine, renderer, objective, labels=labels, sampling=Sampling(max_new_tokens=new), name="tested")


def ids(model: Model, text: str) -> list[int]:
    return model.tokenizer(text).input_ids


def padded(sequences: list[list[int]], pad: int = 0) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in sequences], batch_first=True, padding_value=pad)


@torch.no_grad()
def answer_losses(model: Model, sides: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
    """-log p of every token of each answer, by one padded call of transformers on an untouched network."""
    network = model.network.eval()
    answers = padded([answer for _, answer in sides], -100)
    if model.kind == "encoder_decoder":
        read = [question for question, _ in sides]
        start = network.config.decoder_start_token_id
        output = network(
            input_ids=padded(read),
            attention_mask=padded([[1] * len(one) for one in read]),
            decoder_input_ids=padded([[start, *answer[:-1]] for _, answer in sides]),
        )
        wanted = answers
    else:
        whole = [[*question, *answer] for question, answer in sides]
        output = network(input_ids=padded(whole), attention_mask=padded([[1] * len(one) for one in whole]))
        wanted = padded([[*[-100] * (len(question) - 1), *answer, -100] for question, answer in sides], -100)
    losses = cross_entropy(output.logits.transpose(1, 2), wanted, reduction="none", ignore_index=-100)
    return [row[target >= 0] for row, target in zip(losses, wanted, strict=True)]


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize(("family", "layout"), [("bert", None), ("bert", "padded"), ("llama", None)])
def test_a_new_head_answers_as_a_plain_forward_pass(family: str, layout: str | None, pooling: str):
    model, plain = tiny(family), tiny(family)
    head = ClassificationHead(model.width, LABELS, torch.Generator().manual_seed(3), pooling=pooling, dropout=0.5)
    torch.nn.init.normal_(head.output.weight, std=0.1, generator=torch.Generator().manual_seed(4))
    asked = Classification(head="new", pooling=pooling, labels=LABELS)
    answers = approach(model, asked, layout=layout, head=head).answer(TEXTS, 0)
    for row, answer in zip(TEXTS, answers, strict=True):
        with torch.no_grad():
            body = plain.network if plain.kind == "encoder" else plain.network.model
            hidden_TD = body(input_ids=torch.tensor([ids(plain, row.text)])).last_hidden_state[0]
            pooled_D = {"mean": hidden_TD.mean(0), "first": hidden_TD[0], "last": hidden_TD[-1]}[pooling]
            logits_C = head.output(pooled_D)
        assert answer.text == LABELS[int(logits_C.argmax())]
        assert answer.loss == pytest.approx(float(cross_entropy(logits_C, torch.tensor(LABELS.index(row.label)))), abs=2e-4)
        assert answer.confidence == pytest.approx(float(logits_C.softmax(0).max()), abs=2e-4)
        assert answer.tokens == 1
    assert len({round(answer.loss, 3) for answer in answers}) > 3 or (family, pooling) == ("llama", "first")


@pytest.mark.parametrize(("family", "layout"), [("llama", "forest"), ("llama", "padded"), ("t5", None)])
@pytest.mark.parametrize("budget", [4096, 40])
def test_label_words_are_as_probable_as_each_label_alone(
    family: str, layout: str | None, budget: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tuned, "BUDGET", budget)  # 40 tokens: several passes, in which rows come in another order
    plain = tiny(family)
    answers = approach(tiny(family), Classification(head="words", labels=LABELS), layout=layout).answer(TEXTS, 0)
    space, end = ("", []) if family == "t5" else (" ", [2])
    for row, answer in zip(TEXTS, answers, strict=True):
        question = ids(plain, f"{row.text}\nLabel:")
        sums_C = torch.stack([-answer_losses(plain, [(question, ids(plain, space + label) + end)])[0].sum() for label in LABELS])
        chances_C = sums_C.log_softmax(0)
        assert answer.text == LABELS[int(sums_C.argmax())]
        assert answer.loss == pytest.approx(-float(chances_C[LABELS.index(row.label)]), abs=2e-3)
        assert answer.confidence == pytest.approx(float(chances_C.max().exp()), abs=1e-3)


def test_a_label_that_was_never_learned_has_no_loss():
    rows = [LabelRow(text="x", label="unheard of"), LabelRow(text="x", label="yes")]
    unknown, known = approach(tiny("llama"), Classification(head="words", labels=LABELS)).answer(rows, 0)
    assert unknown == Answer(known.text, None, 1, known.confidence)
    assert known.loss is not None


@pytest.mark.parametrize(("family", "layout"), [("llama", "forest"), ("llama", "padded"), ("gpt2", "forest"), ("t5", None)])
def test_the_loss_of_a_text_is_that_of_a_padded_batch_in_transformers(family: str, layout: str | None):
    plain = tiny(family)
    end = [] if family == "t5" else [2]
    wanted = answer_losses(plain, [(ids(plain, row.prompt), ids(plain, row.completion) + end) for row in PAIRS])
    answers = approach(tiny(family), SFT(), layout=layout).answer(PAIRS, 0)
    assert [answer.tokens for answer in answers] == [len(row.completion) + 1 for row in PAIRS]
    assert [answer.loss for answer in answers] == pytest.approx([float(losses.mean()) for losses in wanted], abs=1e-3)


def test_all_pieces_of_a_long_text_count_for_its_row():
    plain, text = tiny("llama"), "abcdefghijklmnop" * 2
    (answer, other) = approach(tiny("llama"), SFT(), max_tokens=20).answer([TextRow(text=text), PAIRS[0]], 9)
    tokens = [*ids(plain, text), 2]
    assert answer.text is None  # a text has no answer that could be written
    assert answer.tokens == len(tokens) - 1
    assert answer.loss == pytest.approx(float(answer_losses(plain, [(tokens[:1], tokens[1:])])[0].mean()), rel=0.2)
    assert other.text is not None


def test_greedy_answers_are_those_of_generate_in_transformers():
    plain = tiny("llama")
    answers = approach(tiny("llama"), SFT(), new=6).answer(PAIRS, len(PAIRS))
    for row, answer in zip(PAIRS, answers, strict=True):
        read = torch.tensor([ids(plain, row.prompt)])
        mask = torch.ones_like(read)
        written = plain.network.generate(read, attention_mask=mask, do_sample=False, max_new_tokens=6, pad_token_id=0)
        text = plain.tokenizer.decode(written[0, read.shape[1] :], skip_special_tokens=True).rstrip()
        assert answer.text == (text[1:] if text[:1] == " " and text[1:2] != " " else text)


@pytest.mark.parametrize(("written", "texts"), [(0, 0), (2, 2), (99, 4)])
def test_written_limits_the_answers_and_not_the_losses(written: int, texts: int):
    answers = approach(tiny("llama"), SFT()).answer(PAIRS, written)
    assert [answer.text is not None for answer in answers] == [index < texts for index in range(4)]
    assert all(answer.loss is not None for answer in answers)


def test_how_many_are_written_changes_no_answer():
    few, many = (approach(tiny("llama"), SFT()).answer(PAIRS, written) for written in (2, 4))
    assert [answer.text for answer in few[:2]] == [answer.text for answer in many[:2]]
    assert [answer.loss for answer in few] == [answer.loss for answer in many]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_refused_row_has_an_empty_answer_and_moves_no_other(family: str):
    long = PromptRow(prompt="x" * 60, completion="y")
    plain = approach(tiny(family), SFT(), truncate="refuse", max_tokens=24).answer(PAIRS, 9)
    found = approach(tiny(family), SFT(), truncate="refuse", max_tokens=24).answer([PAIRS[0], long, *PAIRS[1:]], 9)
    refused = found.pop(1)
    assert (refused.loss, refused.tokens, refused.confidence) == (None, 0, None)
    assert [answer.text for answer in found] == [answer.text for answer in plain]
    assert [answer.loss for answer in found] == pytest.approx([answer.loss for answer in plain], abs=1e-4)
    if family == "llama":
        assert refused.text == ""


def test_only_refused_rows_are_answered_too():
    long = PromptRow(prompt="x" * 60, completion="y")
    assert approach(tiny("llama"), SFT(), truncate="refuse", max_tokens=24).answer([long, long], 9) == [Answer("")] * 2


def test_labels_that_do_not_fit_are_an_empty_answer():
    answers = approach(tiny("t5"), Classification(head="words", labels=LABELS), max_tokens=6).answer(TEXTS[:2], 0)
    assert answers == [Answer("")] * 2


def test_a_row_without_text_is_refused_by_a_head_and_moves_no_other():
    model = tiny("llama")
    head = ClassificationHead(model.width, LABELS, torch.Generator().manual_seed(0), pooling="last")
    asked = approach(model, Classification(head="new", pooling="last", labels=LABELS), head=head)
    alone = asked.answer(TEXTS[:2], 0)
    first, empty, second = asked.answer([TEXTS[0], LabelRow(text="", label="no"), TEXTS[1]], 0)
    assert empty == Answer("")
    assert [first.loss, second.loss] == pytest.approx([answer.loss for answer in alone], abs=1e-5)


def test_no_rows_have_no_answers():
    assert approach(tiny("llama"), SFT()).answer([], 5) == []
    assert approach(tiny("llama"), Classification(head="words", labels=LABELS)).answer([], 5) == []


def test_answering_leaves_training_as_it_was():
    asked = approach(tiny("llama"), SFT())
    asked.engine.model.network.train()
    row: Row = ChatRow(messages=(Message(role="user", content="hi"), Message(role="assistant", content="ho")))
    (answer,) = asked.answer([row], 1)
    assert answer.tokens >= 3
    assert asked.engine.model.network.training
    assert torch.is_grad_enabled()
