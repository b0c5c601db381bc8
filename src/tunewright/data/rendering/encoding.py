"""Text to token ids and back: the one place that calls the tokenizer.

Three traps are dealt with here and nowhere else. (1) Llama-style tokenizers put a space in front of whatever they are given, so a
text that *continues* another one is encoded behind an anchor that is cut off again. (2) Text of rows never becomes a control
token: `guard` puts a break into each one it finds, and pieces are encoded one side of the break at a time. (3) The tokenizer
may add tokens around a text; which ones is measured once, and they are then put in place by us.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Noncharacters: Unicode reserves them for use inside a program and forbids them in text that is exchanged.
BREAK = "\ufdd2"
RESERVED = re.compile("[\ufdd0-\ufdef]")
ANCHOR = "\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """A text that is encoded on its own, so that the tokens before it do not depend on it.

    Args:
        text: may hold breaks (see `Encoding.guard`).
        weight: how much each of its trained tokens counts; 0: only read.
        stop: where, in `text`, the trained part ends; None: the piece is trained whole.
        anchor: what stands directly before it, when that is a control token; the tokenizer may treat a text differently there.
        opens: it is the first text of a sequence and continues nothing.
    """

    text: str
    weight: float = 0.0
    stop: int | None = None
    anchor: str = ""
    opens: bool = False


class Encoding:
    """A tokenizer, and what was measured about it.

    Attributes:
        prefix: ids that the tokenizer puts in front of a text (a beginning-of-sequence token, [CLS]).
        needs_anchor: the tokenizer puts a space in front of what it is given.
        suffix: ids that it puts behind a text ([SEP], `</s>` of T5).
        eos: the id of the end-of-sequence token, or None.
        bos: the id of the beginning-of-sequence token, or None.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, keep_control: bool = False) -> None:
        self.tokenizer: Any = tokenizer
        self.eos: int | None = self.tokenizer.eos_token_id
        self.bos: int | None = self.tokenizer.bos_token_id
        self.pad: int | None = self.tokenizer.pad_token_id
        self.unknown: int | None = self.tokenizer.unk_token_id
        self.prefix, self.suffix = self._affixes()
        added = self.tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special} | set(self.tokenizer.all_special_tokens)
        self.special = frozenset(token for token in special if token)
        self.added = frozenset(str(token) for token in added if str(token)) - self.special
        # A token of one character cannot be broken; none is known to exist.
        self._control = None if keep_control else any_of(token for token in self.special if len(token) > 1)
        self._control_of_users = None if keep_control else any_of(token for token in self.special | self.added if len(token) > 1)
        self.special_pattern = any_of(self.special)
        behind_anchor = self.ids(ANCHOR + "x")
        anchor = self.ids(ANCHOR)
        self._anchor_sizes: dict[str, int] = {}
        self.needs_anchor = behind_anchor[: len(anchor)] == anchor and behind_anchor[len(anchor) :] != self.ids("x")

    def ids(self, text: str) -> list[int]:
        """The ids of a text, with nothing added around it."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text of some ids."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=not keep_special, clean_up_tokenization_spaces=False)

    def guard(self, text: str, *, trusted: bool = True) -> tuple[str, int]:
        """`text` with a break inside every control token that it spells, and how many there were.

        Args:
            text: what a row holds.
            trusted: an answer may write added tokens that are not special (`<think>`), since it is the model that speaks;
                anything else may not.
        """
        pattern = self._control if trusted else self._control_of_users
        if pattern is None or pattern.search(text) is None:
            return text, 0
        return pattern.subn(lambda found: found[0][0] + BREAK + found[0][1:], text)

    def encode(self, pieces: Sequence[Piece]) -> list[tuple[list[int], list[float]]]:
        """Ids and weights of every piece, in one call of the tokenizer.

        A token is trained if and only if its first character stands in the trained part of its piece.
        """
        texts: list[str] = []
        owners: list[tuple[int, int, int]] = []  # (piece, offset of the text within it, ids of the anchor to cut)
        for index, piece in enumerate(pieces):
            place = 0
            for number, part in enumerate(piece.text.split(BREAK)):
                if part:
                    anchor = piece.anchor if number == 0 else ""
                    anchor, cut = self._anchor(anchor, part, opens=piece.opens and number == 0)
                    texts.append(anchor + part)
                    owners.append((index, place - len(anchor), cut))
                place += len(part) + 1
        result: list[tuple[list[int], list[float]]] = [([], []) for _ in pieces]
        if not texts:
            return result
        partly = any(piece.stop is not None for piece in pieces)
        answer = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=partly,
            verbose=False,
        )
        offsets = answer["offset_mapping"] if partly else None
        for number, ((index, shift, cut), ids) in enumerate(zip(owners, answer["input_ids"], strict=True)):
            piece = pieces[index]
            own_ids, own_weights = result[index]
            own_ids.extend(ids[cut:])
            if piece.stop is None or offsets is None:
                own_weights.extend([piece.weight] * (len(ids) - cut))
            else:
                own_weights.extend(_weights(offsets[number], shift, piece)[cut:])
        return result

    def wrapped(self, text: str, second: str, limit: int | None) -> tuple[list[int], int]:
        """A text, or a pair, with the tokens that the tokenizer puts around it, and how many tokens were cut off its end.

        The longer text of a pair loses its end first.
        """
        first, other = (self.encode([Piece(part, opens=True)])[0][0] for part in (text, second))
        before, between, behind = self._around_pair if second else (self.prefix, (), self.suffix)
        room = None if limit is None else max(0, limit - len(before) - len(between) - len(behind))
        cut = 0
        while room is not None and len(first) + len(other) > room:
            longer = first if len(first) >= len(other) else other
            surplus = min(len(first) + len(other) - room, max(1, abs(len(first) - len(other))))
            del longer[len(longer) - surplus :]
            cut += surplus
        return [*before, *first, *between, *other, *behind], cut

    def located(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text with, for each, where in the text it begins and ends; control tokens that it spells are characters.

        A space that a tokenizer takes into a word's token may or may not lie within its ends, as the tokenizer has it.
        """
        guarded, _ = self.guard(text, trusted=False)
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        begin = 0
        for part in guarded.split(BREAK):
            answer = self.tokenizer(part, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids += answer["input_ids"]
            places += [(begin + start, begin + end) for start, end in answer["offset_mapping"]]
            begin += len(part)  # the break itself is no character of the text
        return ids, places

    @property
    def around_pair(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Ids that the tokenizer puts in front of a pair, between its two texts, and behind it."""
        return self._around_pair

    def _anchor(self, wanted: str, text: str, *, opens: bool) -> tuple[str, int]:
        """What to encode in front of `text` and how many ids of it to cut off again."""
        if opens or not self.needs_anchor:
            return "", 0
        anchor = wanted or ANCHOR
        # Text that begins with the anchor could merge with it; it then starts with a control character and needs none.
        if text.startswith(ANCHOR):
            anchor = wanted or "x"
        if anchor not in self._anchor_sizes:
            self._anchor_sizes[anchor] = len(self.ids(anchor))
        return anchor, self._anchor_sizes[anchor]

    def _affixes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        whole, bare = self.tokenizer("a")["input_ids"], self.ids("a")
        place = _find(bare, whole, 0)
        return (tuple(whole[:place]), tuple(whole[place + len(bare) :])) if place >= 0 else ((), ())

    @cached_property
    def _around_pair(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        whole, one, other = self.tokenizer("a", "b")["input_ids"], self.ids("a"), self.ids("b")
        first = _find(one, whole, 0)
        second = _find(other, whole, first + len(one))
        return tuple(whole[:first]), tuple(whole[first + len(one) : second]), tuple(whole[second + len(other) :])


def _find(part: list[int], whole: list[int], start: int) -> int:
    return next((place for place in range(start, len(whole)) if part and whole[place : place + len(part)] == part), -1)


def _weights(offsets: Sequence[tuple[int, int]], shift: int, piece: Piece) -> list[float]:
    stop = len(piece.text) if piece.stop is None else piece.stop
    weights: list[float] = []
    before = 0
    for start, end in offsets:
        # Some tokenizers trim white space off their offsets; the token still begins where the one before it ended.
        weights.append(piece.weight if min(start, before) + shift < stop else 0.0)
        before = end
    return weights


def any_of(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that finds any of `tokens`, the longest first; None when there are none."""
    escaped = [re.escape(token) for token in sorted(tokens, key=len, reverse=True)]
    return re.compile("|".join(escaped)) if escaped else None
