"""The configuration of rendering: what a run file says about how rows become tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError
from tunewright.data.rows import PromptRow, Row

DEFAULT_SEPARATOR = "\n"


class Rendering(Strict):
    """How rows become tokens.

    Args:
        max_tokens: the longest example, in tokens; None: the context of the base.
        truncate: what happens to a longer row. `prompt`: the oldest part of the prompt goes, the answer stays whole, and a row
            whose answer alone does not fit is refused. `refuse`: the row is refused. `answer`: the end of the row goes; that row
            then does not teach when to stop, and the counts say so.
        template: a chat template to use in place of the base's own: a file (`.jinja`), or `plain` for the built-in one.
        prompt_format: what a prompt is put into, with `{prompt}` in it, for prompt/completion rows; or `chat` to put the row
            through the chat template as one user turn and one assistant turn.
        separator: what stands between prompt and completion. None: a newline, only where neither side has white space at the
            seam. Given: always, unless the prompt ends with white space. `settled` turns the first into the second.
        train_on: `completion` learns answers only, `all` learns every token.
        system: a system message for chats that have none; text in front of the prompt for prompt/completion rows.
        label_prompt: what a text is followed by when a decoder is asked for its label.
        control_tokens: `text` writes a control token that stands in a row (`</s>`, `<|im_start|>`) as plain characters, so that
            no row can speak for the template; `keep` lets rows write control tokens.
    """

    max_tokens: int | None = Field(default=None, ge=4)
    truncate: Literal["prompt", "refuse", "answer"] = "prompt"
    template: str | None = None
    prompt_format: str | None = None
    separator: str | None = None
    train_on: Literal["completion", "all"] = "completion"
    system: str | None = None
    label_prompt: str = "\nLabel:"
    control_tokens: Literal["text", "keep"] = "text"

    @model_validator(mode="after")
    def _format_has_a_place(self) -> Rendering:
        given = self.prompt_format
        if given is not None and given != "chat" and given.count("{prompt}") != 1:
            hint = "Write {prompt} where the prompt goes, or 'chat' to use the chat template."
            raise ConfigurationError(f"prompt_format must hold '{{prompt}}' once, got {given!r}", where="prompt_format", hint=hint)
        return self

    def settled(self, rows: Iterable[Row]) -> Rendering:
        """The same configuration with the separator fixed to what most of `rows` have.

        A prompt that is served has no completion beside it, so whether a separator stands between the two must not depend on the
        completion. The resolved run file holds the settled configuration.
        """
        if self.separator is not None or self.prompt_format is not None:
            return self
        pairs = [(row.prompt, row.completion) for row in rows if isinstance(row, PromptRow) and row.prompt and row.completion]
        bare = sum(separator_for(prompt, completion) == "" for prompt, completion in pairs)
        return self.model_copy(update={"separator": "" if 2 * bare > len(pairs) else DEFAULT_SEPARATOR})


def separator_for(prompt: str, completion: str) -> str:
    """The default separator: nothing at an empty side or where either side has white space at the seam, else a newline."""
    if not prompt or prompt[-1].isspace() or completion[:1].isspace():
        return ""
    return DEFAULT_SEPARATOR
