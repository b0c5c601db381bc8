"""What soft prompts have in common: virtual tokens on a base, PEFT's files, and what they begin as."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.core.seeds import derive
from tunewright.methods import Method, Tuning
from tunewright.methods._saved import read_peft, read_tensors, refuse_unknown, write_peft

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from tunewright.engine.virtual import Virtual
    from tunewright.models import Model

Start = Literal["text", "vocabulary", "random"]
MOST = 200
"""Virtual tokens: beyond, papers find no gain, and every text pays for them."""
_STORED = "prompt_embeddings"
_STARTS: dict[str, Start] = {"TEXT": "text", "SAMPLE_VOCAB": "vocabulary", "RANDOM": "random"}
_COMMON = (
    *("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"),
    *("encoder_hidden_size", "tokenizer_name_or_path", "runtime_config"),
)


class SoftTuning(Tuning):
    """The virtual tokens of one tuning.

    Args:
        slot: its number among the tunings on the model.
        virtual: what the vectors, or keys and values, come from.
        facts: what PEFT's configuration says of them, `peft_type` among it.
    """

    def __init__(self, model: Model, slot: int, virtual: Virtual, facts: Mapping[str, Any]) -> None:
        self.model, self.slot, self.virtual, self.facts = model, slot, virtual, dict(facts)
        self._ids = model.lanes.begins[slot]
        self._stands = True

    def parameters(self) -> dict[str, Parameter]:
        return {f"prompt.{name}": parameter for name, parameter in self.virtual.named_parameters()}

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context no virtual token stands in front of this tuning's texts."""
        begins = self.model.lanes.begins
        before = begins.pop(self.slot, None)
        try:
            yield
        finally:
            if before is not None:
                begins[self.slot] = before

    def detach(self) -> None:
        """Leave the base; a second call does nothing."""
        if self._stands:
            self._take_off()
            self.model.lanes.close(self.slot)
        self._stands = False

    @property
    def merges(self) -> bool:
        return False

    def merge(self) -> None:
        """Refused.

        Raises:
            ConfigurationError: always; a soft prompt is no weight of the base.
        """
        raise ConfigurationError(
            "a soft prompt is no weight and cannot be merged into one: it stands in front of every text",
            where="merge",
            hint="Keep the adapter beside its base.",
        )

    def baked(self) -> Tensor:
        """What PEFT saves, [P, numbers a token]: the vectors, or the keys and values, without the network that made them."""
        import torch

        training = self.virtual.training
        self.virtual.eval()
        with torch.no_grad():
            found = self.virtual.states()
            found = self.virtual.vectors() if found is None else found
        self.virtual.train(training)
        assert found is not None
        return found.flatten(1)

    def save(self, folder: Path) -> None:
        """PEFT's format: `adapter_config.json` and `adapter_model.safetensors`, which holds the baked virtual tokens."""
        baked_P = self.baked()
        write_peft(folder, {**described(self.model, len(baked_P)), **self.facts}, self.model, {_STORED: baked_P})

    def load(self, folder: Path) -> None:
        """Read PEFT's format. Virtual tokens that a network made are then what is trained, since PEFT's files hold no network."""
        import torch

        stored = read_tensors(folder)
        if set(stored) != {_STORED}:
            raise BaseModelError(f"holds {sorted(stored)[:3]} where virtual tokens have '{_STORED}' alone", where=str(folder))
        own, given = self.baked(), stored[_STORED]
        if own.shape != given.shape:
            raise BaseModelError(
                f"its virtual tokens are {tuple(given.shape)}, those of this base and method {tuple(own.shape)}", where=str(folder)
            )
        plain = self._plain(given)
        if type(plain) is type(self.virtual):
            with torch.no_grad():
                for parameter, value in zip(self.virtual.parameters(), plain.parameters(), strict=True):
                    parameter.copy_(value)
            return
        self._take_off()
        self.virtual = plain
        self._put_on()

    def _plain(self, baked_P: Tensor) -> Virtual:
        """Virtual tokens without a network that makes them."""
        from tunewright.engine.virtual.modules import Vectors

        return Vectors(baked_P)

    def _put_on(self) -> None:
        from tunewright.engine.virtual import mount

        mount(self.model, self.slot, self.virtual)

    def _take_off(self) -> None:
        from tunewright.engine.virtual import unmount

        unmount(self.model, self.slot)


def described(model: Model, count: int) -> dict[str, Any]:
    """What PEFT's configuration says of every soft prompt: how many virtual tokens, and the measures of the base."""
    from tunewright.engine.virtual import entry

    config = model.network.config.get_text_config()
    return {
        "num_virtual_tokens": count,
        "token_dim": entry(model).weight.shape[1],
        "num_transformer_submodules": 1,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
    }


def room_behind(count: int, context: int | None) -> int | None:
    """How many tokens of a context are left behind `count` virtual ones; None where there is no limit.

    Raises:
        ConfigurationError: none is left.
    """
    if context is None or context > count:
        return None if context is None else context - count
    raise ConfigurationError(
        f"{count} virtual tokens leave no room for a text: the base reads {context} tokens", where="method.virtual_tokens"
    )


def check_text(init: Start, text: str | None) -> None:
    """Raises `ConfigurationError` where a text is missing, or given and not used."""
    if init == "text" and not (text or "").strip():
        raise ConfigurationError("init is 'text', and there is no text", where="text", hint="Give it, or leave init out.")
    if init != "text" and text is not None:
        raise ConfigurationError(f"init is '{init}', so the text would not be used", where="text", hint="Set init: text.")


def first_tokens(model: Model, count: int, init: Start, text: str | None, seed: int) -> tuple[int, ...]:
    """The ids that virtual tokens begin as: those of the text, repeated or cut, or drawn from the vocabulary without repetition.

    Raises:
        ConfigurationError: the text has no tokens.
    """
    import random

    tokenizer = model.tokenizer
    if init == "text":
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not found:
            raise ConfigurationError("the text has no tokens", where="method.text", given=str(text))
        return tuple((found * -(-count // len(found)))[:count])  # type: ignore[operator]
    known = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    draw = random.Random(derive(seed, "virtual tokens"))
    return tuple(draw.sample(known, count) if len(known) >= count else draw.choices(known, k=count))


def first_vectors(model: Model, count: int, init: Start, text: str | None, seed: int) -> Tensor:
    """What virtual tokens begin as, [P, D]: the embedding's output for `first_tokens`, or N(0, its standard deviation)."""
    import torch

    from tunewright.engine.virtual.entrance import embedded

    if init != "random":
        return embedded(model, first_tokens(model, count, init, text, seed))
    known = embedded(model, first_tokens(model, min(model.vocabulary, 1000), "vocabulary", None, seed))
    return torch.randn(count, known.shape[1], generator=torch.Generator().manual_seed(seed)) * known.cpu().std()


def peft_start(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`init` and `text` as a PEFT configuration has them."""
    init = _STARTS.get(str(facts.get("prompt_tuning_init", "RANDOM")), "random")
    text = facts.get("prompt_tuning_init_text")
    if init == "text" and not text:
        return {"init": "random"}
    return {"init": init} | ({"text": text} if init == "text" else {})


def peft_facts(folder: Path, understood: Sequence[str]) -> dict[str, Any]:
    """A PEFT configuration in which nothing is set that is not computed here.

    Raises:
        BaseModelError: something is; it is named.
    """
    facts = read_peft(folder)
    refuse_unknown(facts, (*_COMMON, *understood), folder)
    if facts.get("num_transformer_submodules") not in (None, 1):
        raise BaseModelError(
            "the adapter puts virtual tokens in front of the decoder's side too (num_transformer_submodules is 2)",
            where=str(folder),
            hint="Use `method: {name: peft, ...}`, or make it with num_transformer_submodules=1.",
        )
    return facts


def attached(method: Method, model: Model, virtual: Virtual, facts: Mapping[str, Any]) -> SoftTuning:
    """Freeze the base and put virtual tokens, given by their vectors, in front of a new tuning's texts."""
    from tunewright.engine.virtual import mount
    from tunewright.models.attached import freeze_base

    method.text_room(model.context)
    freeze_base(model.network)
    slot = model.lanes.open()
    mount(model, slot, virtual)
    return SoftTuning(model, slot, virtual, facts)
