"""A model as an approach: base or tuned, with a task head, label words, or written text, as its objective says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tunewright.data.forest import Tree
from tunewright.data.packing import batches_for
from tunewright.data.rendering import Refusal, Renderer, RowRefused
from tunewright.data.rows import LabelRow, Row
from tunewright.engine.engine import Engine
from tunewright.engine.sampling import sample
from tunewright.engine.scoring import Scored, score_trees
from tunewright.engine.settings import Sampling
from tunewright.evaluation.task import Answer, Approach
from tunewright.objectives import Objective, Reading
from tunewright.objectives._heads import BUDGET, head_outputs, text_tree
from tunewright.objectives.classification import most_probable


class Tuned(Approach):
    """Answers with an engine as it stands: within `tuning.disabled()` that is the base.

    Args:
        labels: the labels in the order of the head, or the label words; empty for text.
        sampling: how text is written.
    """

    def __init__(
        self, engine: Engine, renderer: Renderer, objective: Objective, *, labels: Sequence[str] = (), sampling: Sampling, name: str
    ) -> None:
        self.engine, self.renderer, self.objective = engine, renderer, objective
        self.labels, self.sampling, self.name = tuple(labels), sampling, name

    def answer(self, rows: Sequence[Row], written: int) -> list[Answer]:
        with self.engine.evaluating():
            if self.objective.reads:
                return [_answer(one) for one in self.objective.readings(self.engine, self.renderer, rows)]
            return self._by_text(rows, written) if self.objective.writes else self._by_words(rows)

    def probabilities(self, rows: Sequence[Row]) -> list[Mapping[str, float] | None]:
        """The probability of each label, for every row; None where a row cannot be read. Of classifiers only."""
        with self.engine.evaluating():
            return [None if one is None else dict(zip(self.labels, one.tolist(), strict=True)) for one in self._shares(rows)]

    def _shares(self, rows: Sequence[Row]) -> list[torch.Tensor | None]:
        if not self.objective.reads:
            options = [self._options(row) for row in rows]
            scored = iter(score_trees(self.engine, [tree for tree in options if tree is not None], token_budget=BUDGET))
            return [None if tree is None else _shares(next(scored)).exp() for tree in options]
        planted = [text_tree(row, number, self.renderer) for number, row in enumerate(rows)]
        outputs = iter(head_outputs(self.engine, [one.tree for one in planted if not isinstance(one, Refusal)]))
        return [None if isinstance(one, Refusal) else next(outputs).softmax(dim=0) for one in planted]

    def _by_words(self, rows: Sequence[Row]) -> list[Answer]:
        """log p(label | text) = sum of its tokens' log p, made comparable by a softmax over the labels."""
        options = [self._options(row) for row in rows]
        trees = [tree for tree in options if tree is not None]
        scored = iter(score_trees(self.engine, trees, token_budget=BUDGET))
        return [
            Answer("") if tree is None else _answer(most_probable(_shares(next(scored)), self.labels, row))
            for tree, row in zip(options, rows, strict=True)
        ]

    def _options(self, row: Row) -> Tree | None:
        if not isinstance(row, LabelRow):
            return None
        try:
            return self.renderer.options(row, self.labels)
        except RowRefused:
            return None

    def _by_text(self, rows: Sequence[Row], written: int) -> list[Answer]:
        losses = self._losses(rows)
        asked = [index for index, row in enumerate(rows[:written]) if row.target_text()]
        prompts = {index: prompt for index in asked if (prompt := self._prompt(rows[index])) is not None}
        ends = frozenset(self.renderer.stops)
        samples = sample(self.engine, list(prompts.values()), self.sampling, ends=ends) if prompts else []
        texts = dict.fromkeys(asked, "")  # what stays empty is refused: a row that is too long, where none may be cut
        for index, answer in zip(prompts, samples, strict=True):
            texts[index] = self.renderer.decode(answer.tokens) if answer.text is None else answer.text.strip()
        return [Answer(texts.get(index), loss, tokens) for index, (loss, tokens) in enumerate(losses)]

    def _prompt(self, row: Row) -> tuple[int, ...] | None:
        try:
            return self.renderer.prompt(row, room=self.sampling.max_new_tokens)
        except RowRefused:
            return None

    def _losses(self, rows: Sequence[Row]) -> list[tuple[float | None, int]]:
        planted = [(item.row, item.tree) for item in self.objective.plant(rows, self.renderer) if not isinstance(item, Refusal)]
        sums, counts = [0.0] * len(rows), [0] * len(rows)
        trees = [tree for _, tree in planted]
        own = self.objective.losses(self.engine, trees)
        for (row, _), (total, count) in zip(planted, own or (), strict=own is not None):
            sums[row] += total
            counts[row] += count
        for chosen in batches_for(trees, BUDGET) if own is None else ():
            scores_N, batch = self.engine.score([trees[index] for index in chosen])
            owners = batch.row_S[batch.owners_N].tolist()
            for row, score in zip(owners, scores_N.tolist(), strict=True):
                sums[row] -= score
                counts[row] += 1
        return [(total / count if count else None, count) for total, count in zip(sums, counts, strict=True)]


def _answer(reading: Reading) -> Answer:
    return Answer(reading.text, reading.loss, reading.tokens, reading.confidence, reading.details, reading.scores)


def _shares(scored: Sequence[Scored]) -> torch.Tensor:
    """The log-probabilities of some options, as if there were no others."""
    return torch.tensor([one.log_probability for one in scored], dtype=torch.float32).log_softmax(dim=0)
