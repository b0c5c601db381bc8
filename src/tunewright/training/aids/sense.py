"""What can be said about aids before anything heavy loads."""

from __future__ import annotations

from tunewright.core.errors import ConfigurationError
from tunewright.objectives import Objective
from tunewright.objectives._policy import PolicyObjective
from tunewright.training.aids.settings import Aids


def require_sensible(aids: Aids, objective: Objective) -> None:
    """Raise `ConfigurationError` for aids that the objective alone rules out."""
    if objective.own_head and aids.r_drop:
        problem = "hidden words are scored by the base's own head, whose passes R-Drop does not hear"
        raise ConfigurationError(problem, where="training.aids.r_drop", hint="Leave it out; the other aids are possible.")
    if not isinstance(objective, PolicyObjective):
        return
    by_loss = aids.order.kind != "shuffled" and aids.order.by == "loss"
    asked = {"neftune": aids.neftune > 0, "r_drop": aids.r_drop > 0, "order.by": by_loss}
    wrong = next((name for name, is_asked in asked.items() if is_asked), None)
    if wrong is not None:
        problem = "a policy learns from answers that it draws itself, and compares its passes with the one that drew them"
        hint = "Leave it out; `l2_to_base`, `ewc` and an order by length are possible."
        raise ConfigurationError(problem, where=f"training.aids.{wrong}", hint=hint)
