"""Rows as the model sees them: every token, with the learned ones marked, for a terminal and as one HTML page.

Learned tokens are told apart in three ways (brackets, underline, background), so that they show without colour and in a text file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tunewright.core.units import share_text
from tunewright.data.forest import Segment
from tunewright.data.rendering.drafts import Rendered
from tunewright.data.rendering.refusals import Refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RETURN = "↵"
OPEN, CLOSE = "⟦", "⟧"
_LEARNED, _SPECIAL, _READ, _NOTE = "underline color(16) on color(157)", "cyan", "", "dim"
_LONGEST_CHARACTER = 8  # tokens after which an unfinished character is shown as it is


@dataclass(frozen=True)
class Shown:
    """Some tokens and the text they make; one token, or several that share a character.

    Args:
        text: what they decode to, special tokens included.
        ids: the tokens.
        weight: how much they are learned; 0 when they are only read.
        special: they are a control token.
    """

    text: str
    ids: tuple[int, ...]
    weight: float
    special: bool


def shown(segment: Segment, tokenizer: PreTrainedTokenizerFast) -> Iterator[Shown]:
    """The tokens of a segment with their texts. The texts together are the text of the segment."""
    decoder: Any = tokenizer
    control = set(decoder.added_tokens_decoder) | set(decoder.all_special_ids)
    tokens = segment.tokens
    before = first = 0
    known = ""  # the text of tokens[before:first]: what a token adds depends on the one in front of it
    for index, token in enumerate(tokens):
        text = decoder.decode(list(tokens[before : index + 1]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if text.endswith("\ufffd") and index - first < _LONGEST_CHARACTER and index + 1 < len(tokens):
            continue
        weight = max(segment.targets[first : index + 1], default=0.0)
        yield Shown(text[len(known) :], tokens[first : index + 1], weight, token in control)
        known = decoder.decode(list(tokens[first : index + 1]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        before, first = first, index + 1


def to_terminal(rendered: Rendered | Refusal, tokenizer: PreTrainedTokenizerFast) -> Text:
    """One row for a terminal: a line of counts, then the text with learned tokens in brackets, underlined and coloured."""
    result = Text()
    result.append(f"{summary(rendered)}\n", style=_NOTE)
    if isinstance(rendered, Refusal):
        return result
    for number, segment in enumerate(rendered.tree.segments):
        if len(rendered.tree.segments) > 1:
            result.append(f"{_position(number, segment)}\n", style=_NOTE)
        inside = False
        for piece in shown(segment, tokenizer):
            if (piece.weight > 0) != inside:
                inside = not inside
                result.append(OPEN if inside else CLOSE, style=_NOTE)
            style = _LEARNED if piece.weight > 0 else _SPECIAL if piece.special else _READ
            for line in _visible(piece.text).splitlines(keepends=True):
                result.append(line.rstrip("\n"), style=style)
                # The line itself is not underlined to its end.
                result.append("\n" if line.endswith("\n") else "")
        result.append(f"{CLOSE}\n" if inside else "\n", style=_NOTE)
    return result


def summary(rendered: Rendered | Refusal) -> str:
    """One line about a row: where it stands, its tokens, how many are learned, what was cut, or why it was refused."""
    if isinstance(rendered, Refusal):
        return f"{rendered.where or f'row {rendered.row + 1}'} · refused: {rendered.message}"
    tree = rendered.tree
    parts = [
        rendered.where or f"row {rendered.row + 1}",
        f"{tree.size:,} tokens",
        f"{tree.trained:,} learned ({share_text(tree.trained, tree.size)})",
    ]
    if rendered.truncated:
        parts.append(
            f"{rendered.truncated:,} cut" + (f", {rendered.answer_cut:,} of them of answers" if rendered.answer_cut else "")
        )
    if tree.trained and not rendered.ended:
        parts.append("the end is not learned")
    if rendered.control:
        parts.append(f"{rendered.control:,} control tokens written as text")
    return " · ".join([*parts, *rendered.notes])


def to_html(entries: Sequence[Rendered | Refusal], tokenizer: PreTrainedTokenizerFast, *, title: str = "What is learned") -> str:
    """Rows as one self-contained page (no network, no scripts): learned tokens marked, id and weight of each on hovering."""
    examples = [entry for entry in entries if isinstance(entry, Rendered)]
    tokens = sum(example.tree.size for example in examples)
    trained = sum(example.tree.trained for example in examples)
    refused = len(entries) - len(examples)
    cut = sum(example.truncated > 0 for example in examples)
    facts = [f"{len(examples):,} examples", f"{tokens:,} tokens", f"{trained:,} learned ({share_text(trained, tokens)})"]
    facts += [f"{cut:,} truncated"] if cut else []
    facts += [f"{refused:,} refused"] if refused else []
    body = "\n".join(_card(entry, tokenizer) for entry in entries)
    return _PAGE.format(title=escape(title), facts=escape(" · ".join(facts)), line_break=RETURN, body=body, style=_STYLE)


def _card(entry: Rendered | Refusal, tokenizer: PreTrainedTokenizerFast) -> str:
    if isinstance(entry, Refusal):
        return f'<section class="refused"><h2>{escape(summary(entry))}</h2></section>'
    parts = []
    for number, segment in enumerate(entry.tree.segments):
        if len(entry.tree.segments) > 1:
            parts.append(f"<h3>{escape(_position(number, segment))}</h3>")
        spans = "".join(_span(piece) for piece in shown(segment, tokenizer))
        parts.append(f"<pre>{spans}</pre>")
    return f"<section><h2>{escape(summary(entry))}</h2>{''.join(parts)}</section>"


def _span(piece: Shown) -> str:
    classes = " ".join(name for name, holds in (("l", piece.weight > 0), ("s", piece.special)) if holds)
    ids = ", ".join(str(token) for token in piece.ids)
    weight = f"weight {piece.weight:g}" if piece.weight > 0 else "read only"
    text = escape(piece.text).replace("\n", f'<b class="n">{RETURN}</b>\n')
    attribute = f' class="{classes}"' if classes else ""
    return f'<span{attribute} title="token {ids} · {weight}">{text}</span>'


def _visible(text: str) -> str:
    # Control characters other than a line break could drive the terminal.
    safe = "".join(letter if letter in "\n\t" or letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
    return safe.replace("\n", f"{RETURN}\n")


def _position(number: int, segment: Segment) -> str:
    return "prompt" if segment.parent is None else f"answer {number} (continues segment {segment.parent})"


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fbfbf9; --card: #fff; --line: #dcdfe4; --soft: #667085;
  --learned: #c9efd2; --edge: #15803d; --special: #1d4ed8; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --paper: #14171c; --card: #1b1f26; --line: #313844; --soft: #98a2b3;
  --learned: #14532d; --edge: #4ade80; --special: #93b4ff; --bad: #fda29b; } }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1rem; font: 15px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.3rem; margin: 0; } p { color: var(--soft); margin: .3rem 0 1rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; margin: 1rem 0; }
h2 { font-size: .8rem; font-weight: 500; color: var(--soft); margin: 0 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: .75rem; font-weight: 500; color: var(--soft); margin: .6rem 0 .2rem; }
pre { margin: 0; font: 13.5px/1.7 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
p .l { color: var(--ink); } .l { background: var(--learned); border-bottom: 2px solid var(--edge); }
.s { color: var(--special); font-weight: 600; }
.n { color: var(--soft); font-weight: 400; } .refused { border-color: var(--bad); } .refused h2 { color: var(--bad); }
pre span:hover { outline: 1px solid var(--edge); }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><p>{facts}</p>
<p><span class="l">learned</span> read only <span class="s">control token</span> <span class="n">{line_break}</span> line break</p>
{body}
</body></html>
"""
