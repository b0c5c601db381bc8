"""The models beside the one that a run trains: opened when asked for, on its device; what both have is held once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tunewright.core.errors import ConfigurationError
from tunewright.core.storage import sha256_of
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, RowRefused
from tunewright.data.rows import LabelRow, PreferenceRow, RankingRow, Row
from tunewright.data.stored import read_rows
from tunewright.engine.beside import Beside
from tunewright.engine.engine import Engine
from tunewright.engine.scoring import Scored, score_trees
from tunewright.models.sources import folder_of, resolve
from tunewright.objectives import room as objectives
from tunewright.objectives._heads import BUDGET, head_outputs, text_tree
from tunewright.objectives._policy import deviation
from tunewright.objectives.classification import Classification
from tunewright.objectives.reward import Reward, rewards_of

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.evaluation.opening import Opened
    from tunewright.models import Model

VALIDATED = 200  # rows by whose rewards the spread of a reward model is known


class Besides(Mapping[str, Beside]):
    """Other models by the names that an objective gave them; each is opened once, when it is first asked for.

    Args:
        names: what may be asked for.
        opens: loads one (`evaluation.opening.open_model`).
        engine: of the model that they stand beside; they go to its device.
    """

    def __init__(self, names: Sequence[str], opens: Callable[[str], Opened], engine: Engine) -> None:
        self._names, self._opens, self._engine = tuple(dict.fromkeys(names)), opens, engine
        self._found: dict[str, StandsBeside] = {}

    def __getitem__(self, name: str) -> Beside:
        """The model. Raises what opening one raises, and `KeyError` for a name that nobody gave."""
        if name not in self._names:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = StandsBeside(name, _moved(self._opens(name), self._engine))
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def settle_beside(engine: Engine) -> None:
    """Open what is not open yet, and hold what the models have in common with the trained one's frozen weights only once.

    Called when it is decided what is trained: a weight that is still to change would change for both.
    """
    for other in engine.beside.values():
        hold_once(other.engine.model, engine.model)


def hold_once(other: Model, own: Model) -> int:
    """Let frozen tensors of `other` that equal those of `own` be the same memory; returns how many bytes were given back."""
    frozen = {name: one for name, one in own.network.named_parameters() if not one.requires_grad}
    saved = 0
    for name, tensor in other.network.named_parameters():
        same = frozen.get(name)
        if same is None or same.data_ptr() == tensor.data_ptr() or same.dtype != tensor.dtype or same.device != tensor.device:
            continue
        if torch.equal(same, tensor):
            tensor.data = same.data
            saved += tensor.nbytes
    return saved


def _moved(opened: Opened, engine: Engine) -> Opened:
    own = opened.engine
    opened.model.network.to(engine.device)  # type: ignore[arg-type]
    if own.head is not None:
        own.head.to(engine.device)
    own.device = engine.device
    for parameter in opened.model.network.parameters():
        parameter.requires_grad_(False)
    return opened


class StandsBeside(Beside):
    """One opened model, as others ask it."""

    def __init__(self, name: str, opened: Opened) -> None:
        self.name, self.engine, self.renderer = name, opened.engine, opened.renderer
        self.objective, self.labels = objectives.name_of(opened.objective), opened.labels
        self.stamp, self._own = _stamp(name, opened), opened.objective

    def judged(self, asked: Sequence[tuple[Row, str]]) -> list[Mapping[str, float] | str]:
        with self.engine.evaluating():
            if isinstance(self._own, Reward):
                found = rewards_of(self.engine, self.renderer, asked)
                return [one if isinstance(one, str) else {"reward": one} for one in found]
            if isinstance(self._own, Classification):
                return self._classified([answer for _, answer in asked])
        raise ConfigurationError(
            f"'{self.name}' was tuned for '{self.objective}', which does not judge answers", where="grader.model"
        )

    def spread(self) -> tuple[float, float]:
        return self._spread

    @cached_property
    def _spread(self) -> tuple[float, float]:
        path, hint = Path(self.name) / "data" / "validation.jsonl", "Take `scale: raw`."
        rows = read_rows(path)[:VALIDATED] if path.is_file() else []
        asked = [(row, answer) for row in rows for answer in _compared(row)]
        rewards = [one["reward"] for one in self.judged(asked) if not isinstance(one, str)]
        if len(rewards) < 2:
            raise ConfigurationError(
                f"'{self.name}' has no validation rows to know the size of its rewards by", where="grader.scale", hint=hint
            )
        width = deviation(rewards)
        if not math.isfinite(width):
            problem = f"'{self.name}' gives its validation rows rewards that are no finite numbers"
            raise ConfigurationError(problem, where="grader.model", hint="Train it again, with a lower learning rate.")
        if not width > 0:
            problem = f"'{self.name}' gives all its validation rows the reward {rewards[0]:.4g}, so it tells nothing apart"
            raise ConfigurationError(problem, where="grader.model", hint="Train it for longer, or on more pairs.")
        return sum(rewards) / len(rewards), width

    def _classified(self, texts: Sequence[str]) -> list[Mapping[str, float] | str]:
        """The probability of each label."""
        rows = [LabelRow(text=text, label="") for text in texts]
        found = self._by_head(rows) if self.engine.head is not None else self._by_words(rows)
        return [one if isinstance(one, str) else dict(zip(self.labels, one.tolist(), strict=True)) for one in found]

    def _by_head(self, rows: Sequence[Row]) -> list[Tensor | str]:
        planted = [text_tree(row, number, self.renderer) for number, row in enumerate(rows)]
        outputs = iter(head_outputs(self.engine, [one.tree for one in planted if not isinstance(one, Refusal)]))
        return [one.message if isinstance(one, Refusal) else next(outputs).softmax(dim=0) for one in planted]

    def _by_words(self, rows: Sequence[LabelRow]) -> list[Tensor | str]:
        planted = [self._options(row) for row in rows]
        scored = iter(score_trees(self.engine, [one for one in planted if isinstance(one, Tree)], token_budget=BUDGET))
        return [one if isinstance(one, str) else _shares(next(scored)) for one in planted]

    def _options(self, row: LabelRow) -> Tree | str:
        try:
            return self.renderer.options(row, self.labels)
        except RowRefused as error:
            return error.refusal.message


def _compared(row: Row) -> tuple[str, ...]:
    """The answers that somebody compared."""
    if isinstance(row, PreferenceRow):
        return row.chosen, row.rejected
    return row.answers if isinstance(row, RankingRow) else ()


def _stamp(name: str, opened: Opened) -> str:
    """A hash of the base, of what was tuned on it, and of the head."""
    found = resolve(name)
    place = found.adapter or folder_of(found)
    # A whole network's own tensors are in its fingerprint.
    own = sorted(place.glob("*.safetensors" if found.adapter is not None else "head*.safetensors"))
    return hashlib.sha256("\n".join([opened.model.fingerprint, *map(sha256_of, own)]).encode()).hexdigest()


def _shares(scored: Sequence[Scored]) -> Tensor:
    """The probabilities of some options, as if there were no others."""
    return torch.tensor([one.log_probability for one in scored]).softmax(dim=0)
