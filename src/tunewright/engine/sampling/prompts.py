"""What is asked of sampling and what comes back; no decoding here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunewright.engine.settings import Sampling

Reason = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Prompt:
    """Token ids to continue (to read, for an encoder-decoder), and the tuning of a bank that writes.

    Args:
        number: what its draws are made from; its index among the prompts of the call where not given.
    """

    tokens: tuple[int, ...]
    tuning: int = 0
    number: int | None = None


@dataclass(frozen=True)
class Sample:
    """One answer.

    Args:
        tokens: without the end token. Where a stop string ended the answer: as many as it takes to write the text before it, of
            which the last may carry the beginning of the stop string.
        finished: it ended by itself, and not because it grew too long.
        reason: an end token, a stop string, or its length.
        text: the text before the stop string; None where no stop string ended the answer, and the tokens say it all.
        drawn: every token that was drawn, the end token or the stop string included: what a policy gradient is about.
        log_probabilities: log p of every drawn token under the softmax at the temperature asked for (at 1 for greedy), before
            `top_k` and `top_p` cut it; empty where nobody asked.
    """

    tokens: tuple[int, ...]
    finished: bool
    reason: Reason = "end"
    text: str | None = None
    drawn: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()


@dataclass(frozen=True)
class Request:
    """One call of `sample`, as the decoders see it: how answers are drawn, what ends them, and what is kept of them."""

    prompts: tuple[Prompt, ...]
    settings: Sampling
    ends: frozenset[int]
    samples: int = 1
    scored: bool = False
    cache: bool = True


def as_prompts(prompts: Sequence[Sequence[int] | Prompt], begins: Mapping[int, tuple[int, ...]]) -> tuple[Prompt, ...]:
    """What is continued: plain token ids belong to tuning 0, and the virtual tokens in `begins` stand before each tuning's own.

    Raises:
        ValueError: a prompt has no tokens, and there is nothing to continue.
    """
    found = tuple(prompt if isinstance(prompt, Prompt) else Prompt(tuple(prompt)) for prompt in prompts)
    for index, prompt in enumerate(found):
        if not prompt.tokens:
            raise ValueError(f"prompt {index} has no tokens: there is nothing to continue")
    return tuple(
        replace(
            prompt,
            tokens=begins.get(prompt.tuning, ()) + tuple(prompt.tokens),
            number=index if prompt.number is None else prompt.number,
        )
        for index, prompt in enumerate(found)
    )
