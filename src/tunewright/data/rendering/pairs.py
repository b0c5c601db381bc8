"""Prompt and completion, a text and its label word, plain text: rows without a chat template, as drafts and as chunks.

Prompt and completion are encoded separately and joined as tokens. Generation then starts from exactly the tokens that stood before
the answer in training, which encoding the joined text does not give ("a b" may be one token).
"""

from __future__ import annotations

from dataclasses import replace

from tunewright.data.rendering.drafts import Draft, Line
from tunewright.data.rendering.encoding import Encoding, Piece
from tunewright.data.rendering.refusals import Refusal, RowRefused
from tunewright.data.rendering.settings import Rendering, separator_for
from tunewright.data.rows import LabelRow, PromptRow, TextRow


def pair_draft(row: PromptRow, encoding: Encoding, config: Rendering, *, joined: bool) -> Draft:
    """The draft of a prompt and its completion.

    Args:
        row: an empty completion makes a prompt that waits for its answer.
        encoding: the tokenizer.
        config: format, separator, system text, what is trained.
        joined: prompt and completion stand in one sequence (decoders); only then is there a seam to separate.
    """
    prompt, spelt = encoding.guard(row.prompt, trusted=False)
    completion, more = encoding.guard(row.completion)
    if config.prompt_format is not None:
        prompt = config.prompt_format.replace("{prompt}", prompt)
    elif joined:
        prompt += _separator(row, config)
    if config.system is not None:
        prompt = f"{config.system}\n\n{prompt}"
    draft = _draft((prompt, completion), row.weight, encoding, read=joined and config.train_on == "all", joined=joined)
    return replace(draft, control=spelt + more)


def label_draft(row: LabelRow, encoding: Encoding, config: Rendering, *, joined: bool) -> Draft:
    """The draft of a text followed by `label_prompt`, with the label as its answer (" label": the way words begin)."""
    text, spelt = encoding.guard(labelled_text(row), trusted=False)
    label, more = encoding.guard(row.label)
    prompt = text + config.label_prompt if config.system is None else f"{config.system}\n\n{text}{config.label_prompt}"
    answer = (f" {label}" if joined else label) if label else ""
    draft = _draft((prompt, answer), row.weight, encoding, read=joined and config.train_on == "all", joined=joined)
    return replace(draft, control=spelt + more)


def labelled_text(row: LabelRow) -> str:
    """The text of a labelled row; a pair stands on two lines."""
    return f"{row.text}\n{row.second_text}" if row.second_text else row.text


def _separator(row: PromptRow, config: Rendering) -> str:
    if config.separator is None:
        return separator_for(row.prompt, row.completion)
    return "" if not row.prompt or row.prompt[-1].isspace() else config.separator


def _draft(texts: tuple[str, str], weight: float, encoding: Encoding, *, read: bool, joined: bool) -> Draft:
    prompt, answer = texts
    pieces = (Piece(prompt, weight if read else 0.0, opens=True), Piece(answer, weight, opens=not joined or not prompt))
    tail = () if encoding.eos is None else (encoding.eos,)
    return Draft(pieces, 1, encoding.prefix, tail, weight, ended=bool(tail))


def text_draft(row: TextRow, encoding: Encoding) -> Draft:
    """The draft of a plain text, every token of which is learned, and its end."""
    text, control = encoding.guard(row.text)
    tail = () if encoding.eos is None else (encoding.eos,)
    return Draft((Piece(text, row.weight, opens=True),), 0, encoding.prefix, tail, row.weight, ended=bool(tail), control=control)


def chunks(line: Line, limit: int | None) -> list[Line]:
    """A text cut into pieces of at most `limit` tokens, of about equal length; no token is lost.

    Every piece begins with the head (the beginning-of-sequence token). Where there is none it begins with the last token of the
    piece before it, only read, since the first token of a sequence cannot be learned.
    """
    head, body = line.head, len(line.tokens) - line.head
    if limit is None or len(line.tokens) <= limit:
        return [line]
    room = limit - max(head, 1)
    if room < 1:
        message = f"max_tokens {limit} leaves no room for text behind {head} tokens at the beginning"
        raise RowRefused(Refusal("too_long", message))
    start = 0 if head else 1  # without a head, the first token is the context of the first piece
    count = -(-(body - start) // room)
    cuts = [head + start + (body - start) * number // count for number in range(count + 1)]
    result = []
    for number in range(count):
        first, last = cuts[number], cuts[number + 1]
        front = line.tokens[:head] if head else [line.tokens[first - 1]]
        tokens = front + line.tokens[first:last]
        weights = [0.0] * len(front) + line.weights[first:last]
        result.append(Line(tokens, weights, head, head, ended=line.ended and number == count - 1))
    return result
