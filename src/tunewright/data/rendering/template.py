"""Chat templates: where they come from, how they are rendered, and how they end a turn.

A template is foreign code. It runs in the sandbox of transformers (jinja2 at least 3.1.6); limits on its time and memory are not
set here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tunewright.core.errors import ConfigurationError
from tunewright.data.rendering.encoding import Encoding
from tunewright.data.rendering.refusals import Refusal, RowRefused

# For bases without a template of their own. An answer ends with the end token, and its leading space belongs to it: that way the
# prompt ends where a tokenizer ends a word.
PLAIN = """\
{%- if tools %}{{ 'Tools: ' + tools | tojson + '\\n' }}{% endif %}
{%- for message in messages %}
{{- '\\n' if not loop.first }}{{ message.role | capitalize + ':' }}
{%- if message.content %}{{ ' ' + message.content }}{% endif %}
{%- if message.tool_calls %}{{ ' ' + message.tool_calls | tojson }}{% endif %}
{%- if message.role == 'assistant' %}{{ eos_token | default('') }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}"""

MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
# What a template can raise besides jinja's own errors, when a conversation is not of the kind that it was written for.
FAILURES = (TemplateError, TypeError, ValueError, LookupError, AttributeError)
_END = "\ufdd1"
_WHOLE = re.compile(r".*[>\]\n]", re.DOTALL)

Messages = Sequence[dict[str, Any]]


class ChatTemplate:
    """One chat template on one tokenizer.

    Attributes:
        name: where the template comes from, for reports.
        plain: it is the built-in one, to which the base's own special tokens are added by us.
        marked: the author has marked what the assistant generates.
        notes: what a report should say about it.
    """

    def __init__(self, encoding: Encoding, wanted: str | None = None, *, ends_turns: bool = True) -> None:
        self.encoding = encoding
        self._special = tuple(encoding.special)
        own = encoding.tokenizer.chat_template
        self.notes: tuple[str, ...] = ()
        self.source: str | None = None
        self.plain = wanted == "plain" or (wanted is None and not own)
        if self.plain:
            self.name = "plain (built in)"
            self.source = PLAIN if ends_turns else PLAIN.replace("eos_token | default('')", "''")
            if wanted is None:
                self.notes = ("the base has no chat template: conversations are written as 'User: ...' and 'Assistant: ...'",)
        elif wanted is not None:
            self.name, self.source = wanted, _read(Path(wanted))
        else:
            self.name = "of the base"
        text = self.source or encoding.tokenizer.get_chat_template()
        self.marked = MARKERS.search(text) is not None
        if "strftime_now" in text:
            self.notes += ("the chat template writes today's date into every row: a run of another day has other tokens",)

    def render(self, messages: Messages, tools: Sequence[dict[str, Any]] = (), *, generation: bool = False) -> str:
        """The conversation as text; with `generation`, up to where the assistant is to speak.

        Raises:
            RowRefused: the template raised.
        """
        try:
            return self.encoding.tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=self.source,
                add_generation_prompt=generation,
                tokenize=False,
            )
        except FAILURES as error:
            raise RowRefused(Refusal("template", f"the chat template refuses the conversation: {error}")) from error

    def render_marked(self, messages: Messages, tools: Sequence[dict[str, Any]] = ()) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as text, and the spans that the template's author marked as generated.

        Raises:
            RowRefused: the template raised.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        tokenizer = self.encoding.tokenizer
        source = self.source or tokenizer.get_chat_template(tools=list(tools) or None)
        special: dict[str, Any] = {
            name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
        }
        try:
            texts, spans = render_jinja_template(
                [list(messages)], tools=list(tools) or None, chat_template=source, return_assistant_tokens_mask=True, **special
            )
        except FAILURES as error:
            raise RowRefused(Refusal("template", f"the chat template refuses the conversation: {error}")) from error
        return texts[0], [(int(start), int(end)) for start, end in spans[0]]

    @cached_property
    def turn_end(self) -> str:
        """What the template writes behind every answer, whatever follows: `<|im_end|>`, `<|eot_id|>`, ` </s>`; "" when nothing.

        Learned from two conversations that go on differently behind the same answer. It ends with the first control token, since
        generation stops there.
        """
        opening: list[dict[str, Any]] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": f"b{_END}"}]
        try:
            last = self.render(opening).partition(_END)[2]
            followed = self.render([*opening, {"role": "user", "content": "c"}]).partition(_END)[2]
        except RowRefused:
            return ""
        shared = _common_prefix(last, followed)
        control = self.encoding.special_pattern
        found = control.search(shared) if control else None
        if found:
            return shared[: found.end()]
        # Words that are no token. The next turn's header may begin alike ("<|end|>\n<|user|>"), so only whole tags or lines count.
        whole = _WHOLE.match(shared)
        return whole[0].rstrip() if whole else ""

    @cached_property
    def opens_turns(self) -> bool:
        """Whether asking for a generation prompt changes anything: templates without one let the user's turn end with it."""
        question: list[dict[str, Any]] = [{"role": "user", "content": "a"}]
        try:
            return self.render(question, generation=True) != self.render(question)
        except RowRefused:
            return False

    def is_control(self, text: str) -> bool:
        """Whether `text` ends with a control token of the tokenizer."""
        return text.endswith(self._special)


def _common_prefix(left: str, right: str) -> str:
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return left[:index]
    return left if len(left) <= len(right) else right


def _read(path: Path) -> str:
    if not path.is_file():
        hint = "Give the path of a .jinja file, or 'plain' for the built-in template."
        raise ConfigurationError(f"there is no chat template '{path}'", where="template", hint=hint)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"is not UTF-8 text (byte {error.start})", where=str(path)) from None
