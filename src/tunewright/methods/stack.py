"""Several methods on one base as one tuning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_serializer, field_validator

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.core.seeds import derive
from tunewright.methods import Method, Tuning, room
from tunewright.methods._lora_tuning import LowRankTuning
from tunewright.methods._saved import write_own
from tunewright.methods._soft import SoftTuning
from tunewright.methods._weights import WeightsTuning

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from tunewright.models import Model

_PLENTY = 1 << 30  # of tokens: what is left of them says whether a method puts any in front


class Stack(Method):
    """Several methods on one base, trained, saved and served as one tuning: a soft prompt and a LoRA, say.

    Every part changes what the parts before it leave: the network with all of them is h(x; base + part 1 + part 2 + ...). The parts
    share one number among the tunings of the base, so each sees the whole tuning's tokens and nobody else's.

    Source: soft prompts with adapters in one model: Mao et al., "UniPELT", arXiv 2110.07577 (here without its gates).
    Cost: the parameters of all parts added up; the time of the parts, and the backward pass of the one that reaches deepest.
    Use when: two methods do different things (a prompt for what is asked, weights for how it is answered). Avoid when: one serves;
    what a part adds is seldom the sum.
    Raises: `ConfigurationError` for fewer than two parts, for parts that are no adapters or stand in each other's place, and for
    more than one soft prompt.
    """

    parts: tuple[Method, ...] = Field(min_length=2, max_length=8, description="the methods, each with its settings")

    @field_validator("parts", mode="before")
    @classmethod
    def _made(cls, value: Any) -> Any:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigurationError("is a list of methods", hint="parts: [{name: prompt_tuning}, {name: lora, rank: 8}]")
        made = tuple(room.make(part) for part in value)
        for part in made:
            if isinstance(part, Stack):
                raise ConfigurationError("a stack stands in a stack", hint="Write all parts in one list.")
        return made

    @field_serializer("parts")
    def _dumped(self, parts: tuple[Method, ...]) -> list[dict[str, Any]]:
        return [room.dump(part) for part in parts]

    @property
    def default_learning_rate(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The smallest of the parts': one rate serves all, and what is safe for one must be safe for the others."""
        return min(part.default_learning_rate for part in self.parts)

    @property
    def steep_rate(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether every part's is."""
        return all(part.steep_rate for part in self.parts)

    @property
    def rate_under_new_head(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The smallest of the parts'."""
        return min(part.rate_under_new_head for part in self.parts)

    @property
    def starts_at_base(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether every part does."""
        return all(part.starts_at_base for part in self.parts)

    @property
    def layouts(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those that every part serves."""
        return tuple(name for name in Method.layouts if all(name in part.layouts for part in self.parts))

    def settled(self, rows: int) -> tuple[Stack, dict[str, str]]:
        settled = [part.settled(rows) for part in self.parts]
        reasons = {
            key.replace("method.", f"method.parts.{number}.", 1): reason
            for number, (_, found) in enumerate(settled)
            for key, reason in found.items()
        }
        return self.model_copy(update={"parts": tuple(part for part, _ in settled)}), reasons

    def text_room(self, context: int | None) -> int | None:
        for part in self.parts:
            context = part.text_room(context)
        return context

    def attach(self, model: Model, seed: int) -> StackTuning:
        """Attach every part under one number; where one of them is refused, the others leave again."""
        return self._attach(model, [part.attach for part in self.parts], seed)

    def attach_under_new_head(self, model: Model, seed: int) -> StackTuning:
        return self._attach(model, [part.attach_under_new_head for part in self.parts], seed)

    def _attach(self, model: Model, ways: Sequence[Callable[[Model, int], Tuning]], seed: int) -> StackTuning:
        slot = model.lanes.open()
        standing: list[Tuning] = []
        try:
            for number, attach in enumerate(ways):
                self._check_place(model, slot, number)
                with model.lanes.joined(slot):
                    standing.append(attach(model, derive(seed, "stack", number)))
                self._check_kind(standing[-1], number)
        except (ConfigurationError, ValueError) as error:
            _take_off(model, slot, standing)
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"the parts do not stand together: {error}", where="method.parts") from None
        model.lanes.close(slot)
        return StackTuning(model, self, slot, tuple(standing))

    def _check_place(self, model: Model, slot: int, number: int) -> None:
        """Raises `ConfigurationError` where the part is a second soft prompt."""
        if slot in model.lanes.begins and self.parts[number].text_room(_PLENTY) != _PLENTY:
            raise ConfigurationError(
                "a second soft prompt would stand in the place of the first", where=f"method.parts.{number}", hint="Keep one."
            )

    def _check_kind(self, tuning: Tuning, number: int) -> None:
        """Raises `ConfigurationError` where the part is no adapter."""
        if isinstance(tuning, WeightsTuning) or tuning.folder_name != "adapter" or tuning.wants_gradients:
            raise ConfigurationError(
                f"'{room.name_of(self.parts[number])}' changes the base's own weights and is no part of a stack",
                where=f"method.parts.{number}",
                hint="Stack adapters: lora, prompt_tuning, bottleneck_adapter and the like.",
            )


def _take_off(model: Model, slot: int, standing: Sequence[Tuning]) -> None:
    """The parts leave, and the number is free."""
    for tuning in reversed(standing):
        if type(tuning).detach is not Tuning.detach:
            tuning.detach()
    while slot in model.lanes.members:
        model.lanes.close(slot)


class StackTuning(Tuning):
    """The parts of a stack, in order.

    Args:
        slot: their number among the tunings on the model.
    """

    def __init__(self, model: Model, method: Stack, slot: int, parts: tuple[Tuning, ...]) -> None:
        self.model, self.method, self.slot, self.parts = model, method, slot, parts

    def parameters(self) -> dict[str, Parameter]:
        return {f"{number}.{name}": one for number, part in enumerate(self.parts) for name, one in part.parameters().items()}

    def kept(self) -> dict[str, Tensor]:
        return {f"{number}.{name}": one for number, part in enumerate(self.parts) for name, one in part.kept().items()}

    def begin(self, steps: int) -> None:
        for part in self.parts:
            part.begin(steps)

    def before_update(self) -> None:
        for part in self.parts:
            part.before_update()

    def after_update(self) -> None:
        for part in self.parts:
            part.after_update()

    def after_restore(self) -> None:
        for part in self.parts:
            part.after_restore()

    def moved(self, parameters: Mapping[str, Parameter]) -> None:
        for number, part in enumerate(self.parts):
            own = f"{number}."
            part.moved({name.removeprefix(own): one for name, one in parameters.items() if name.startswith(own)})

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context no part changes anything."""
        with contextlib.ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.disabled())
            yield

    def detach(self) -> None:
        """Every part leaves; a second call does nothing."""
        for part in self.parts:
            part.detach()

    @property
    def merges(self) -> bool:
        return all(part.merges for part in self.parts)

    def merge(self) -> None:
        """Merge every part.

        Raises:
            ConfigurationError: one of them cannot be merged; it says why.
        """
        for part in self._refusing_first():
            part.merge()

    def interpolate(self, factor: float) -> None:
        """Make every part's change `factor` times as large.

        Raises:
            ConfigurationError: one of them has no size; it says why.
        """
        for part in self._refusing_first():
            part.interpolate(factor)

    def _refusing_first(self) -> list[Tuning]:
        """The parts, those first that may refuse to become weights; low-rank changes seldom do."""
        return sorted(self.parts, key=lambda part: (isinstance(part, LowRankTuning), not isinstance(part, SoftTuning)))

    def save(self, folder: Path) -> None:
        """`tuning.json` with all settings, and a sub-folder a part in the part's own format: `0_prompt_tuning`, `1_lora`."""
        write_own(folder, self.method, self.model, {})
        for part, inner in zip(self.parts, self._folders(folder), strict=True):
            inner.mkdir(exist_ok=True)
            part.save(inner)

    def load(self, folder: Path) -> None:
        inner = self._folders(folder)
        missing = next((one for one in inner if not one.is_dir()), None)
        if missing is not None:
            raise BaseModelError(f"lacks its part '{missing.name}'", where=str(folder))
        for part, one in zip(self.parts, inner, strict=True):
            part.load(one)

    def _folders(self, folder: Path) -> list[Path]:
        return [folder / f"{number}_{room.name_of(part)}" for number, part in enumerate(self.method.parts)]
