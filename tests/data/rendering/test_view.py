"""Rows as they are shown: nothing lost, learned tokens marked, nothing of a row gets out of the page."""

from __future__ import annotations

import io
import re
from html import unescape

import pytest
from rich.console import Console

from tunewright.data.rendering import Renderer, Rendering
from tunewright.data.rendering.view import shown, summary, to_html, to_terminal
from tunewright.data.rows import ChatRow, Message, PromptRow

TEXT = "日本語 🎉 é  a\nthe <b> & x"


@pytest.fixture(params=["byte_level", "sentence_piece"])
def renderer(request, tiny) -> Renderer:
    return Renderer(getattr(tiny, request.param)(tiny.templates["chatml"]), "decoder", config=Rendering(max_tokens=400))


def chat(question: str, answer: str) -> ChatRow:
    return ChatRow(messages=(Message(role="user", content=question), Message(role="assistant", content=answer)), where="f:1")


def test_the_texts_of_the_tokens_are_the_text(renderer):
    segment = renderer.example(chat(TEXT, TEXT)).tree.segments[0]
    pieces = list(shown(segment, renderer.encoding.tokenizer))
    assert [token for piece in pieces for token in piece.ids] == list(segment.tokens)
    assert "".join(piece.text for piece in pieces) == renderer.encoding.decode(segment.tokens, keep_special=True)
    assert "".join(piece.text for piece in pieces if piece.weight > 0) == TEXT + "<|im_end|>"
    assert [piece.text for piece in pieces if piece.special] == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"]


def test_the_terminal_shows_targets_without_colour(renderer):
    text = to_terminal(renderer.example(chat("why", "so\nit is")), renderer.encoding.tokenizer)
    assert "⟦so↵\nit is<|im_end|>⟧" in text.plain
    assert text.plain.startswith("f:1 · ")
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, color_system=None, width=200).print(text)
    assert "so" in stream.getvalue()
    assert any("underline" in str(span.style) for span in text.spans)


def test_the_terminal_is_not_driven_by_rows(renderer):
    plain = to_terminal(renderer.example(chat("\x1b[31mred\x07", "b")), renderer.encoding.tokenizer).plain
    assert "\x1b" not in plain
    assert "\\x1b[31mred\\x07" in plain


def test_the_page_is_whole_escaped_and_self_contained(renderer):
    rows = [chat("<script>alert(1)</script>", TEXT), PromptRow(prompt="a", completion="", where="f:2")]
    page = to_html(renderer.examples_of(rows), renderer.encoding.tokenizer, title="a < b")
    assert "<script" not in page
    assert "<title>a &lt; b</title>" in page
    assert not re.search(r"""(?:src|href)\s*=|url\(|@import|https?://""", page)
    assert "1 examples" in page
    assert "refused: the completion is empty" in page
    text = unescape(re.sub(r"<[^>]+>", "", page.split("<pre>")[1].split("</pre>")[0])).replace("↵", "")
    assert TEXT in text
    assert 'title="token ' in page
    assert "weight 1" in page
    assert "prefers-color-scheme: dark" in page


def test_trees_are_shown_segment_by_segment(renderer):
    from tunewright.data.rendering import Rendered

    tree = renderer.branches((Message(role="user", content="a"),), ["yes", "no"])
    plain = to_terminal(Rendered(tree), renderer.encoding.tokenizer).plain
    assert "prompt\n" in plain
    assert "answer 2 (continues segment 0)\n⟦no<|im_end|>⟧" in plain


def test_the_summary_says_what_was_cut(tiny):
    renderer = Renderer(tiny.byte_level(), "decoder", config=Rendering(max_tokens=8, truncate="answer"))
    line = summary(renderer.example(PromptRow(prompt="ab", completion="0123456789", where="f:3")))
    assert line == "f:3 · 8 tokens · 5 learned (62.5 %) · 6 cut, 6 of them of answers · the end is not learned"
