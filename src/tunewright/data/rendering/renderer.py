"""The renderer: rows to trees of tokens, for one tokenizer and one kind of base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Tree
from tunewright.data.rendering.chat import Chats, Tools
from tunewright.data.rendering.choices import choices, whole_text
from tunewright.data.rendering.drafts import (
    Draft,
    Line,
    Rendered,
    as_tree,
    fitted,
    fitted_sides,
    lines,
    one_bos,
    refusal_with_sizes,
    without_oldest,
)
from tunewright.data.rendering.encoding import Encoding
from tunewright.data.rendering.pairs import chunks, label_draft, pair_draft, text_draft
from tunewright.data.rendering.refusals import Refusal, RowRefused
from tunewright.data.rendering.settings import Rendering
from tunewright.data.rendering.template import ChatTemplate
from tunewright.data.rows import ChatRow, LabelRow, Message, PreferenceRow, PromptRow, Row, TextRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Kind = Literal["decoder", "encoder", "encoder_decoder"]
_BLOCK = 1000  # rows handed to the tokenizer at once: enough to be fast, few enough to stay small


class Renderer:
    """Turns rows into trees with exactly known trained tokens.

    Which tokens are trained is decided by position and never by id, so a padding token that is also the end token changes nothing:
    the end of an answer is always learned.

    Args:
        tokenizer: a fast tokenizer of transformers.
        kind: what the base is.
        context: the longest sequence of the base; None when it has no limit.
        config: how rows become tokens.

    Raises:
        ConfigurationError: `max_tokens` is above the context, or the chat template cannot be read.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, kind: Kind, context: int | None = None, config: Rendering | None = None
    ) -> None:
        self.kind: Kind = kind
        self.config = config or Rendering()
        self.encoding = Encoding(tokenizer, keep_control=self.config.control_tokens == "keep")
        self.limit = _limit(self.config.max_tokens, context)
        self.template = ChatTemplate(self.encoding, self.config.template, ends_turns=kind == "decoder")
        self.chats = Chats(self.encoding, self.template, self.config)
        self._in_windows = False

    def learning_all(self) -> Renderer:
        """The same for rows that are learned whole: every token is a target, and a long row becomes several windows, uncut."""
        other = copy(self)
        other.config = self.config.model_copy(update={"train_on": "all"})
        other.chats = Chats(self.encoding, self.template, other.config)
        other._in_windows = True
        return other

    def example(self, row: Row) -> Rendered:
        """A row as one training example.

        Decoders: one segment (beginning token, prompt, answer, end token) with the answer and its end as targets. Encoder-decoders:
        the encoder's input as the root, the answer and its end as its child. Encoders: the whole text, without targets.

        Raises:
            RowRefused: the row cannot be rendered, or is a text of several pieces (see `examples`).
        """
        found = self.examples(row)
        if len(found) > 1:
            message = f"the text makes {len(found)} examples of at most {self.limit} tokens; ask for all of them with examples()"
            raise RowRefused(Refusal("too_long", message, row.where))
        return found[0]

    def examples(self, row: Row) -> list[Rendered]:
        """A row as its training examples: one, or several for a text that is longer than `max_tokens`.

        Raises:
            RowRefused: the row cannot be rendered.
        """
        found = self.examples_of([row])
        if isinstance(found[0], Refusal):
            raise RowRefused(found[0])
        return [item for item in found if isinstance(item, Rendered)]

    def examples_of(self, rows: Sequence[Row]) -> list[Rendered | Refusal]:
        """Many rows at once, several times faster than one by one.

        Rows that cannot be rendered stand as refusals in their place. A row makes one entry, except a long text, which makes one
        for each piece; `row` of an entry and of its segments is the index in `rows`.
        """
        result: list[Rendered | Refusal] = []
        for start in range(0, len(rows), _BLOCK):
            result.extend(self._block(rows[start : start + _BLOCK], start))
        return result

    def prompt(self, row: Row, *, room: int = 0) -> tuple[int, ...]:
        """Token ids to generate from, up to and including the generation prompt.

        For a row that ends with its learned answer these are the first tokens of `example(row)`, by construction. A row that has no
        answer yet is asked for one. Encoder-decoders: the encoder's input.

        Args:
            row: an answer it may have is not part of the result.
            room: tokens to leave free for the answer; the oldest part of the prompt gives way.

        Raises:
            RowRefused: the template raised, or the prompt does not fit and may not be cut.
        """
        return self.prompt_and_cut(row, room=room)[0]

    def prompt_and_cut(self, row: Row, *, room: int = 0) -> tuple[tuple[int, ...], int]:
        """`prompt`, and how many of its tokens were cut away. Raises `RowRefused` as that does."""
        try:
            return self._prompt(row, room)
        except RowRefused as error:
            raise RowRefused(replace(error.refusal, where=row.where)) from error

    def text(self, row: LabelRow, label: int | None = None) -> Rendered:
        """A labelled row for a task head: the whole text with the tokens that the tokenizer puts around it, without targets.

        A pair is encoded as the tokenizer encodes pairs (without token types, which segments do not carry). Too long a text loses
        its end.

        Args:
            row: a text or a pair.
            label: the class index that the head should give.
        """
        return whole_text(row, self.encoding, self.limit, label)

    def options(self, row: LabelRow, labels: Sequence[str]) -> Tree:
        """A labelled row as a question with one child for each label: " label" and the end token, all of them targets.

        Raises:
            RowRefused: the labels alone do not fit.
        """
        drafts = [
            label_draft(replace(row, label=label, weight=1.0), self.encoding, self.config, joined=self._joined) for label in labels
        ]
        return choices(drafts, self.encoding, self.limit, joined=self._joined, cuts=self._cuts).tree

    def branches(self, messages: Sequence[Message], answers: Sequence[str], *, tools: Tools = (), row: int = 0) -> Tree:
        """The tree of `branched`. Raises `RowRefused` as that does."""
        return self.branched(messages, answers, tools=tools, row=row).tree

    def branched(self, messages: Sequence[Message], answers: Sequence[str], *, tools: Tools = (), row: int = 0) -> Rendered:
        """A conversation with one child for each answer: preferences, rankings, groups of samples. The prompt is computed once.

        Args:
            messages: the conversation up to and without the answer.
            answers: what the assistant could say next.
            tools: what the template shows as callable.
            row: the index kept in the segments.

        Raises:
            RowRefused: an answer is empty or does not fit, the prompt does not fit and may not be cut, or the template writes
                different prompts for different answers.
        """
        quiet = [replace(message, weight=0.0) for message in messages]
        spoken = [[*quiet, Message(role="assistant", content=answer)] for answer in answers]
        drafts = [self.chats.learned(conversation, tools) for conversation in spoken]
        tree, cut = choices(drafts, self.encoding, self.limit, joined=self._joined, row=row, cuts=self._cuts)
        first = drafts[0]
        return Rendered(tree, cut, control=first.control, row=row, notes=first.notes, conversation=first.conversation)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a generated answer: up to the first token that ends a turn, without special tokens and closing white space.

        One leading space goes too: it is how a word begins (" yes") and never an indentation, which has more.
        """
        stops = self.stops
        end = next((index for index, token in enumerate(tokens) if token in stops), len(tokens))
        text = self.encoding.decode(tokens[:end]).rstrip()
        if not self.template.plain and self.template.turn_end:
            text = text.removesuffix(self.template.turn_end).rstrip()  # an end that is written in words is no special token
        return text[1:] if text[:1] == " " and text[1:2] != " " else text

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """Ids on which generation ends: the end-of-sequence token and the chat template's end-of-turn token."""
        found = [] if self.encoding.eos is None else [self.encoding.eos]
        end = "" if self.template.plain else self.template.turn_end
        if end and self.template.is_control(end):
            found.append(self.encoding.ids(end)[-1])
        return tuple(dict.fromkeys(found))

    @property
    def _joined(self) -> bool:
        return self.kind != "encoder_decoder"

    @property
    def _cuts(self) -> bool:
        return self.config.truncate != "refuse"

    def _block(self, rows: Sequence[Row], first: int) -> Iterator[Rendered | Refusal]:
        drafts: list[Draft | Refusal] = []
        for index, row in enumerate(rows, first):
            try:
                drafts.append(self._draft(row))
            except RowRefused as error:
                drafts.append(replace(error.refusal, where=row.where, row=index))
        ready = iter(lines([draft for draft in drafts if isinstance(draft, Draft)], self.encoding))
        for index, (row, draft) in enumerate(zip(rows, drafts, strict=True), first):
            if isinstance(draft, Refusal):
                yield draft
                continue
            line = next(ready)
            try:
                yield from self._finished(row, index, draft, line)
            except RowRefused as error:
                yield replace(error.refusal, where=row.where, row=index)

    def _draft(self, row: Row, skip: int = 0) -> Draft:
        if self.kind == "encoder":
            if not isinstance(row, LabelRow):
                raise RowRefused(Refusal("shape", f"an encoder reads labelled texts; this row has the shape '{row.shape}'"))
            return Draft((), 0)  # finished by `text`, since pairs are the tokenizer's own affair
        if isinstance(row, TextRow):
            if not self._joined or not row.text.strip():
                problem = "an encoder-decoder cannot learn plain text" if row.text.strip() else "the text is empty"
                raise RowRefused(Refusal("nothing_trained" if self._joined else "shape", problem))
            return text_draft(row, self.encoding)
        if isinstance(row, LabelRow):
            return label_draft(row, self.encoding, self.config, joined=self._joined)
        if isinstance(row, PromptRow) and self.config.prompt_format != "chat":
            if not row.completion.strip():
                raise RowRefused(Refusal("empty_answer", "the completion is empty"))
            return pair_draft(row, self.encoding, self.config, joined=self._joined)
        messages, tools = _conversation(row)
        return self.chats.learned(messages, tools, weight=row.weight, skip=skip)

    def _finished(self, row: Row, index: int, draft: Draft, line: Line) -> Iterator[Rendered]:
        if self.kind == "encoder" and isinstance(row, LabelRow):
            yield whole_text(row, self.encoding, self.limit, None, index)
            return
        one_bos(line, self.encoding.bos)
        whole = self._in_windows or isinstance(row, TextRow)
        pieces = chunks(line, self.limit) if whole else [self._fitted(row, line)]
        for piece in pieces:
            if piece.trained - (piece.weights[0] > 0) < 1:
                problem = f"no token of the row would be learned (its weight is {row.weight:g}, {piece.cut} tokens were cut away)"
                raise RowRefused(refusal_with_sizes("nothing_trained", problem, line))
            tree = as_tree(piece, self.encoding, index, joined=self._joined)
            yield Rendered(
                tree, piece.cut, row.where, piece.answer_cut, piece.ended, draft.control, index, draft.notes, draft.conversation
            )

    def _fitted(self, row: Row, line: Line) -> Line:
        if not self._joined:
            return fitted_sides(line, self.limit, self.encoding, self.config.truncate)
        if self.limit is None or len(line.tokens) <= self.limit or self.config.truncate != "prompt":
            return fitted(line, self.limit, self.config.truncate)
        return fitted(self._fewer_exchanges(row, line, self.limit), self.limit, "prompt")

    def _fewer_exchanges(self, row: Row, line: Line, limit: int) -> Line:
        """`line` without the oldest exchanges of its conversation, as few as possible: whole turns go before parts of turns do."""
        if isinstance(row, TextRow | LabelRow) or (isinstance(row, PromptRow) and self.config.prompt_format != "chat"):
            return line
        messages, _ = _conversation(row)
        shorter = line
        for skip in range(1, self.chats.exchanges(messages) + 1):
            shorter = lines([self._draft(row, skip)], self.encoding)[0]
            if len(shorter.tokens) <= limit:
                break
        return replace(shorter, cut=len(line.tokens) - len(shorter.tokens), answer_cut=line.trained - shorter.trained)

    def _prompt(self, row: Row, room: int) -> tuple[tuple[int, ...], int]:
        if self.kind == "encoder":
            raise RowRefused(Refusal("shape", "an encoder generates nothing"))
        line = self._with_answer(row) or lines([self._question(row)], self.encoding)[0]
        one_bos(line, self.encoding.bos)
        asked = replace(line, tokens=line.tokens[: line.seam], weights=[0.0] * line.seam)
        if not self._joined:
            asked = fitted_sides(asked, self.limit, self.encoding, "prompt")
            return as_tree(asked, self.encoding, 0, joined=False).segments[0].tokens, asked.cut
        over = 0 if self.limit is None else len(asked.tokens) + room - self.limit
        if self.limit is not None and over > 0:
            if self.config.truncate == "refuse":
                message = f"the prompt has {len(asked.tokens):,} tokens; with {room:,} for the answer, max_tokens is {self.limit:,}"
                raise RowRefused(refusal_with_sizes("too_long", message, asked))
            asked = without_oldest(asked, over, self.limit)
        return tuple(asked.tokens), asked.cut

    def _with_answer(self, row: Row) -> Line | None:
        """The line of a row that ends with a learned answer, cut as the example is; None when the row cannot be an example."""
        if isinstance(row, TextRow):
            return None
        if isinstance(row, ChatRow) and (not row.messages or row.messages[-1].role != "assistant" or not row.messages[-1].weight):
            return None
        try:
            draft = self._draft(row)
            return self._fitted(row, lines([draft], self.encoding)[0])
        except RowRefused:
            return None

    def _question(self, row: Row) -> Draft:
        """The draft of a row that waits for its answer."""
        if isinstance(row, TextRow):
            return replace(text_draft(row, self.encoding), seam=1, tail=())
        if isinstance(row, LabelRow):
            return label_draft(replace(row, label=""), self.encoding, self.config, joined=self._joined)
        if isinstance(row, PromptRow) and self.config.prompt_format != "chat":
            return pair_draft(replace(row, completion=""), self.encoding, self.config, joined=self._joined)
        messages, tools = _conversation(row)
        answered = bool(messages) and messages[-1].role == "assistant"
        return self.chats.asked(messages[:-1] if answered else messages, tools)


def _conversation(row: Row) -> tuple[tuple[Message, ...], Tools]:
    if isinstance(row, ChatRow):
        return row.messages, row.tools
    if isinstance(row, PreferenceRow):
        return (*row.messages, Message(role="assistant", content=row.chosen)), ()
    if isinstance(row, PromptRow):
        return (Message(role="user", content=row.prompt), Message(role="assistant", content=row.completion)), ()
    raise RowRefused(Refusal("shape", f"rows of the shape '{row.shape}' cannot be rendered"))


def _limit(wanted: int | None, context: int | None) -> int | None:
    if wanted is not None and context is not None and wanted > context:
        hint = f"Use {context} or less, or leave it out."
        raise ConfigurationError(f"max_tokens is {wanted:,}, but the base reads {context:,} tokens", where="max_tokens", hint=hint)
    return context if wanted is None else wanted
