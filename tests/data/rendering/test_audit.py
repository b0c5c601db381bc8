"""The counts of a rendered set, and the sets that are refused."""

from __future__ import annotations

import json

import pytest

from tunewright.core.errors import DataError
from tunewright.data.rendering import Renderer, Rendering
from tunewright.data.rendering.audit import audit
from tunewright.data.rows import ChatRow, LabelRow, Message, PromptRow, TextRow


def pairs(count: int, prompt: str = "abc", completion: str = "de") -> list[PromptRow]:
    return [PromptRow(prompt=prompt, completion=completion, where=f"f:{index + 1}") for index in range(count)]


def test_counts_are_right_and_plain_data(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=12))
    rows = [*pairs(8), *pairs(1, prompt="a" * 20), *pairs(2, completion=""), *pairs(1, prompt="<s>"), TextRow(text="b" * 30)]
    counts = audit(renderer.examples_of(rows), renderer)
    assert (counts.rows, counts.examples, counts.refused_rows) == (13, 13, 2)
    assert counts.refused[0].where == ("f:1", "f:2")
    assert counts.trained == 8 * 3 + 3 + 3 + 30
    assert (counts.truncated_rows, counts.truncated_tokens, counts.answers_cut) == (1, 12, 0)
    assert (counts.length_max, counts.length_p50) == (12, 7)
    assert counts.control == 1
    assert counts.ended == 11
    assert counts.share == counts.trained / counts.tokens
    assert json.loads(json.dumps(counts.as_dict()))["refused"][0]["reason"] == "empty_answer"


def test_quantiles_are_those_of_the_sorted_lengths(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder")
    rows = [PromptRow(prompt="a" * length, completion="b") for length in range(1, 101)]
    counts = audit(renderer.examples_of(rows), renderer)
    assert (counts.length_p50, counts.length_p95, counts.length_max) == (53, 98, 103)


def test_every_answer_cut_away_says_the_numbers_and_what_would_work(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=64, truncate="answer"))
    rows = pairs(20, prompt="x" * 310, completion="y" * 20)
    with pytest.raises(
        DataError, match=r"every answer was cut away: max_tokens is 64, but the shortest prompt has 311 tokens"
    ) as caught:
        audit(renderer.examples_of(rows), renderer)
    assert "max_tokens 332 keeps every row whole" in str(caught.value)
    enough = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=332, truncate="answer"))
    assert audit(enough.examples_of(rows), enough).truncated_rows == 0
    gives_way = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=64))
    assert audit(gives_way.examples_of(rows), gives_way).ended == 20


def test_half_the_answers_empty_is_counted_and_more_is_refused(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder")
    assert audit(renderer.examples_of([*pairs(5), *pairs(5, completion=" ")]), renderer).refused_rows == 5
    with pytest.raises(
        DataError, match=r"6 of 10 rows cannot be rendered: 6 because the answer is empty \(f:1, f:2, f:3, f:4, f:5\)"
    ):
        audit(renderer.examples_of([*pairs(4), *pairs(6, completion=" ")]), renderer)


def test_nothing_learned_names_the_reason(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder")
    rows = [ChatRow(messages=(Message(role="user", content="a"),), where="f:4")]
    with pytest.raises(DataError, match=r"no token of any row would be learned; 1 rows: .*no assistant message.*f:4"):
        audit(renderer.examples_of(rows), renderer)
    with pytest.raises(DataError, match="there are no rows"):
        audit([], renderer)


def test_ends_that_are_never_learned_are_refused(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=10, truncate="answer"))
    with pytest.raises(DataError, match="no row teaches where an answer ends: the end of every answer was cut away"):
        audit(renderer.examples_of(pairs(4, completion="y" * 20)), renderer)


def test_a_padding_token_that_is_the_end_token_is_noted_and_the_end_is_learned(tiny):
    renderer = Renderer(tiny.byte_level(pad_is_eos=True), "decoder")
    counts = audit(renderer.examples_of(pairs(3)), renderer)
    assert counts.ended == 3
    assert any("padding token is the end token" in note for note in counts.notes)


def test_a_tokenizer_that_does_not_know_the_script_is_refused(tiny):
    renderer = Renderer(tiny.t5_like(), "encoder_decoder")
    with pytest.raises(DataError, match="unknown to the tokenizer"):
        audit(renderer.examples_of(pairs(3, prompt="zz yy xx", completion="a")), renderer)


def test_encoders_have_no_targets_and_need_none(tiny):
    renderer = Renderer(tiny.bert_like(), "encoder")
    counts = audit(renderer.examples_of([LabelRow(text="a b", label="x")] * 3), renderer)
    assert (counts.rows, counts.trained, counts.tokens) == (3, 0, 12)


def test_notes_say_where_the_template_comes_from(tiny):
    row = ChatRow(messages=(Message(role="user", content="a"), Message(role="assistant", content="b")))
    plain = Renderer(tiny.byte_level(), "decoder")
    assert any("no chat template" in note for note in audit(plain.examples_of([row]), plain).notes)
    own = Renderer(tiny.byte_level(tiny.templates["chatml"]), "decoder")
    assert "chat template: of the base" in audit(own.examples_of([row]), own).notes
    assert not any("template" in note for note in audit(plain.examples_of(pairs(1)), plain).notes)
