"""`show prompt`: what the virtual tokens of a soft prompt stand near."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunewright.evaluation.virtual_words import Clusters, Word
    from tunewright.methods import Tuning
    from tunewright.methods._soft import SoftTuning

_NO_PLACE = (
    "prefix_tuning trains keys and values in every block and no vectors of the embedding: its virtual tokens have no place in the "
    "vocabulary, and no word is near them."
)


def show_prompt(run: str, *, words: int = 5, force: Annotated[bool, Parameter(negative=())] = False) -> Outcome:
    """Show which words the virtual tokens of a soft prompt are near, and how they stand together.

    Args:
        run: a run, or a saved adapter, of prompt_tuning or p_tuning, or a stack with one of them.
        words: how many of the nearest words of the vocabulary to show for each.
        force: look although the adapter was made on another base.
    """
    from tunewright.core.errors import ConfigurationError

    if words < 1:
        raise ConfigurationError(f"should be a whole number from 1, got {words}", where="--words")
    from tunewright.evaluation.opening import open_model
    from tunewright.evaluation.virtual_words import clusters, nearest_words

    with narrator() as told:
        told.stage(f"Open {run}")
        opened = open_model(run, force=force)
    soft = _soft(opened.tuning)
    if soft is None:
        raise ConfigurationError(
            "has no virtual tokens",
            where=run,
            hint="Name a run whose method is prompt_tuning, p_tuning, or a stack with one of them.",
        )
    vectors_PD = soft.virtual.vectors()
    if vectors_PD is None:
        from rich.text import Text

        return Outcome({"run": run, "virtual_tokens": soft.virtual.count, "reason": _NO_PLACE}, Text(_NO_PLACE))
    vectors_PD = vectors_PD.detach()
    found, together = nearest_words(opened.model, vectors_PD, words), clusters(vectors_PD)
    norms = vectors_PD.float().norm(dim=1).tolist()
    data = {
        "run": run,
        "base": opened.model.base,
        "virtual_tokens": [
            {"norm": norm, "cluster": together.of[number] if together else None, "nearest": [vars(word) for word in own]}
            for number, (norm, own) in enumerate(zip(norms, found, strict=True))
        ],
        "clusters": vars(together) | {"count": together.count} if together else None,
    }
    return Outcome(data, _page(Path(run).name, norms, found, together))


def _soft(tuning: Tuning | None) -> SoftTuning | None:
    """The tuning's virtual tokens, which may be one part of a stack."""
    from tunewright.methods._soft import SoftTuning
    from tunewright.methods.stack import StackTuning

    parts = tuning.parts if isinstance(tuning, StackTuning) else (tuning,)
    return next((part for part in parts if isinstance(part, SoftTuning)), None)


def _page(name: str, norms: list[float], found: list[list[Word]], together: Clusters | None) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2), show_edge=False)
    for title, right in (("token", True), ("norm", True), ("cluster", True), ("nearest words of the vocabulary (cosine)", False)):
        table.add_column(title, justify="right" if right else "left", header_style="dim")
    for number, (norm, own) in enumerate(zip(norms, found, strict=True)):
        near = Text("  ").join(Text.assemble(repr(word.text), (f" {word.cosine:.2f}", "dim")) for word in own)
        table.add_row(str(number + 1), f"{norm:.2f}", str(together.of[number] + 1) if together else "", near)
    closing: Any = together.sentence if together else "Too few virtual tokens for clusters, or all of them are the same."
    return Group(Text(name, style="bold"), table, Text(), Text(closing))
