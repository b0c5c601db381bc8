"""The aids of a run (`training.aids`): refused where they make no sense, measured once, kept with the run, and put to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunewright.core.errors import ConfigurationError, DataError, StorageError
from tunewright.core.runs import RunFolder
from tunewright.core.seeds import shuffled
from tunewright.core.storage import sha256_of
from tunewright.core.units import count_text
from tunewright.data.forest import Tree
from tunewright.data.reading import read_rows
from tunewright.data.rendering import Refusal, Renderer
from tunewright.engine.engine import Engine, LossFunction
from tunewright.engine.placement import Placement
from tunewright.methods import Tuning
from tunewright.objectives import Objective
from tunewright.objectives.sft import SFT
from tunewright.training.aids.anchors import Anchors, Held, held_of
from tunewright.training.aids.around_loss import loss_with
from tunewright.training.aids.curriculum import Curriculum, difficulty
from tunewright.training.aids.fisher import measure, watched
from tunewright.training.aids.r_drop import HEADS, drops
from tunewright.training.aids.settings import EWC, Aids
from tunewright.training.loop import Plan, Step

if TYPE_CHECKING:
    from tunewright.finetune import Run

FILE = "aids.safetensors"
_DIFFICULTY, _FISHER = "difficulty", "fisher/"


class Subject(NamedTuple):
    """What the aids of a run are about: the run as it was asked for, and what was made of it so far."""

    run: Run
    objective: Objective
    renderer: Renderer
    engine: Engine
    tuning: Tuning

    def held(self) -> Held:
        """What may move of the base, which has not moved yet."""
        return held_of(self.engine.model, self.tuning, self.engine.parameters)


@dataclass
class Aided:
    """The aids of one run.

    Args:
        loss: the objective's, with what stands around it.
        difficulty: of each tree; empty where rows are shuffled. fisher: by the name of the weight.
        reasons: what was measured, by key path.
    """

    subject: Subject
    loss: LossFunction
    difficulty: Sequence[float] = ()
    fisher: Mapping[str, Tensor] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    anchors: Anchors | None = None
    _hashes: dict[str, str] = field(default_factory=dict)

    @property
    def aids(self) -> Aids:
        """The settings."""
        return self.subject.run.training.aids

    def ordered(self, plan: Plan) -> Plan:
        """The plan with its rows in the order that was asked for."""
        if not self.difficulty:
            return plan
        return replace(plan, order=Curriculum(self.aids.order, tuple(self.difficulty), plan.seed))

    def hold(self, placement: Placement) -> None:
        """Weights are held near the base's from the next update on; called where they stand as they will, and are the base's."""
        if not self.aids.holds:
            return
        engine, ewc = self.subject.engine, self.aids.ewc
        fisher = placement.given(dict(self.fisher), engine.parameters) if ewc is not None else {}
        held = self.subject.held()
        self.anchors = Anchors(held, self.aids.l2_to_base, ewc.strength if ewc is not None else 0.0, fisher)
        self.anchors.join(engine.first)

    def tell(self, step: Step) -> None:
        """Note beside a step what the penalties were."""
        if self.anchors is not None:
            step.facts |= self.anchors.penalties

    def keep(self, folder: RunFolder) -> dict[str, str]:
        """Write what was measured into the folder of the run; returns the file's hash by its name, nothing where nothing was."""
        kept = {_FISHER + name: one.contiguous().cpu() for name, one in self.fisher.items()}
        if self.difficulty and self.aids.order.by == "loss":
            kept[_DIFFICULTY] = torch.tensor(list(self.difficulty), dtype=torch.float64)
        if kept and not self._hashes:
            path = folder.path / FILE
            if not path.exists():
                save_file(kept, path)
            self._hashes = {FILE: sha256_of(path)}
        return self._hashes


def aided(subject: Subject, trees: Sequence[Tree], folder: RunFolder | None, group: Placement) -> Aided:
    """The aids of a run whose method is attached and not trained yet; what has to be measured is measured, or read from its folder.

    Of several processes the first one measures for all.

    Args:
        trees: the training rows.
        folder: of the run; None to look without measuring anything.

    Raises:
        ConfigurationError: an aid makes no sense with this objective, method or base.
        DataError: the rows of `ewc` cannot be used.
        StorageError: what the run measured is damaged.
    """
    aids = subject.run.training.aids
    _require_movable(subject)
    _require_dropout(subject)
    by_row = subject.objective.task == "preference"
    made = Aided(subject, loss_with(aids, subject.objective.loss, subject.engine.model, by_row=by_row), reasons=_said(aids))
    if folder is None:
        return made
    kept = _read(folder) if group.leads and (aids.ewc is not None or aids.order.by == "loss") else {}
    if aids.order.kind != "shuffled":
        found = kept[_DIFFICULTY].tolist() if _DIFFICULTY in kept else []
        made.difficulty = group.tell((found or difficulty(aids.order, subject.engine, trees)) if group.leads else None)
    if aids.ewc is not None and group.leads:
        made.fisher = {
            name.removeprefix(_FISHER): one.to(subject.engine.device) for name, one in kept.items() if name.startswith(_FISHER)
        }
        made.fisher = made.fisher or _measured(subject, aids.ewc)
        weights = count_text(sum(one.numel() for one in made.fisher.values()))
        made.reasons["training.aids.ewc"] = f"{aids.ewc.strength:g}: how much {aids.ewc.rows.name} needs each of {weights} weights"
    return made


def _said(aids: Aids) -> dict[str, str]:
    """What was asked for, in words, by key path."""
    order, asked = aids.order, {}
    if aids.neftune:
        asked["neftune"] = f"{aids.neftune:g}: embeddings are noisy, so no states below the trained blocks are kept"
    if aids.r_drop:
        asked["r_drop"] = f"{aids.r_drop:g}: every row is passed twice, with other dropout"
    if aids.l2_to_base:
        asked["l2_to_base"] = f"{aids.l2_to_base:g}: what is trained is held near where it starts"
    if order.kind != "shuffled":
        epochs = (
            "every epoch" if order.epochs is None else f"the first {order.epochs} epochs" if order.epochs > 1 else "the first epoch"
        )
        asked["order"] = f"{order.kind}: by {order.by}, {order.pace} from {order.start:g} on, in {epochs}"
    return {f"training.aids.{name}": reason for name, reason in asked.items()}


def _require_movable(subject: Subject) -> None:
    """Refuse to hold weights where none of the base moves."""
    aids, where = subject.run.training.aids, "training.aids.ewc"
    if not aids.holds:
        return
    if not subject.tuning.parameters() and not subject.tuning.wants_gradients:
        name = "l2_to_base" if aids.l2_to_base else "ewc"
        problem = "only the new head is trained, and nothing of the base moves"
        raise ConfigurationError(
            problem, where=f"training.aids.{name}", hint="Leave it out, or tune the base too (`method: lora`)."
        )
    if aids.ewc is None:
        return
    if subject.engine.model.kind == "encoder":
        problem = "an encoder writes no text whose probability could be kept"
        raise ConfigurationError(problem, where=where, hint="Take `l2_to_base`, which needs no rows.")
    watched(subject.held())


def _require_dropout(subject: Subject) -> None:
    """Refuse R-Drop where both passes would be the same, or for a head that nothing compares."""
    aids, engine, where = subject.run.training.aids, subject.engine, "training.aids.r_drop"
    if not aids.r_drop:
        return
    if engine.head is not None and engine.head.kind() not in HEADS:
        problem = f"there is no divergence for a head of the kind '{engine.head.kind()}'"
        raise ConfigurationError(problem, where=where, allowed=sorted(HEADS), given=engine.head.kind())
    if not aids.neftune and not drops(engine):
        problem = "nothing drops out in what is trained, so both passes would say the same and nothing would be gained"
        hint = "Give the method a dropout (`--method.dropout 0.1`), or leave R-Drop out."
        raise ConfigurationError(problem, where=where, hint=hint)


def _measured(subject: Subject, settings: EWC) -> dict[str, Tensor]:
    rows = read_rows(settings.rows).rows
    chosen = [rows[index] for index in sorted(shuffled(len(rows), subject.run.seed, "ewc")[: settings.most])]
    unusable = next((row for row in chosen if not isinstance(row, SFT.rows)), None)
    planted = SFT().plant(chosen, subject.renderer) if unusable is None else []
    trees = [item.tree for item in planted if not isinstance(item, Refusal)]
    if not trees:
        why = next((item.message for item in planted if isinstance(item, Refusal)), "there is no text in them to be written")
        hint = "Give texts, or prompts with completions."
        raise DataError(f"no row can be used for `training.aids.ewc`: {why}", where=str(settings.rows), hint=hint)
    return measure(subject.engine, subject.tuning, subject.held(), trees)


def _read(folder: RunFolder) -> dict[str, Tensor]:
    """What the run measured when it began; empty where it begins now."""
    if not folder.is_run or FILE not in folder.manifest["hashes"]:
        return {}
    path = folder.path / FILE
    try:
        if sha256_of(path) == folder.manifest["hashes"][FILE]:
            return load_file(path)
        problem = "has changed since the run began"
    except (OSError, SafetensorError) as error:
        problem = f"cannot be read ({error})"
    raise StorageError(f"what the run measured {problem}", where=str(path), hint="Start a new run.")
