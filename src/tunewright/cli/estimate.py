"""`estimate`: what a run would cost, without leaving anything behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from tunewright.training.estimate import Estimate


def estimate(*tokens: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> Outcome:
    """Say what a run would cost: memory, tokens, time. Takes what tune takes and leaves nothing behind.

    Args:
        tokens: the data, and settings as flags; see `tunewright estimate --help`.
    """
    from tunewright.cli.flags import parse
    from tunewright.cli.settings_help import asks_for_help, settings_help

    if asks_for_help(tokens):
        return settings_help("estimate")
    run = parse(tokens).run()
    from tunewright.data.reading import read
    from tunewright.models.sources import resolve
    from tunewright.run.targets import objective_for

    resolve(run.base)
    with narrator() as told:
        told.stage("Read and check the data")
        dataset = read(run.data, run.seed)
        objective_for(run, dataset)
        told.say(dataset.sentence())
        told.stage("Load the libraries")
        from tunewright.run.workshop import set_up

        shop = set_up(run, dataset, None, told)
    from tunewright.cli.findings import pairs

    facts = {"fits": True, **shop.estimate.as_dict(), "reasons": shop.reasons, "layout": shop.probed.layout}
    return Outcome(facts, pairs(_lines(shop.estimate)))


def _lines(found: Estimate) -> list[tuple[str, object]]:
    from rich.text import Text

    from tunewright.core.units import bytes_text, count_text, seconds_text, share_text

    share = share_text(found.trainable, found.parameters)
    return [
        ("parameters", f"{count_text(found.parameters)}, of which {count_text(found.trainable)} are trained ({share})"),
        ("steps", f"{found.steps:,}, reading {count_text(found.tokens)} tokens"),
        ("time", f"about {seconds_text(found.seconds)} of training"),
        ("memory", f"{bytes_text(found.peak)} at the highest point; this machine can give {bytes_text(found.available)}"),
        ("fits", Text("yes", style="green")),
    ]
