"""A contract that cannot fail proves nothing: each of these entries breaks one promise, and its test says so."""

import contextlib
from pathlib import Path

import pytest
import torch

from tunewright.data.rows import PromptRow
from tunewright.engine.loss import Loss
from tunewright.methods import Method
from tunewright.methods._weights import WeightsTuning
from tunewright.methods.lora import LoRA, LoRATuning
from tunewright.methods.selective import Selective
from tunewright.objectives.sft import SFT
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.objective_contract import ObjectiveContract


class Careless(LoRA):
    """A LoRA whose tuning is of the class `kind`."""

    def attach(self, model, seed):
        tuning = super().attach(model, seed)
        tuning.__class__ = KINDS[self.alpha]
        return tuning


class NeverOff(LoRATuning):
    def disabled(self):
        return contextlib.nullcontext()


class MergesTwice(LoRATuning):
    def merge(self):
        for layer in self.layers.values():
            with torch.no_grad():
                layer.B_OR.mul_(2)
        super().merge()


class Forgets(LoRATuning):
    def load(self, folder):
        pass


class LeavesSomethingOut(LoRATuning):
    def parameters(self):
        return dict(list(super().parameters().items())[:-1])


KINDS = {2.0: NeverOff, 3.0: MergesTwice, 4.0: Forgets, 5.0: LeavesSomethingOut}


class TiedToHistory(LoRA):
    """Draws its start from the global generator."""

    def attach(self, model, seed):
        tuning = super().attach(model, seed)
        with torch.no_grad():
            for layer in tuning.layers.values():
                layer.A_RI.normal_()
        return tuning


class StartsElsewhere(LoRA):
    def attach(self, model, seed):
        tuning = super().attach(model, seed)
        with torch.no_grad():
            for layer in tuning.layers.values():
                layer.B_OR.fill_(0.01)
        return tuning


class Deaf(Selective):
    """Trains a weight that no gradient reaches, and takes any name."""

    def attach(self, model, seed):
        table = torch.nn.Parameter(torch.zeros(3))
        model.network.register_parameter("unused", table)
        return WeightsTuning(model, {"unused": table})


def contract(method: Method) -> MethodContract:
    class Made(MethodContract):
        def expected_count(self, model) -> int:
            return 1

    made = Made()
    made.method = method
    return made


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (Careless(alpha=2), "test_disabled_is_the_base_exactly"),
        (Careless(alpha=3), "test_merged_is_attached"),
        (Careless(alpha=4), "test_reloaded_is_the_same"),
        (Careless(alpha=5), "test_only_its_own_parameters_change"),
        (TiedToHistory(), "test_starts_from_its_seed_alone"),
        (StartsElsewhere(), "test_starts_equal_to_the_base"),
        (Deaf(), "test_gradients_reach_every_parameter"),
        (LoRA(), "test_count"),
    ],
    ids=str,
)
def test_a_broken_method_fails(method: Method, test: str, tmp_path: Path):
    found = getattr(contract(method), test)
    with pytest.raises((AssertionError, RuntimeError, StopIteration)):
        found("llama", tmp_path) if "tmp_path" in found.__code__.co_varnames else found("llama")
    sound = getattr(contract(LoRA()), test)
    if test != "test_count":
        (tmp_path / "sound").mkdir()
        sound("llama", tmp_path / "sound") if "tmp_path" in sound.__code__.co_varnames else sound("llama")


class MeanOfEach(SFT):
    """Divides each batch by its own count: the mistake of adding means."""

    def loss(self, engine, batch):
        total, count = super().loss(engine, batch)
        return Loss(total / count, torch.ones(()))


class Lazy(SFT):
    def loss(self, engine, batch):
        total, count = super().loss(engine, batch)
        return Loss(total * 0 + 1, count)


class Greedy(SFT):
    def plant(self, rows, renderer):
        return [item for item in super().plant(rows, renderer) if not hasattr(item, "reason")]


@pytest.mark.parametrize(
    ("objective", "test"),
    [
        (MeanOfEach(), "test_cuts_and_orders_do_not_matter"),
        (MeanOfEach(), "test_loss_is_a_sum_and_a_count"),
        (Lazy(), "test_it_learns"),
        (Greedy(), "test_useless_rows_are_refused"),
    ],
    ids=str,
)
def test_a_broken_objective_fails(objective: SFT, test: str):
    class Made(ObjectiveContract):
        rows = tuple(
            PromptRow(prompt=word, completion=word[::-1] * size) for size, word in enumerate(("ab", "cde", "f", "ghij"), 1)
        )
        useless = (PromptRow(prompt="a", completion=""),)

    made = Made()
    made.objective = SFT()
    getattr(made, test)("llama")
    made.objective = objective
    with pytest.raises((AssertionError, ValueError)):
        getattr(made, test)("llama")
