"""The loop that all ways of decoding share: pick, note, let finished rows go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tunewright.engine.sampling.draw import Place, log_probabilities, pick
from tunewright.engine.sampling.prompts import Reason, Request, Sample
from tunewright.engine.sampling.stops import Listener

LEAVE = 4  # finished rows stay until they are one in so many: moving keys and values costs as much as computing a few idle rows


class Row:
    """One answer that is being written.

    Args:
        index: which prompt it continues; number: what the prompt's draws are made from.
        sample: the number of the answer among those of its prompt.
        listener: hears stop strings; None where there are none.
    """

    def __init__(self, index: int, number: int, sample: int, listener: Listener | None) -> None:
        self.index, self.number, self.sample, self._listener = index, number, sample, listener
        self.drawn: list[int] = []
        self.log_probabilities: list[float] = []
        self.reason: Reason | None = None
        self._text: str | None = None

    def take(self, token: int, ends: frozenset[int], longest: int) -> None:
        """Note a drawn token; `reason` says afterwards whether it was the last one."""
        self.drawn.append(token)
        if token in ends:
            self.reason = "end"
            return
        if self._listener is not None:
            self._text = self._listener.hears(token)
        if self._text is not None:
            self.reason = "stop"
        elif len(self.drawn) == longest:
            self.reason = "length"

    def done(self) -> Sample:
        """The answer."""
        assert self.reason is not None
        tokens = self.drawn[:-1] if self.reason == "end" else self.drawn
        if self._text is not None and self._listener is not None:
            tokens = self.drawn[: self._listener.tokens_of(self._text)]
        finished = self.reason != "length"
        return Sample(tuple(tokens), finished, self.reason, self._text, tuple(self.drawn), tuple(self.log_probabilities))


class Decoder(Protocol):
    """One way of continuing a group of rows."""

    def start(self) -> Tensor:
        """Read the prompts: float32 logits [rows, V] of the first token of every row."""
        ...

    def next(self, tokens: Sequence[int]) -> Tensor:
        """One token of every row goes in; the logits of the one after it come out."""
        ...

    def keep(self, chosen: Sequence[int]) -> None:
        """Only these rows, by their number in order, go on."""
        ...


def rows_of(request: Request, members: Sequence[tuple[int, int]], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """A row for each (prompt, sample)."""
    stops = request.settings.stops

    def decode(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    numbers = [index if prompt.number is None else prompt.number for index, prompt in enumerate(request.prompts)]
    return [Row(index, numbers[index], sample, Listener(decode, stops) if stops else None) for index, sample in members]


def write(decoder: Decoder, rows: list[Row], request: Request) -> None:
    """Continue `rows`, which stand in the decoder's order, until each has ended."""
    settings = request.settings
    logits_BV = decoder.start()
    for position in range(settings.max_new_tokens):
        chosen_B = pick(logits_BV, settings, [Place(row.number, row.sample, position) for row in rows])
        tokens = chosen_B.tolist()
        scores = log_probabilities(logits_BV, chosen_B, settings).tolist() if request.scored else None
        for number, row in enumerate(rows):
            if row.reason is not None:  # it ended and waits to leave
                continue
            row.take(tokens[number], request.ends, settings.max_new_tokens)
            if scores is not None:
                row.log_probabilities.append(scores[number])
        alive = [number for number, row in enumerate(rows) if row.reason is None]
        if not alive:
            return
        if (len(rows) - len(alive)) * LEAVE >= len(rows):
            decoder.keep(alive)
            rows, tokens = [rows[number] for number in alive], [tokens[number] for number in alive]
        logits_BV = decoder.next(tokens)
