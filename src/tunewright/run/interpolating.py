"""Between base and tuned: the change that a run made, at any part of its size (WiSE-FT).

Half the change often keeps most of what was learned and forgets less, and answers shifted rows better than either end. Which part
is best is a question of rows that were not trained on, so it is measured and never chosen here.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from tunewright.core.errors import BaseModelError
from tunewright.core.narrator import SILENT, Narrator
from tunewright.data.rows import Row
from tunewright.engine.settings import Sampling
from tunewright.evaluation.measuring import measures
from tunewright.evaluation.opening import Opened, load_base, open_model
from tunewright.evaluation.report.schema import Measure
from tunewright.methods import Tuning
from tunewright.methods._saved import require_base
from tunewright.methods._selection import own_parameters
from tunewright.methods._weights import tuned_from
from tunewright.models.sources import folder_of
from tunewright.run.merging import outputs, probe_trees, require_free, write_adapter, write_whole


class Written(NamedTuple):
    """What was written: the folder, and whether it is an `adapter` or a whole `model`."""

    folder: Path
    kind: str
    factor: float


class Point(NamedTuple):
    """What was measured at one part of the change, on one file of rows."""

    factor: float
    data: str
    measures: list[Measure]


class Between:
    """A tuned model that can be put at any part of the change that it was tuned by.

    Args:
        opened: the tuned model; its weights are what moves.
        tuning: whose size is set.
    """

    def __init__(self, opened: Opened, tuning: Tuning) -> None:
        self.opened, self.tuning = opened, tuning
        self._tuned = {name: value.detach().clone() for name, value in self._held().items()}

    def _held(self) -> dict[str, torch.Tensor]:
        """Whatever a size may be set by: what is trained, and what is subtracted from it (a LoRA that does not start at zero)."""
        return {**self.tuning.parameters(), **{f"kept/{name}": one for name, one in self.tuning.kept().items()}}

    @torch.no_grad()
    def to(self, factor: float) -> None:
        """Put it at `factor`: 0 is the base, 1 is as tuned. Where it was before makes no difference."""
        for name, value in self._held().items():
            value.copy_(self._tuned[name])
        self.tuning.after_restore()
        self.tuning.interpolate(factor)

    def write(self, out: Path, factor: float) -> Written:
        """Write it at `factor`: an adapter where it is one, else a whole model; read it back and compare.

        Raises:
            RunFolderError: `out` exists.
            VerificationError: what was written computes something else; nothing is left.
        """
        require_free(out)
        self.to(factor)
        opened, kind = self.opened, self.tuning.folder_name
        wanted = outputs(opened.engine, probe_trees(opened.model))
        base = opened.settings.get("base", opened.model.base)
        facts = {"interpolated_from": opened.name, "base": base, "factor": factor}
        if kind == "model":
            write_whole(opened, out, wanted, facts)
            return Written(out, kind, factor)
        write_adapter(opened, self.tuning, out, wanted, facts)
        return Written(out, kind, factor)

    def measured(
        self, factors: Sequence[float], rows: Mapping[str, Sequence[Row]], names: Sequence[str], sampling: Sampling, written: int
    ) -> Iterator[Point]:
        """Measure every factor on every file of rows, one after the other.

        Args:
            factors: in the order in which they are measured; 0 and 1 are measured where they are among them.
            rows: by the name of their file.
            names: metrics; the objective's own where there are none.
            written: rows for which an answer is written out.
        """
        for factor in factors:
            self.to(factor)
            for data, some in rows.items():
                answers = self.opened.approach(sampling).answer(some, written)
                yield Point(factor, data, measures(names or self.opened.objective.metrics, None, answers, some, seed=0))


def between(name: str, narrator: Narrator = SILENT, *, force: bool = False) -> Between:
    """Open a run, an adapter or a merged model so that it can be put between base and tuned.

    What has no size of its own but can be merged (DoRA, say) is merged first, and moves as whole weights.

    Args:
        force: also when the base is not the one that it was tuned from.

    Raises:
        BaseModelError: it was tuned from nothing, from another base, or only its new head was trained.
        ConfigurationError: the change has no size and cannot be merged (soft prompts).
    """
    narrator.stage(f"Load {name}")
    opened = open_model(name, force=force)
    tuning = opened.tuning
    if tuning is None:
        base = load_base(_base_named(opened))
        if not force:
            require_base(folder_of(name), base, name)
        tuning = tuned_from(opened.model, own_parameters(base), name)
    elif not _has_size(tuning):
        before = {path: torch.nn.Parameter(one.detach().clone()) for path, one in own_parameters(opened.model).items()}
        tuning.merge()
        tuning = tuned_from(opened.model, before, name)
        narrator.say("The change has no size of its own: it was merged, and moves as whole weights.")
    found = Between(opened, tuning)
    if _nothing(found):
        hint = "A new head has no base to go back to." if opened.engine.head is not None else "Name the run that changed something."
        raise BaseModelError("has the very weights of its base: there is nothing between them", where=name, hint=hint)
    return found


def _has_size(tuning: Tuning) -> bool:
    try:
        tuning.interpolate(1.0)
    except ValueError:  # a `ConfigurationError` is one
        return False
    return True


def _base_named(opened: Opened) -> str:
    base = opened.settings.get("base")
    if not base:
        raise BaseModelError("does not say which base it was tuned from", where=opened.name, hint="Name a run, or an adapter.")
    return str(base)


def _nothing(found: Between) -> bool:
    """Whether base and tuned compute the same."""
    trees = probe_trees(found.opened.model)
    ends = []
    for factor in (0.0, 1.0):
        found.to(factor)
        ends.append(outputs(found.opened.engine, trees))
    return torch.equal(*ends)
