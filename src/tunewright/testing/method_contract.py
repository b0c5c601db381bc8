"""The battery every method must pass: inherit `MethodContract`, say what is tested, and pytest runs it over several families.

>>> class TestMine(MethodContract):
...     method = Mine(rank=4)
...
...     def expected_count(self, model):
...         return 4 * model.width * len(model.blocks)
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.engine.engine import Engine
from tunewright.engine.sampling import sample
from tunewright.engine.settings import Sampling
from tunewright.methods import Method, Tuning
from tunewright.models import Model
from tunewright.models.loading import load_folder
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_loss, toy_trees, train

MERGED, SAME = 1e-5, 1e-6  # largest relative differences: merging adds in another order, the rest repeats the same arithmetic


class MethodContract:
    """What holds for every method. Subclass with `method` and `expected_count`.

    Attributes:
        method: what is tested, with its settings.
        families: the tiny models (`tunewright.testing.tiny`) it is tested on.
        misspelt: settings whose names match nothing, alone and beside others that do match; where the method takes names.
    """

    method: Method
    families: tuple[str, ...] = ("llama", "gpt2", "bert", "t5")
    misspelt: tuple[Method, ...] = ()

    def expected_count(self, model: Model) -> int:
        """How many numbers are trainable on `model` (before anything is attached), by the formula of the docstring."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each test that asks for a family runs once a family."""
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)
        if "wrong" in metafunc.fixturenames:
            metafunc.parametrize("wrong", self.misspelt, ids=str)

    def _attached(self, family: str, seed: int = 0) -> tuple[Model, Tuning]:
        model = tiny(family)
        return model, self.method.attach(model, seed)

    def _trained(self, family: str, steps: int = 3) -> tuple[Model, Tuning, Engine]:
        model, tuning = self._attached(family)
        engine = toy_engine(model, tuning)
        train(engine, toy_trees(model), steps)
        return model, tuning, engine

    def test_starts_equal_to_the_base(self, family: str) -> None:
        model = tiny(family)
        trees, base = toy_trees(model), outputs(tiny(family), toy_trees(model))
        self.method.attach(model, 0)
        assert difference(outputs(model, trees), base) <= SAME

    def test_disabled_is_the_base_exactly(self, family: str) -> None:
        base, trees = outputs(tiny(family), toy_trees(tiny(family))), toy_trees(tiny(family))
        model, tuning = self._attached(family)
        engine = toy_engine(model, tuning)
        for steps in (0, 2, 1):
            train(engine, trees, steps)
            tuned = outputs(model, trees)
            with tuning.disabled():
                assert torch.equal(outputs(model, trees), base)
                with tuning.disabled():
                    pass
                assert torch.equal(outputs(model, trees), base)
            assert torch.equal(outputs(model, trees), tuned)
        assert torch.equal(tuned, base) == (not tuning.parameters())

    def test_only_its_own_parameters_change(self, family: str) -> None:
        model = tiny(family)
        network = model.network
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        tuning = self.method.attach(model, 0)
        own = tuning.parameters()
        first = {name: parameter.detach().clone() for name, parameter in own.items()}
        assert {id(p) for p in network.parameters() if p.requires_grad} == {id(p) for p in own.values()}
        train(toy_engine(model, tuning), toy_trees(model), 3)
        trained = {id(parameter) for parameter in own.values()}
        for name, tensor in tensors.items():
            assert id(tensor) in trained or torch.equal(tensor, before[name]), name
        for name, parameter in own.items():
            assert not torch.equal(parameter, first[name]), f"{name} was never changed"

    def test_gradients_reach_every_parameter(self, family: str) -> None:
        model, tuning = self._attached(family)
        engine, waiting = toy_engine(model, tuning), dict(tuning.parameters())
        assert engine.optimizer is not None or not waiting
        for _ in range(3 if engine.optimizer is not None else 0):
            engine.forward_backward([engine.collate(toy_trees(model))], toy_loss)
            waiting = {name: one for name, one in waiting.items() if one.grad is None or not bool(one.grad.any())}
            engine.step(1e-2)
        assert not waiting

    def test_reloaded_is_the_same(self, family: str, tmp_path: Path) -> None:
        model, tuning, _ = self._trained(family)
        tuning.save(tmp_path)
        again, other = self._attached(family, seed=7)
        other.load(tmp_path)
        wanted = outputs(model, toy_trees(model))
        assert torch.equal(outputs(again, toy_trees(model)), wanted)
        if tuning.folder_name == "model":
            assert torch.equal(outputs(load_folder(tmp_path), toy_trees(model)), wanted)

    def test_merged_is_attached(self, family: str, tmp_path: Path) -> None:
        model, tuning, _ = self._trained(family)
        plain, attached = {type(module) for module in tiny(family).network.modules()}, outputs(model, toy_trees(model))
        tuning.merge()
        assert {type(module) for module in model.network.modules()} == plain
        assert difference(outputs(model, toy_trees(model)), attached) <= MERGED
        model.network.save_pretrained(tmp_path)
        model.tokenizer.save_pretrained(tmp_path)
        assert difference(outputs(load_folder(tmp_path), toy_trees(model)), attached) <= MERGED

    def test_cached_generation_is_uncached(self, family: str) -> None:
        model, _, engine = self._trained(family)
        if model.kind == "encoder":
            pytest.skip("an encoder writes nothing")
        prompts = [tree.segments[0].tokens for tree in toy_trees(model, seed=1)]
        settings = Sampling(max_new_tokens=12, temperature=0.8, seed=3)
        found = [sample(engine, prompts, settings, ends=frozenset({2}), cache=cache) for cache in (True, False)]
        assert found[0] == found[1]

    def test_packed_is_alone(self, family: str) -> None:
        model, _, engine = self._trained(family)
        trees = toy_trees(model, 5, seed=2)
        with engine.evaluating():
            if model.kind == "encoder":
                packed = engine.label_logits(engine.collate(trees))
                alone = torch.cat([engine.label_logits(engine.collate([tree])) for tree in trees])
            else:
                packed, alone = engine.score(trees)[0], torch.cat([engine.score([tree])[0] for tree in trees])
        assert difference(packed, alone) <= MERGED

    def test_count(self, family: str) -> None:
        expected = self.expected_count(tiny(family))
        _, tuning = self._attached(family)
        assert tuning.count() == expected == sum(tensor.numel() for _, tensor in tuning.state())

    def test_starts_from_its_seed_alone(self, family: str) -> None:
        torch.manual_seed(11)
        before = torch.get_rng_state()
        first = dict(self._attached(family)[1].state())
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(12)
        second = dict(self._attached(family)[1].state())
        assert list(first) == list(second)
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_names_that_match_nothing_are_refused(self, wrong: Method) -> None:
        with pytest.raises(ConfigurationError) as found:
            wrong.attach(tiny(self.families[0]), 0)
        assert found.value.given
