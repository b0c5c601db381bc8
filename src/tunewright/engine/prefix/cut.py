"""Where training begins in a network, and how either side of that place is run alone.

The network stays as transformers made it: for one pass, the last block below the cut stops it, or gives a stored state in place of
its own, while the blocks below pass their input on. Masks, positions and rotary embeddings come from the network's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from tunewright.models import Model
from tunewright.models.attached import Attached
from tunewright.models.lanes import Lane

Output = TypeVar("Output")
HEAD = "head."  # in front of the names of a new head's parameters, which stand outside the network
# Rotary frequencies that depend on the longest row of the batch: the state of a segment would depend on its neighbours.
_BY_LENGTH = ("dynamic", "longrope")


class _Reached(Exception):
    """Carries the output of the last block below the cut out of a pass that need not go on."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def lowest_trainable_block(model: Model, parameters: Mapping[str, Parameter]) -> int:
    """The lowest block with something trainable in or attached to it; nothing below it is, the embeddings included.

    The number of blocks where only what follows them is trained (a head, the final norm); 0 where the embeddings are, where a
    parameter belongs to no module of the network, where a tuning has virtual tokens, for encoder-decoders, whose two halves share
    no order, and where whole blocks are left out at random.

    Args:
        parameters: what is trained, by stable name. Whatever else in the network asks for gradients counts too.
    """
    network = model.network
    if model.kind == "encoder_decoder" or model.lanes.begins or _facts(model).get("layerdrop"):
        return 0
    inside = {id(parameter) for parameter in network.parameters()}
    if any(id(parameter) not in inside and not name.startswith(HEAD) for name, parameter in parameters.items()):
        return 0
    trained = {id(parameter) for parameter in (*parameters.values(), *network.parameters()) if parameter.requires_grad}

    def trains(module: nn.Module, recurse: bool = True) -> bool:
        return any(id(parameter) in trained for parameter in module.parameters(recurse))

    blocks = model.blocks
    lowest = next((number for number, block in enumerate(blocks) if trains(block)), len(blocks))
    if lowest and any(trains(module, recurse=False) or _carries(module, trains) for module in entrance(model)):
        return 0
    return lowest


def _carries(module: nn.Module, trains: Callable[[nn.Module], bool]) -> bool:
    """Whether something trained is attached to the module itself."""
    return any(isinstance(part, Attached) and trains(part) for part in module.children())


def entrance(model: Model) -> list[nn.Module]:
    """The modules that run before the first block does (embeddings, rotary tables, and what holds the blocks), found by running."""
    called: dict[int, nn.Module] = {}
    blocks = model.blocks
    inner = {id(module) for block in blocks for module in block.modules()}

    def note(module: nn.Module, _inputs: Any) -> None:
        called[id(module)] = module

    def stop(_module: nn.Module, _inputs: Any) -> None:
        raise _Reached(None)

    outer = [module for module in model.body.modules() if id(module) not in inner]
    handles = [module.register_forward_pre_hook(note) for module in outer]
    handles.append(blocks[0].register_forward_pre_hook(stop))
    body: nn.Module = model.body
    device = next(body.parameters()).device
    token = 1 if model.tokenizer.pad_token_id == 0 else 0  # some families warn about a pad token without a mask
    one = tuple(Lane(tuning, 0, 1) for tuning in model.lanes.members[:1])  # several on one embedding ask whose tokens these are
    try:
        with torch.no_grad(), model.lanes.during(one):
            body(input_ids=torch.full((1, 1), token, device=device))
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return list(called.values())


def obstacle(model: Model) -> str | None:
    """Why this network's states must not be kept, in words; None where they may."""
    facts = _facts(model)
    if any(f"'{kind}'" in str(facts.get(name)) for kind in _BY_LENGTH for name in ("rope_parameters", "rope_scaling")):
        return "its rotary positions depend on the longest row of a batch"
    return None


def _facts(model: Model) -> dict[str, Any]:
    return model.network.config.get_text_config().to_dict()


class Prefix:
    """The two sides of a cut.

    Args:
        model: the network, with everything attached that there will be below the cut.
        cut: the lowest trained block, from 1 to the number of blocks.
    """

    def __init__(self, model: Model, cut: int) -> None:
        blocks = model.blocks
        if not 1 <= cut <= len(blocks):
            raise ValueError(f"there is nothing below block {cut} of {len(blocks)}")
        self.cut, self.frozen = cut, blocks[:cut]
        self.entrance = entrance(model)
        above = {id(module) for block in blocks for module in block.modules()}
        holders = {id(module) for module in self.entrance if any(id(inner) in above for inner in module.modules())}
        # What holds the blocks keeps its mode, which is that of the blocks above the cut.
        self._before = [inner for module in self.entrance if id(module) not in holders for inner in module.modules()]
        self._within = [*self._before, *(inner for block in self.frozen for inner in block.modules())]
        self._tuple: int | None = None  # how many things a block returns; None when it returns the state itself

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module that the states below the cut are computed by, and what it is."""
        for number, module in enumerate(self.entrance):
            yield f"entrance.{number}.{type(module).__qualname__}", module
        for number, block in enumerate(self.frozen):
            for path, module in block.named_modules():
                yield f"block.{number}.{path}.{type(module).__qualname__}", module

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that they compute with: parameters, buffers, and tensors held as plain attributes (quantised weights)."""
        for place, module in self.modules():
            held = {**vars(module), **vars(module)["_parameters"], **vars(module)["_buffers"]}
            yield from ((f"{place}.{name}", value) for name, value in held.items() if isinstance(value, Tensor))

    def below(self, run: Callable[[], object]) -> Tensor:
        """What enters block `cut`, or the final norm where `cut` is the number of blocks: [B, T, D], without a graph.

        Args:
            run: the network's ordinary pass; it is stopped at the cut.
        """

        def stop(_module: nn.Module, _inputs: Any, output: Any) -> None:
            raise _Reached(output)

        handle = self.frozen[-1].register_forward_hook(stop)
        try:
            with torch.no_grad(), _evaluating(self._within):
                run()
        except _Reached as reached:
            self._tuple = len(reached.output) if isinstance(reached.output, tuple) else None
            return reached.output[0] if isinstance(reached.output, tuple) else reached.output
        finally:
            handle.remove()
        raise RuntimeError(f"the pass never came to block {self.cut - 1}")

    def above(self, hidden_BTD: Tensor, run: Callable[[], Output]) -> Output:
        """What `run` returns when `hidden_BTD` enters block `cut`; `below` must have run once before.

        Args:
            hidden_BTD: as `below` returned it for the same batch.
            run: the network's ordinary pass.
        """
        given = False

        def form(hidden: Tensor) -> Any:
            return hidden if self._tuple is None else (hidden, *[None] * (self._tuple - 1))

        def pass_on(hidden_states: Tensor, *_rest: Any, **_named: Any) -> Any:
            return form(hidden_states)

        def give(*_rest: Any, **_named: Any) -> Any:
            nonlocal given
            given = True
            return form(hidden_BTD)

        with _evaluating(self._before), _forwards(self.frozen, [*[pass_on] * (self.cut - 1), give]):
            output = run()
        if not given:
            raise RuntimeError(f"the pass never came to block {self.cut - 1}")
        return output


@contextmanager
def _evaluating(modules: list[nn.Module]) -> Iterator[None]:
    """Evaluation mode for exactly these modules: no dropout, no recomputation of activations."""
    changed = [module for module in modules if module.training]
    for module in changed:
        module.training = False
    try:
        yield
    finally:
        for module in changed:
            module.training = True


@contextmanager
def _forwards(blocks: list[nn.Module], forwards: list[Callable[..., Any]]) -> Iterator[None]:
    """Other forward functions on these instances, and whatever stood on them before afterwards."""
    kept = [vars(block).get("forward") for block in blocks]
    for block, forward in zip(blocks, forwards, strict=True):
        vars(block)["forward"] = forward
    try:
        yield
    finally:
        for block, before in zip(blocks, kept, strict=True):
            if before is None:
                del vars(block)["forward"]
            else:
                vars(block)["forward"] = before
