"""Where, in a rendered conversation, the assistant speaks: derived by rendering and verified, for templates of any kind.

If the author of the template marked the generated parts, those are taken. Otherwise the conversation is rendered again with
invisible marks inside every answer; without the marks the two renderings must be the same text, which proves each mark's place.
Marks survive what templates do to answers: stripping, and dropping the thoughts of earlier turns. The turn begins where the
template's own generation prompt ends, and ends behind the template's end-of-turn token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.data.rendering.refusals import Refusal, RowRefused
from tunewright.data.rendering.template import ChatTemplate, Messages

# Noncharacters, as in encoding.py: no exchanged text holds them.
WORD, END = "\ufdd0", "\ufdd1"
_MARKS = re.compile(f"[{WORD}{END}]")
# A mark in front of "<" would keep templates from finding or stripping around tags such as "</think>".
_WORD_STARTS = re.compile(r"(?<=[\s>])(?=[^\s<])|\A(?=[^<])")


@dataclass(frozen=True)
class Turn:
    """One assistant message in the rendered text.

    Args:
        message: its index in the conversation.
        start: where what the model generates begins.
        stop: where it ends, end-of-turn token included.
        ended: it ends with a control token, on which generation stops.
    """

    message: int
    start: int
    stop: int
    ended: bool


@dataclass(frozen=True)
class Located:
    """A rendered conversation with its assistant turns, and what should be reported about how they were found."""

    text: str
    turns: tuple[Turn, ...]
    notes: tuple[str, ...] = ()


def locate(template: ChatTemplate, messages: Messages, tools: Sequence[dict[str, Any]] = ()) -> Located:
    """The rendered conversation and the place of every assistant message.

    Raises:
        RowRefused: the template raised, or a place cannot be proven.
    """
    if template.marked:
        found = _by_markers(template, messages, tools)
        if found is not None:
            return found
    return _Derivation(template, messages, tools).located()


def _speakers(messages: Messages) -> list[int]:
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def _by_markers(template: ChatTemplate, messages: Messages, tools: Sequence[dict[str, Any]]) -> Located | None:
    text, spans = template.render_marked(messages, tools)
    speakers = _speakers(messages)
    if len(spans) != len(speakers):
        return None
    turns = []
    for index, (start, stop) in zip(speakers, spans, strict=True):
        if messages[index]["content"].strip() not in text[start:stop]:
            return None
        inside = text[start:stop].rstrip()
        end = template.turn_end
        if template.is_control(inside):
            turns.append(Turn(index, start, start + len(inside), ended=True))
        elif end and text.startswith(end, stop):
            # Some authors leave the end token outside their markers; a model that never learns it never stops.
            turns.append(Turn(index, start, stop + len(end), ended=template.is_control(end)))
        else:
            turns.append(Turn(index, start, stop, ended=False))
    return Located(text, tuple(turns))


class _Derivation:
    def __init__(self, template: ChatTemplate, messages: Messages, tools: Sequence[dict[str, Any]]) -> None:
        self.template, self.messages, self.tools = template, messages, tools
        self.text = template.render(messages, tools)
        self.notes: set[str] = set()
        self.contents = self._contents()

    def located(self) -> Located:
        turns: list[Turn] = []
        for index in _speakers(self.messages):
            turn = self._turn(index)
            if turns and turn.start < turns[-1].stop:
                raise _unproven("two answers seem to overlap")
            turns.append(turn)
        return Located(self.text, tuple(turns), tuple(sorted(self.notes)))

    def _contents(self) -> dict[int, tuple[int, int]]:
        """The place of each answer's own words, proven by marks; empty when the template does not pass them through unchanged."""
        marked = [index for index in _speakers(self.messages) if self.messages[index]["content"].strip()]
        changed = [dict(message) for message in self.messages]
        for index in marked:
            changed[index]["content"] = _with_marks(changed[index]["content"])
        try:
            rendered = self.template.render(changed, self.tools)
        except RowRefused:
            return {}
        if _MARKS.sub("", rendered) != self.text:
            return {}
        *answers, _ = rendered.split(END)
        if len(answers) != len(marked):
            return {}
        places: dict[int, tuple[int, int]] = {}
        passed = 0
        for index, before in zip(marked, answers, strict=True):
            end = passed + len(before) - before.count(WORD)
            if not self._belongs(changed[index]["content"], before):
                return {}
            places[index] = (self._first_word(changed[index]["content"], before, passed, end), end)
            passed = end
        return places

    @staticmethod
    def _belongs(content: str, before: str) -> bool:
        """Whether the text in front of an end mark is this answer's: templates may leave messages out or move them."""
        kept, total = before.count(WORD), content.count(WORD)
        last = content[: content.rindex(END)].rpartition(WORD)[2]
        return kept <= total and (before.endswith(last) if kept else last.endswith(before[-1:]))

    def _first_word(self, content: str, before: str, passed: int, end: int) -> int:
        """Where an answer's own words begin, given the text `before` its end mark, which begins at `passed`."""
        core = content[: content.rindex(END)].lstrip()
        kept = before.count(WORD)
        if kept == 0:
            words = core.replace(WORD, "")
            return end - len(words) if self.text.endswith(words, passed, end) else end
        # The words that were dropped, if any, are the first ones: what is kept is counted from the back.
        lead, _, _ = _after(core, core.count(WORD) - kept)
        if kept < core.count(WORD):
            self.notes.add("the template leaves out the beginning of earlier answers (their thoughts): they are learned without it")
        first = passed + before.index(WORD)
        plain = lead.replace(WORD, "")
        return first - len(plain) if self.text.endswith(plain, passed, first) else first

    def _turn(self, index: int) -> Turn:
        own = self.contents.get(index)
        start = self._start(index, own[0] if own else None)
        stop, ended = self._stop(index, start, own[1] if own else None)
        words = self.messages[index]["content"].strip()
        if own is None and words and words not in self.text[start:stop]:
            raise _unproven("the template changes the answers")
        return Turn(index, start, stop, ended)

    def _start(self, index: int, own: int | None) -> int:
        try:
            prompt = self.template.render(self.messages[:index], self.tools, generation=True)
        except RowRefused:
            prompt = None
        if prompt is not None and self.text.startswith(prompt) and (own is None or len(prompt) <= own):
            gap = "" if own is None else self.text[len(prompt) : own]
            # What stands between generation prompt and answer must be generated, unless the template has no generation prompt:
            # then it is the header of the turn, and belongs to the prompt.
            if not gap.strip() or self.template.opens_turns:
                return len(prompt)
        if own is None:
            raise _unproven("the generation prompt is not what stands before the answer")
        if self.template.opens_turns:
            self.notes.add(
                "the template's generation prompt is not what it writes before answers: prompts end where the answers begin"
            )
        return own

    def _stop(self, index: int, start: int, own: int | None) -> tuple[int, bool]:
        end = self.template.turn_end
        calls = bool(self.messages[index].get("tool_calls"))
        if own is not None and not calls:
            if end and self.text.startswith(end, own):
                return own + len(end), self.template.is_control(end)
            return self._stop_without_end(index, own, own)
        place = self.text.find(end, start if own is None else own) if end else -1
        if place >= 0:
            return place + len(end), self.template.is_control(end)
        return self._stop_without_end(index, start, own)

    def _stop_without_end(self, index: int, start: int, own: int | None) -> tuple[int, bool]:
        """The end of an answer that is not followed by the usual end of a turn."""
        last = index == len(self.messages) - 1
        through = self.text if last else self.template.render(self.messages[: index + 1], self.tools)
        if not self.text.startswith(through):
            if own is None:
                raise _unproven("the end of the answer is not found")
            return own, False
        inside = self.text[start : len(through)].rstrip()
        stop = start + len(inside)
        return stop, self.template.is_control(inside)


def _with_marks(content: str) -> str:
    core = content.strip()
    lead = content[: content.index(core)]
    trail = content[len(lead) + len(core) :]
    return lead + _WORD_STARTS.sub(WORD, core) + END + trail


def _after(text: str, count: int) -> tuple[str, str, str]:
    """`text` cut in front of its mark number `count`."""
    place = -1
    for _ in range(count + 1):
        place = text.index(WORD, place + 1)
    return text[:place], WORD, text[place + 1 :]


def _unproven(reason: str) -> RowRefused:
    hint = "use a template with {% generation %} markers (rendering.template), or put the rows into prompt and completion"
    return RowRefused(Refusal("mask", f"which tokens the assistant writes cannot be proven: {reason}; {hint}"))
