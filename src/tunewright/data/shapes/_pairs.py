"""What preference formats share: a conversation so far and two single answers that differ."""

from __future__ import annotations

import re
from typing import Any

from tunewright.data.rows import Message
from tunewright.data.shapes import RowProblem
from tunewright.data.shapes._messages import messages_of

# Anthropic's HH data and what was made after it: a conversation as one text.
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def answer_of(messages: tuple[Message, ...], column: str) -> str:
    """The text of the one assistant message that an answer must be. Raises `RowProblem` otherwise."""
    if len(messages) != 1 or messages[0].role != "assistant":
        roles = ", ".join(message.role for message in messages) or "none"
        raise RowProblem("answer_not_one_message", f"'{column}' must be one assistant message, it has: {roles}")
    if messages[0].extra.get("tool_calls") and not messages[0].content:
        raise RowProblem("answer_not_text", f"'{column}' is a tool call; preferences compare texts")
    return messages[0].content


def different(chosen: str, rejected: str) -> None:
    """Refuse a pair that prefers nothing."""
    if chosen.strip() == rejected.strip():
        raise RowProblem("same_answers", "the chosen and the rejected answer are the same")


def prompt_of(value: Any, column: str = "prompt") -> tuple[Message, ...]:
    """The conversation in a column that holds a text or a list of messages. Raises `RowProblem` for anything else."""
    return conversation(value) if isinstance(value, str) else messages_of(value, column)


def conversation(text: str) -> tuple[Message, ...]:
    """The messages of a text: a "Human: ... Assistant:" transcript is taken apart, any other text is one user message."""
    pieces = _TURN.split(text.strip())
    if len(pieces) < 3 or pieces[0].strip():
        return (Message(role="user", content=text),)
    turns = [
        Message(role="user" if who == "Human" else "assistant", content=said.strip())
        for who, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    # The last "Assistant:" only opens the answer.
    return tuple(turns[:-1] if turns[-1].role == "assistant" and not turns[-1].content else turns)


def shared_transcript(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Prompt, chosen and rejected answer of two texts that begin with the same prompt.

    Raises:
        RowProblem: no prompt stands in both, or the prompts differ.
    """
    marker = "\n\nAssistant:"
    if marker in chosen and marker in rejected:
        cut, other = chosen.rindex(marker) + len(marker), rejected.rindex(marker) + len(marker)
        if chosen[:cut] != rejected[:other]:
            raise RowProblem("different_prompts", "the chosen and the rejected conversation differ before their last answer")
        return chosen[:cut], chosen[cut:].strip(), rejected[other:].strip()
    shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected)))
    # Answers often begin alike; only whole lines can be a prompt.
    cut = chosen.rfind("\n", 0, shared) + 1
    if not chosen[:cut].strip():
        raise RowProblem("no_prompt", "there is no 'prompt', and 'chosen' and 'rejected' do not begin with a shared one")
    return chosen[:cut].strip(), chosen[cut:].strip(), rejected[cut:].strip()


def shared_messages(chosen: Any, rejected: Any) -> tuple[tuple[Message, ...], str, str]:
    """The same for two lists of messages that begin with the same conversation."""
    left, right = messages_of(chosen, "chosen"), messages_of(rejected, "rejected")
    if left[:-1] != right[:-1]:
        raise RowProblem("different_prompts", "'chosen' and 'rejected' differ before their last message")
    if len(left) < 2:
        raise RowProblem("no_prompt", "there is no 'prompt', and 'chosen' and 'rejected' hold an answer only")
    return left[:-1], answer_of(left[-1:], "chosen"), answer_of(right[-1:], "rejected")
