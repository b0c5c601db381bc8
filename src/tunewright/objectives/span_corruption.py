"""Span corruption: learn to write the stretches of a text that were taken out."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tunewright.core.errors import BaseModelError
from tunewright.data.forest import Segment
from tunewright.data.rows import Row
from tunewright.objectives._corruption import ROWS, Corruption, Window, planted
from tunewright.objectives._texts import Found, TextObjective

if TYPE_CHECKING:
    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.data.rendering.encoding import Encoding
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss

WINDOW = 512  # tokens of a window where the base has no limit of its own: what T5 was trained with
_SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")


class SpanCorruption(TextObjective):
    """Minimises the cross-entropy of the stretches that were taken out of a text, each announced by the sentinel in its place.

    Of a window of n tokens, m = max(1, round(share * n)) are taken out in max(1, round(m / mean_span)) stretches of random lengths:
    "a b c d e f" is read as "a <0> d <1>" and "<0> b c <1> e f" is written, each with its end token. total = - sum_t w log p of
    what is written, count = sum_t w. Every epoch takes out others (drawn from seed, epoch and row); measured is always on the same
    ones. Long texts become windows, uncut.

    Source: Raffel et al., "T5", arXiv 1910.10683, section 3.3.4 and `random_spans_noise_mask` of the authors' code.
    Cost: no parameters of its own; the encoder reads about 0.9 n tokens and the decoder writes about 0.2 n.
    Use when: an encoder-decoder is to learn the language of a domain. Avoid when: inputs have answers (`sft`).
    Raises: `BaseModelError` for a base that is no encoder-decoder, or whose tokenizer has no sentinels (BART).
    """

    rows: ClassVar[tuple[type[Row], ...]] = ROWS
    kind: ClassVar[str] = "encoder_decoder"
    writes: ClassVar[bool] = False

    share: float = Field(default=0.15, gt=0, le=0.5, description="of the tokens, how many are taken out")
    mean_span: float = Field(default=3.0, ge=1, description="tokens in a stretch, on average")

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        spans = Spans.of(renderer.encoding, self.share, self.mean_span)
        room = min((renderer.limit or WINDOW) - spans.beside, spans.most)
        return planted(rows, renderer, spans, max(2, room))

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        return engine.language_loss(batch)

    def found(self, engine: Engine, batch: Batch) -> Found:
        return Found(engine.token_scores(batch).log_probability_N, batch.row_S[batch.owners_N])


@dataclass(frozen=True)
class Spans(Corruption):
    """Takes stretches out of a window.

    Args:
        sentinels: ids that stand for stretches, the first one first.
        around: ids in front of what is read, and behind it; end: ids behind what is written.
    """

    share: float
    mean_span: float
    sentinels: tuple[int, ...]
    around: tuple[tuple[int, ...], tuple[int, ...]]
    end: tuple[int, ...]

    @classmethod
    def of(cls, encoding: Encoding, share: float, mean_span: float) -> Spans:
        """For one tokenizer. Raises `BaseModelError` where it has no sentinels."""
        numbered = {
            int(found[1]): number
            for token, number in encoding.tokenizer.get_vocab().items()
            if (found := _SENTINEL.fullmatch(token))
        }
        if not numbered:
            raise BaseModelError(
                "the tokenizer has no sentinel tokens ('<extra_id_0>' and so on) to stand for what is taken out",
                where="base",
                hint="Span corruption is how T5, mT5, Flan-T5 and CodeT5 were pre-trained: take one of these.",
            )
        sentinels = tuple(numbered[place] for place in sorted(numbered))
        end = () if encoding.eos is None else (encoding.eos,)
        return cls(share, mean_span, sentinels, (encoding.prefix, encoding.suffix), end)

    @property
    def beside(self) -> int:
        """Tokens that stand beside a window on the side that is longer."""
        return max(sum(map(len, self.around)), len(self.end) + 1)

    @property
    def most(self) -> int:
        """The longest window for which there are sentinels enough."""
        return max(2, int(len(self.sentinels) * self.mean_span / self.share))

    def problem(self, window: Window) -> str:
        return "" if len(window.tokens) > 1 else "of a text of one token nothing can be taken out"

    def segments(self, window: Window, seed: int) -> tuple[Segment, ...]:
        before, behind = self.around
        source, written, place = list(before), [], 0
        for sentinel, (start, stop) in zip(self.sentinels, self.taken(len(window.tokens), random.Random(seed)), strict=False):
            source += [*window.tokens[place:start], sentinel]
            written += [sentinel, *window.tokens[start:stop]]
            place = stop
        answer = (*written, *self.end)
        read = Segment((*source, *window.tokens[place:], *behind), row=window.row)
        return read, Segment(answer, 0, (window.weight,) * len(answer), row=window.row)

    def taken(self, count: int, draw: random.Random) -> list[tuple[int, int]]:
        """Begin and end of the stretches that are taken out of `count` tokens; what stays and what goes take turns."""
        gone = min(max(1, round(count * self.share)), count - 1)
        spans = min(max(1, round(gone / self.mean_span)), gone, count - gone, len(self.sentinels))
        found, place = [], 0
        for stays, goes in zip(parted(count - gone, spans, draw), parted(gone, spans, draw), strict=True):
            found.append((place + stays, place + stays + goes))
            place += stays + goes
        return found


def parted(count: int, parts: int, draw: random.Random) -> list[int]:
    """`count` as a sum of `parts` numbers, each at least 1, every such sum equally likely."""
    edges = [0, *sorted(draw.sample(range(1, count), parts - 1)), count]
    return [stop - start for start, stop in pairwise(edges)]
