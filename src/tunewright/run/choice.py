"""What a tuning chooses from gradients: once, when a run begins, from then on read from its folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunewright.core.errors import StorageError
from tunewright.core.runs import RunFolder
from tunewright.core.seeds import derive
from tunewright.core.storage import sha256_of
from tunewright.core.units import count_text
from tunewright.data.forest import Tree
from tunewright.engine.engine import Engine, LossFunction
from tunewright.engine.placement import Placement
from tunewright.methods import Gradients, Tuning
from tunewright.training.loop import Plan

FILE = "chosen.safetensors"


class Source(NamedTuple):
    """Where gradients come from: the objective's loss on the rows of the first epoch, in the order in which they are trained on."""

    engine: Engine
    loss: LossFunction
    plan: Plan

    def gradients(self) -> Gradients:
        """The backward passes as `Tuning.choose` asks for them; nothing is drawn for dropout, since the network stands still."""

        def made(rows: int, one_by_one: bool) -> Iterator[None]:
            for number, trees in enumerate(self._passes(rows, one_by_one)):
                seed = derive(self.plan.seed, "choice", number)
                self.engine.forward_backward([self.engine.collate(trees)], self.loss, seed)
                yield
            self.engine.forget()

        return made

    def _passes(self, rows: int, one_by_one: bool) -> Iterator[list[Tree]]:
        left = rows
        for step in range(self.plan.per_epoch):
            for trees in self.plan.micro_batches(step):
                few = trees[:left]
                left -= len(few)
                yield from ([tree] for tree in few) if one_by_one else ([few] if few else [])


def decide(tuning: Tuning, source: Source, folder: RunFolder | None, group: Placement) -> dict[str, str]:
    """Let a tuning choose what it trains where it still has to, or take what the run chose when it began.

    Of several processes the first one chooses for all. The engine trains what was chosen from here on.

    Args:
        folder: of the run; None where nothing is kept.

    Returns:
        The reason by key path; empty where nothing was chosen.

    Raises:
        DivergedError: the gradients are not finite.
        StorageError: what the run chose is damaged.
    """
    if not tuning.wants_gradients:
        return {}
    kept = _read(folder) if folder is not None and group.leads else {}
    if group.leads and not kept:
        tuning.choose(source.gradients())
        kept = tuning.chosen_places()
    tuning.take(group.given(kept, {}))
    source.engine.parameters.update(tuning.parameters())
    weights = len(tuning.parameters())
    return {"method": f"{count_text(tuning.count())} entries of {weights} weights, chosen once and then fixed"}


def keep(tuning: Tuning, folder: RunFolder) -> dict[str, str]:
    """Write what was chosen into the folder of the run; returns the file's hash by its name, nothing where nothing was chosen."""
    places = tuning.chosen_places()
    if not places:
        return {}
    path = folder.path / FILE
    if not path.exists():
        save_file({name: one.contiguous().cpu() for name, one in places.items()}, path)
    return {FILE: sha256_of(path)}


def _read(folder: RunFolder) -> dict[str, Tensor]:
    path = folder.path / FILE
    if not folder.is_run or FILE not in folder.manifest["hashes"]:
        return {}
    try:
        if sha256_of(path) == folder.manifest["hashes"][FILE]:
            return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"what the run trains cannot be read ({error})", where=str(path), hint="Start a new run.") from None
    raise StorageError("what the run trains has changed since it began", where=str(path), hint="Start a new run.")
