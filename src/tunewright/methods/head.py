"""Head tuning: only the output layer learns, the body stays a fixed feature extractor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tunewright.core.errors import BaseModelError
from tunewright.methods import Method
from tunewright.methods._weights import WeightsTuning

if TYPE_CHECKING:
    from tunewright.models import Model


class Head(Method):
    """Trains the output layer only.

    Where the objective brings a new classification head, that is what is trained and the base is untouched; with a language
    objective it is the base's own language head, where it is not tied to the embeddings.

    Source: linear probing, Alain and Bengio, arXiv 1610.01644.
    Cost: width * classes parameters; no gradient passes through the body, so a step costs one forward pass.
    Use when: few examples, a base whose features already separate the classes, or a first number in seconds. Avoid when: the body's
    features do not know the distinction.
    Raises: `BaseModelError` where the language head is tied to the embeddings and no new head is trained.
    """

    default_learning_rate: ClassVar[float] = 9e-3

    def attach(self, model: Model, seed: int) -> WeightsTuning:
        """Freeze everything but the base's own language head; an encoder has none, so that all of it is frozen."""
        output, tied = model.network.get_output_embeddings(), model.network.get_input_embeddings()
        if model.kind == "encoder" or output is None:
            return WeightsTuning(model, {})
        if output.weight is tied.weight:
            raise BaseModelError(
                "the language head shares its weights with the embeddings, so it cannot be trained alone",
                where="method",
                hint="Use `method: selective`, or LoRA with `targets: [head]`.",
            )
        own = {id(parameter) for parameter in output.parameters()}
        return WeightsTuning(model, {name: p for name, p in model.network.named_parameters() if id(p) in own})

    def attach_under_new_head(self, model: Model, seed: int) -> WeightsTuning:
        """Freeze the whole base, its language head too: the new head is what is trained."""
        return WeightsTuning(model, {})
