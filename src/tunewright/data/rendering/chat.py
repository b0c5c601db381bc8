"""Conversations to drafts: guarded against control tokens in what people wrote, cut where each answer begins.

Not covered: roles that a template writes as plain words ("User:", "[INST]" where it is no token). A row that spells those looks to
the model like another turn, and no way of encoding it can change that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunewright.data.rendering.drafts import Draft
from tunewright.data.rendering.encoding import RESERVED, Encoding, Piece
from tunewright.data.rendering.masks import Located, Turn, locate
from tunewright.data.rendering.refusals import Refusal, RowRefused
from tunewright.data.rendering.settings import Rendering
from tunewright.data.rendering.template import ChatTemplate
from tunewright.data.rows import Message

Tools = tuple[dict[str, Any], ...]


class Chats:
    """Drafts of conversations for one template and one tokenizer."""

    def __init__(self, encoding: Encoding, template: ChatTemplate, config: Rendering) -> None:
        self.encoding, self.template, self.config = encoding, template, config

    def learned(self, messages: Sequence[Message], tools: Tools = (), *, weight: float = 1.0, skip: int = 0) -> Draft:
        """The draft of a conversation whose assistant messages are learned.

        Messages behind the last learned answer are left out: nothing would be learned from them.

        Args:
            messages: the conversation.
            tools: what the template shows as callable.
            weight: the weight of the row.
            skip: how many of the oldest exchanges to leave out (system messages at the front stay).

        Raises:
            RowRefused: nothing to learn, all answers empty, the template raised, or the mask cannot be proven.
        """
        everything = self.config.train_on == "all"
        kept = self._shortened(messages, skip)
        taught = [index for index, message in enumerate(kept) if _is_learned(message)]
        if not taught and not everything:
            raise _no_answer(kept)
        if not everything:
            kept = kept[: taught[-1] + 1]
        guarded, offered, control = self._guarded(kept, tools)
        located = locate(self.template, guarded, offered)
        return self._draft(kept, located, weight, control)

    def asked(self, messages: Sequence[Message], tools: Tools = (), *, skip: int = 0) -> Draft:
        """The draft of a conversation that waits for the assistant: it ends with the generation prompt."""
        kept = self._shortened(messages, skip)
        guarded, offered, control = self._guarded(kept, tools)
        text = self.template.render(guarded, offered, generation=True)
        turns: tuple[Turn, ...] = ()
        if any(message.role == "assistant" for message in kept):
            located = locate(self.template, guarded, offered)
            if text.startswith(located.text[: located.turns[-1].stop]):
                turns = located.turns  # cut where the learned conversation is cut, so that both have the same tokens
        pieces = self._pieces(text, [turn.start for turn in turns], [(0.0, None)] * (len(turns) + 1))
        return Draft(tuple(pieces), len(pieces), self._head(), control=control)

    def exchanges(self, messages: Sequence[Message]) -> int:
        """How many of the oldest exchanges can be left out before the last learned answer goes."""
        taught = [index for index, message in enumerate(messages) if _is_learned(message)]
        end = taught[-1] if taught else len(messages)
        return max(0, sum(message.role == "user" for message in messages[:end]) - 1)

    def _shortened(self, messages: Sequence[Message], skip: int) -> list[Message]:
        kept = list(messages)
        if self.config.system is not None and not any(message.role == "system" for message in kept):
            kept.insert(0, Message(role="system", content=self.config.system))
        if not skip:
            return kept
        users = [index for index, message in enumerate(kept) if message.role == "user"]
        opening = next((index for index, message in enumerate(kept) if message.role not in ("system", "developer")), len(kept))
        return kept[:opening] + kept[users[skip] :]

    def _guarded(self, messages: Sequence[Message], tools: Tools) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
        counter = [0]
        guarded = []
        for message in messages:
            trusted = message.role == "assistant"
            entry = {"role": message.role, "content": message.content, **message.extra}
            guarded.append(self._guard(entry, trusted, counter))
        return guarded, [self._guard(tool, False, counter) for tool in tools], counter[0]

    def _guard(self, value: Any, trusted: bool, counter: list[int]) -> Any:
        if isinstance(value, str):
            if RESERVED.search(value):
                problem = "the row holds Unicode noncharacters (U+FDD0 to U+FDEF), which no exchanged text may hold"
                raise RowRefused(Refusal("template", problem))
            text, found = self.encoding.guard(value, trusted=trusted)
            counter[0] += found
            return text
        if isinstance(value, dict):
            return {key: self._guard(inner, trusted, counter) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._guard(inner, trusted, counter) for inner in value]
        return value

    def _draft(self, messages: Sequence[Message], located: Located, weight: float, control: int) -> Draft:
        turns = located.turns
        everything = self.config.train_on == "all"
        spans: list[tuple[float, int | None]] = [(0.0, None)]
        for turn in turns:
            message = messages[turn.message]
            own = weight * message.weight if _is_learned(message) else 0.0
            spans.append((own, turn.stop if own else None))
        if everything:
            spans = [(weight, None)] * len(spans)
        pieces = self._pieces(located.text, [turn.start for turn in turns], spans)
        last = turns[-1] if turns else None
        notes = list(located.notes)
        tail: tuple[int, ...] = ()
        if self.encoding.eos is not None and not (last and last.ended):
            tail = (self.encoding.eos,)
            # Line breaks that the template writes behind a turn would stand between the answer and the added end token.
            if last and last.message == len(messages) - 1 and not everything:
                pieces[-1] = _until(pieces[-1])
            if not self.template.plain:
                notes.append("the chat template ends no answer with an end token: one is added behind the last answer")
        return Draft(
            tuple(pieces),
            len(pieces) - 1 if turns else len(pieces),
            self._head(),
            tail,
            weight * (messages[last.message].weight if last and not everything else 1.0),
            ended=bool(tail) or bool(last and last.ended),
            control=control,
            notes=(*self.template.notes, *notes),
            conversation=True,
        )

    def _head(self) -> tuple[int, ...]:
        # A base's own template writes its beginning-of-sequence token itself; the built-in one leaves it to us.
        return self.encoding.prefix if self.template.plain else ()

    def _pieces(self, text: str, starts: Sequence[int], spans: Sequence[tuple[float, int | None]]) -> list[Piece]:
        edges = [0, *starts, len(text)]
        pieces = []
        for number, (weight, stop) in enumerate(spans):
            start, end = edges[number], edges[number + 1]
            inside = None if stop is None or stop >= end else stop - start
            anchor = self._anchor(text[:start]) if self.encoding.needs_anchor else ""
            pieces.append(Piece(text[start:end], weight, inside, anchor, opens=number == 0))
        return pieces

    def _anchor(self, before: str) -> str:
        return next((token for token in self.encoding.special if before.endswith(token)), "")


def _until(piece: Piece) -> Piece:
    if piece.stop is None:
        return piece
    return Piece(piece.text[: piece.stop], piece.weight, None, piece.anchor, piece.opens)


def _is_learned(message: Message) -> bool:
    return message.role == "assistant" and message.weight > 0 and bool(message.content.strip() or message.extra)


def _no_answer(messages: Sequence[Message]) -> RowRefused:
    if any(message.role == "assistant" and message.weight > 0 for message in messages):
        return RowRefused(Refusal("empty_answer", "every assistant message that should be learned is empty"))
    roles = ", ".join(dict.fromkeys(message.role for message in messages)) or "no messages"
    return RowRefused(Refusal("no_assistant", f"the conversation has no assistant message with a weight above 0 (roles: {roles})"))
