"""Prompt/completion rows, texts, labels, the three kinds of bases, truncation, and the bulk path."""

from __future__ import annotations

import copy
import random
import time

import pytest

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError
from tunewright.data.rendering import Refusal, Rendered, Renderer, Rendering, RowRefused
from tunewright.data.rows import ChatRow, LabelRow, Message, PreferenceRow, PromptRow, Row, TextRow


def pair(prompt: str, completion: str, **fields) -> PromptRow:
    return PromptRow(prompt=prompt, completion=completion, **fields)


def learned(renderer: Renderer, rendered: Rendered) -> str:
    segment = rendered.tree.segments[-1]
    return renderer.encoding.decode([t for t, w in zip(segment.tokens, segment.targets, strict=True) if w > 0], keep_special=True)


@pytest.fixture(params=["byte_level", "sentence_piece"])
def family(request, tiny):
    return getattr(tiny, request.param)


def test_prompt_separator_completion_end(family):
    renderer = Renderer(family(), "decoder")
    for prompt, completion, text in [
        ("a", "b", "a\nb"),
        ("a ", "b", "a b"),
        ("a", " b", "a b"),
        ("a\n", "\nb", "a\n\nb"),
        ("", "b", "b"),
    ]:
        rendered = renderer.example(pair(prompt, completion, weight=2.0, where="f:1"))
        assert renderer.encoding.decode(rendered.tree.segments[0].tokens) == text
        assert set(rendered.tree.segments[0].targets) <= {0.0, 2.0}
        assert rendered.tree.segments[0].tokens[-1] == renderer.encoding.eos
        assert rendered.tree.segments[0].targets[-1] == 2.0
        assert rendered.where == "f:1"


def test_the_seam_does_not_move_with_the_answer(family):
    """Encoding the joined text would merge across the seam; encoding the sides separately never does."""
    renderer = Renderer(family(), "decoder", config=Rendering(separator=""))
    draw = random.Random(5)
    alphabet = ["a", "the", " ", "\n", ".", "el", "o", "é", "</s>", "<s>"]
    for _ in range(300):
        prompt, completion = ("".join(draw.choices(alphabet, k=draw.randint(1, 8))) for _ in range(2))
        if not completion.strip():
            continue
        row = pair(prompt, completion)
        rendered = renderer.example(row)
        segment = rendered.tree.segments[0]
        asked = renderer.prompt(row)
        assert segment.tokens[: len(asked)] == asked == renderer.prompt(pair(prompt, ""))
        assert [weight > 0 for weight in segment.targets] == [False] * len(asked) + [True] * (len(segment.tokens) - len(asked))
        text = renderer.encoding.decode(segment.tokens[len(renderer.encoding.prefix) : -1], keep_special=True)
        assert text.strip() == (prompt + completion).strip()
        assert renderer.decode(segment.tokens[len(asked) :]).strip() == completion.strip()


def test_a_llama_tokenizer_gets_no_space_in_the_middle(tiny):
    renderer = Renderer(tiny.sentence_piece(), "decoder")
    tokens = renderer.example(pair("a b", "the end")).tree.segments[0].tokens
    assert renderer.encoding.decode(tokens) == "a b\nthe end"
    assert tokens[0] == renderer.encoding.bos


def test_decode_stops_at_the_end_and_keeps_indentation(tiny):
    renderer = Renderer(tiny.byte_level(tiny.templates["chatml"]), "decoder")
    ids = renderer.encoding.ids
    assert renderer.decode(ids(" yes \n</s>no")) == "yes"
    assert renderer.decode(ids("a<|im_end|>\n<|im_start|>")) == "a"
    assert renderer.decode(ids("    indented")) == "    indented"
    assert len(renderer.stops) == 2


def test_separator_settles_on_what_most_rows_have():
    spaced = [pair("a", " b"), pair("c", " d"), pair("e", "f")]
    assert Rendering().settled(spaced).separator == ""
    assert Rendering().settled(spaced[1:]).separator == "\n"
    assert Rendering(separator="|").settled(spaced).separator == "|"


def test_formats_and_systems(tiny):
    tokenizer = tiny.byte_level(tiny.templates["chatml"])
    text = Renderer(tokenizer, "decoder").encoding.decode
    renderer = Renderer(tokenizer, "decoder", config=Rendering(prompt_format="Q: {prompt}\nA:", system="S"))
    assert text(renderer.prompt(pair("why", " so"))) == "S\n\nQ: why\nA:"
    renderer = Renderer(tokenizer, "decoder", config=Rendering(prompt_format="chat"))
    assert text(renderer.prompt(pair("why", "so")), keep_special=True) == "<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n"
    assert learned(renderer, renderer.example(pair("why", "so"))) == "so<|im_end|>"
    with pytest.raises(ConfigurationError, match=r"prompt_format.*\{prompt\}"):
        build(Rendering, {"prompt_format": "no place"})
    with pytest.raises(ConfigurationError, match="Did you mean 'truncate'"):
        build(Rendering, {"truncat": "prompt"})
    with pytest.raises(ConfigurationError, match=r"there is no chat template 'missing\.jinja'"):
        Renderer(tokenizer, "decoder", config=Rendering(template="missing.jinja"))


def test_a_template_can_be_read_from_a_file(tiny, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text(tiny.templates["zephyr"])
    renderer = Renderer(tiny.byte_level(tiny.templates["chatml"]), "decoder", config=Rendering(template=str(file)))
    row = ChatRow(messages=(Message(role="user", content="a"), Message(role="assistant", content="b")))
    assert learned(renderer, renderer.example(row)) == "b</s>"


def test_everything_can_be_learned(tiny):
    renderer = Renderer(tiny.byte_level(adds_bos=True), "decoder", config=Rendering(train_on="all"))
    segment = renderer.example(pair("ab", "cd")).tree.segments[0]
    assert segment.targets == (0.0,) + (1.0,) * (len(segment.tokens) - 1)
    chat = ChatRow(messages=(Message(role="user", content="a"), Message(role="assistant", content="b")))
    segment = renderer.example(chat).tree.segments[0]
    assert segment.targets == (0.0,) + (1.0,) * (len(segment.tokens) - 1)


def test_empty_answers_are_refused_and_errors_survive_copying(tiny):
    with pytest.raises(RowRefused, match="f:9: the completion is empty") as caught:
        Renderer(tiny.byte_level(), "decoder").example(pair("a", " \n", where="f:9"))
    again = copy.deepcopy(caught.value)  # takes the same road as pickling, across process borders
    assert (again.reason, str(again)) == ("empty_answer", str(caught.value))


def test_rows_of_weight_zero_are_refused(tiny):
    with pytest.raises(RowRefused, match="no token of the row would be learned") as caught:
        Renderer(tiny.byte_level(), "decoder").example(pair("a", "b", weight=0.0))
    assert caught.value.reason == "nothing_trained"


# --- truncation


def test_the_prompt_gives_way_from_its_oldest_end(tiny):
    renderer = Renderer(tiny.byte_level(adds_bos=True), "decoder", config=Rendering(max_tokens=10))
    row = pair("0123456789", "abcd")
    rendered = renderer.example(row)
    assert renderer.encoding.decode(rendered.tree.segments[0].tokens, keep_special=True) == "<s>789\nabcd</s>"
    assert (rendered.truncated, rendered.answer_cut, rendered.ended) == (7, 0, True)
    asked = renderer.prompt(row)
    assert rendered.tree.segments[0].tokens[: len(asked)] == asked
    assert renderer.encoding.decode(renderer.prompt(row, room=6), keep_special=True) == "<s>89\n"


def test_an_answer_that_does_not_fit_is_refused_with_the_numbers(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=8))
    with pytest.raises(RowRefused, match=r"the answer has 11 tokens .* max_tokens 8") as caught:
        renderer.example(pair("a", "0123456789"))
    assert caught.value.refusal.answer_tokens == 11
    assert renderer.prompt(pair("a", "0123456789"))


def test_the_answer_is_cut_only_when_asked_and_says_so(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=8, truncate="answer"))
    rendered = renderer.example(pair("ab", "0123456789"))
    assert learned(renderer, rendered) == "01234"
    assert (rendered.truncated, rendered.answer_cut, rendered.ended) == (6, 6, False)
    with pytest.raises(RowRefused) as caught:
        renderer.example(pair("abcdefghij", "0"))
    assert caught.value.reason == "nothing_trained"


def test_long_rows_can_be_refused(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=8, truncate="refuse"))
    with pytest.raises(RowRefused, match="max_tokens is 8") as caught:
        renderer.example(pair("abcdefgh", "0"))
    assert caught.value.reason == "too_long"
    with pytest.raises(RowRefused):
        renderer.prompt(pair("abcdefgh", "0"))


def test_max_tokens_above_the_context_is_a_wrong_request(tiny):
    with pytest.raises(ConfigurationError, match="max_tokens is 4,096, but the base reads 2,048 tokens"):
        Renderer(tiny.byte_level(), "decoder", 2048, Rendering(max_tokens=4096))
    assert Renderer(tiny.byte_level(), "decoder", 2048).limit == 2048


@pytest.mark.parametrize("adds_bos", [False, True])
def test_long_texts_lose_no_token(adds_bos, tiny):
    renderer = Renderer(tiny.byte_level(adds_bos=adds_bos), "decoder", config=Rendering(max_tokens=9))
    for length in (1, 7, 8, 9, 10, 16, 17, 18, 50, 101):
        text = "".join(chr(ord("b") + index % 20) for index in range(length))
        pieces = renderer.examples(TextRow(text=text))
        assert all(piece.tree.size <= 9 for piece in pieces)
        tokens = [
            token
            for piece in pieces
            for token, weight in zip(piece.tree.segments[0].tokens, piece.tree.segments[0].targets, strict=True)
            if weight > 0
        ]
        # The very first token has nothing before it, unless a beginning token stands there.
        assert renderer.encoding.decode(tokens, keep_special=True) == (text if adds_bos else text[1:]) + "</s>"
        assert [piece.ended for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    with pytest.raises(RowRefused, match="examples"):
        renderer.example(TextRow(text="b" * 50))


# --- the other kinds


def test_encoder_decoders_get_a_wrapped_input_and_an_answer(tiny):
    renderer = Renderer(tiny.t5_like(), "encoder_decoder", 6)
    rendered = renderer.example(pair("a b c", "d e"))
    source, answer = rendered.tree.segments
    assert source.tokens == (3, 4, 5, 1)
    assert (source.targets, answer.parent) == ((), 0)
    assert (answer.tokens, answer.targets) == ((6, 7, 1), (1.0, 1.0, 1.0))
    assert renderer.prompt(pair("a b c", "d e")) == source.tokens
    cut = renderer.example(pair("a b c d e f g h", "a"))
    assert cut.tree.segments[0].tokens == (6, 7, 8, 9, 10, 1)
    assert cut.truncated == 3
    with pytest.raises(RowRefused, match="the answer has 8 tokens"):
        renderer.example(pair("a", "a b c d e f g"))
    tree = renderer.options(LabelRow(text="a", label=""), ["b", "c d"])
    assert [segment.tokens for segment in tree.segments[1:]] == [(4, 1), (5, 6, 1)]
    chat = ChatRow(messages=(Message(role="user", content="a"), Message(role="assistant", content="b")))
    assert renderer.example(chat).tree.segments[1].tokens == (4, 1)


def test_encoders_get_the_whole_text_and_pairs(tiny):
    renderer = Renderer(tiny.bert_like(), "encoder", 7)
    rendered = renderer.text(LabelRow(text="a b", label="x", where="f:2"), label=3)
    assert rendered.tree.segments[0].tokens == (2, 4, 5, 3)
    assert (rendered.tree.segments[0].label, rendered.tree.trained, rendered.where) == (3, 0, "f:2")
    pairs = renderer.text(LabelRow(text="a b c d", second_text="e", label="x"))
    assert pairs.tree.segments[0].tokens == (2, 4, 5, 6, 3, 8, 3)
    assert pairs.truncated == 1
    long = renderer.text(LabelRow(text="a b c d e f g h", label="x"))
    assert long.tree.segments[0].tokens == (2, 4, 5, 6, 7, 8, 3)
    assert renderer.example(LabelRow(text="a b", label="x")).tree.size == 4
    with pytest.raises(RowRefused, match="an encoder reads labelled texts"):
        renderer.example(pair("a", "b"))
    guarded = renderer.text(LabelRow(text="a [SEP] b", label="x"))
    assert guarded.tree.segments[0].tokens.count(3) == 1
    assert guarded.control == 1


def test_label_words_are_children_of_one_question(family):
    renderer = Renderer(family(), "decoder", config=Rendering(label_prompt="\nIs it?"))
    row = LabelRow(text="the film", label="good")
    tree = renderer.options(row, ["good", "bad"])
    assert renderer.encoding.decode(tree.segments[0].tokens) == "the film\nIs it?"
    for child, word in zip(tree.segments[1:], ["good", "bad"], strict=True):
        assert renderer.decode(child.tokens) == word
        assert child.tokens[-1] == renderer.encoding.eos
        assert child.targets == (1.0,) * len(child.tokens)
    example = renderer.example(row).tree.segments[0]
    assert example.tokens == tree.segments[0].tokens + tree.segments[1].tokens
    assert renderer.prompt(row) == tree.segments[0].tokens
    short = Renderer(family(), "decoder", config=Rendering(label_prompt="\nIs it?", max_tokens=20)).options(
        LabelRow(text="x" * 50, label=""), ["a", "bb"]
    )
    assert max(short.depth(index) + len(short.segments[index].tokens) for index in short.leaves()) == 20


def test_branches_share_the_prompt_and_equal_the_single_rows(family, tiny):
    renderer = Renderer(family(tiny.templates["chatml"]), "decoder")
    messages = (Message(role="user", content="a"), Message(role="assistant", content="b"), Message(role="user", content="c"))
    tree = renderer.branches(messages, ["yes", "\nno"], row=7)
    assert {segment.row for segment in tree.segments} == {7}
    assert not tree.segments[0].trained
    for child, answer in zip(tree.segments[1:], ["yes", "\nno"], strict=True):
        row = ChatRow(messages=(*messages, Message(role="assistant", content=answer)))
        whole = renderer.example(row).tree.segments[0]
        assert whole.tokens == tree.segments[0].tokens + child.tokens
        assert child.targets == (1.0,) * len(child.tokens)
    preferred = renderer.example(PreferenceRow(messages=messages, chosen="yes", rejected="\nno"))
    assert preferred.tree.segments[0].tokens == tree.segments[0].tokens + tree.segments[1].tokens
    with pytest.raises(RowRefused):
        renderer.branches(messages, ["yes", ""])


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_what_is_cut_of_a_prompt_with_answers_is_counted_or_refused(tiny, kind):
    messages = (Message(role="user", content="x" * 50),)
    whole, short, strict = (
        Renderer(tiny.byte_level(), kind, config=build(Rendering, settings))
        for settings in ({}, {"max_tokens": 40}, {"max_tokens": 40, "truncate": "refuse"})
    )
    full, cut = (renderer.branched(messages, ["yes", "no"]) for renderer in (whole, short))
    assert full.truncated == 0
    assert cut.truncated == len(full.tree.segments[0].tokens) - len(cut.tree.segments[0].tokens) > 0
    tokens, lost = short.prompt_and_cut(ChatRow(messages=messages), room=5)
    assert tokens == short.prompt(ChatRow(messages=messages), room=5)
    assert lost == len(whole.prompt(ChatRow(messages=messages))) - len(tokens) > 0
    assert whole.prompt_and_cut(ChatRow(messages=messages), room=5)[1] == 0
    with pytest.raises(RowRefused, match="truncate is 'refuse'"):
        strict.branched(messages, ["yes", "no"])


# --- the bulk path


def many(count: int) -> list[Row]:
    draw = random.Random(11)
    rows: list[Row] = []
    for index in range(count):
        text = "the el lo an. " * draw.randint(0, 4)
        kind = draw.randrange(4)
        if kind == 0:
            rows.append(pair("q " + text, text, where=f"f:{index}"))
        elif kind == 1:
            rows.append(TextRow(text=text, where=f"f:{index}"))
        elif kind == 2:
            rows.append(LabelRow(text=text, label="x", where=f"f:{index}"))
        else:
            messages = (Message(role="user", content="hi " + text), Message(role="assistant", content=text))
            rows.append(ChatRow(messages=messages, where=f"f:{index}"))
    return rows


def test_in_bulk_is_one_by_one(family, tiny):
    renderer = Renderer(family(tiny.templates["zephyr"]), "decoder", config=Rendering(max_tokens=60))
    rows = many(300)
    bulk = renderer.examples_of(rows)
    assert {entry.row for entry in bulk} == set(range(300))
    for index, row in enumerate(rows):
        found = [entry for entry in bulk if entry.row == index]
        if isinstance(found[0], Refusal):
            with pytest.raises(RowRefused) as caught:
                renderer.examples(row)
            assert caught.value.reason == found[0].reason
            assert found[0].where == row.where
            continue
        single = renderer.examples(row)
        assert [(e.tree.segments[0].tokens, e.tree.segments[0].targets) for e in single] == [
            (e.tree.segments[0].tokens, e.tree.segments[0].targets) for e in found if isinstance(e, Rendered)
        ]
        assert all(e.tree.segments[0].row == index for e in found if isinstance(e, Rendered))


def test_in_bulk_is_fast(tiny):
    renderer = Renderer(tiny.byte_level(tiny.templates["chatml"]), "decoder")
    messages = (Message(role="user", content="the way " * 10), Message(role="assistant", content="and so " * 10))
    start = time.process_time()
    renderer.examples_of([ChatRow(messages=messages)] * 1000)
    renderer.examples_of([pair("the way " * 10, "and so " * 10)] * 2000)
    assert time.process_time() - start < 6  # about a sixth of this on an idle core
