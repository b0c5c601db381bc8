"""The battery every method must pass: inherit `MethodContract`, say what is tested, and pytest runs it over several families.

>>> class TestMine(MethodContract):
...     method = Mine(rank=4)
...
...     def expected_count(self, model):
...         return 4 * model.width * len(model.blocks)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tunewright.core.errors import ConfigurationError, RequestError
from tunewright.data.forest import Tree
from tunewright.data.sharing import shared
from tunewright.engine.engine import Engine
from tunewright.engine.sampling import sample
from tunewright.engine.settings import Sampling
from tunewright.methods import Method, Tuning
from tunewright.models import Model
from tunewright.models.loading import load_folder
from tunewright.testing.tiny import FAMILIES, tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_loss, toy_trees, train

MERGED, SAME = 1e-5, 1e-6  # largest relative differences: merging adds in another order, the rest repeats the same arithmetic


def _behind(tokens: tuple[int, ...], tree: Tree) -> Tree:
    """A tree of one segment with more tokens in front."""
    (segment,) = tree.segments
    targets = (*[0.0] * len(tokens), *(segment.targets or [0.0] * len(segment.tokens)))
    return Tree((replace(segment, tokens=tokens + segment.tokens, targets=targets),))


class MethodContract:
    """What holds for every method. Subclass with `method` and `expected_count`.

    Attributes:
        method: what is tested, with its settings.
        families: the tiny models (`tunewright.testing.tiny`) it is tested on.
        misspelt: settings whose names match nothing, alone and beside others that do match; where the method takes names.
        everywhere: the families on which one step is made and taken back; those in `refused` say why they do not serve.
        refused: families on which the method does not work, each with a part of the reason that it gives.
        merges: whether the change can be put into the base's weights; where not, the reason is given.
    """

    method: Method
    families: tuple[str, ...] = ("llama", "gpt2", "bert", "t5")
    misspelt: tuple[Method, ...] = ()
    everywhere: tuple[str, ...] = FAMILIES
    refused: Mapping[str, str] = {}
    merges: bool = True

    def expected_count(self, model: Model) -> int:
        """How many numbers are trainable on `model` (before anything is attached), by the formula of the docstring."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each test that asks for a family runs once a family."""
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)
        if "wrong" in metafunc.fixturenames:
            metafunc.parametrize("wrong", self.misspelt, ids=str)
        if "any_family" in metafunc.fixturenames:
            metafunc.parametrize("any_family", [family for family in self.everywhere if family not in self.families])

    def _attached(self, family: str, seed: int = 0) -> tuple[Model, Tuning]:
        model = tiny(family)
        return model, self.method.attach(model, seed)

    def _trained(self, family: str, steps: int = 3) -> tuple[Model, Tuning, Engine]:
        model, tuning = self._attached(family)
        engine = toy_engine(model, tuning, layouts=self.method.layouts)
        train(engine, toy_trees(model), steps)
        return model, tuning, engine

    def test_starts_equal_to_the_base(self, family: str) -> None:
        if not self.method.starts_at_base:
            pytest.skip("the method does not promise it")
        model = tiny(family)
        trees, base = toy_trees(model), outputs(tiny(family), toy_trees(model))
        self.method.attach(model, 0)
        assert difference(outputs(model, trees), base) <= SAME

    def test_disabled_is_the_base_exactly(self, family: str) -> None:
        base, trees = outputs(tiny(family), toy_trees(tiny(family))), toy_trees(tiny(family))
        model, tuning = self._attached(family)
        engine = toy_engine(model, tuning, layouts=self.method.layouts)
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
        train(toy_engine(model, tuning, layouts=self.method.layouts), toy_trees(model), 3)
        trained = {id(parameter) for parameter in own.values()}
        for name, tensor in tensors.items():
            assert id(tensor) in trained or torch.equal(tensor, before[name]), name
        for name, parameter in own.items():
            assert not torch.equal(parameter, first[name]), f"{name} was never changed"

    def test_gradients_reach_every_parameter(self, family: str) -> None:
        model, tuning = self._attached(family)
        engine, waiting = toy_engine(model, tuning, layouts=self.method.layouts), dict(tuning.parameters())
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
        assert tuning.merges == self.merges
        if not self.merges:
            before = outputs(model, toy_trees(model))
            with pytest.raises(ConfigurationError) as refusal:
                tuning.merge()
            assert refusal.value.problem
            assert refusal.value.hint
            assert torch.equal(outputs(model, toy_trees(model)), before)
            return
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

    def test_shared_prefix_is_unshared(self, family: str) -> None:
        model, _, engine = self._trained(family)
        if model.kind != "decoder":
            pytest.skip("only decoders share what rows begin with")
        trees = [_behind(tuple(range(40, 60)), tree) for tree in toy_trees(model, 4, seed=3)]
        (merged,) = shared(trees, token_budget=512)
        with engine.evaluating():
            alone = torch.cat([engine.score([tree])[0] for tree in trees])
            together = engine.score([merged.tree])[0]
        assert difference(together, alone) <= MERGED

    def test_detached_is_the_base_exactly(self, family: str) -> None:
        base = outputs(tiny(family), toy_trees(tiny(family)))
        model, tuning, _ = self._trained(family)
        if tuning.folder_name == "model" or type(tuning).detach is Tuning.detach:
            pytest.skip("the change is in the base's own weights")
        tuning.detach()
        tuning.detach()
        assert model.lanes.members == ()
        assert {type(module) for module in model.network.modules()} == {type(module) for module in tiny(family).network.modules()}
        assert torch.equal(outputs(model, toy_trees(model)), base)

    def test_every_family(self, any_family: str) -> None:
        model = tiny(any_family)
        if any_family in self.refused:
            with pytest.raises(RequestError, match=self.refused[any_family]):
                self.method.attach(model, 0)
            return
        trees, base = toy_trees(model), outputs(model, toy_trees(model))
        tuning = self.method.attach(model, 0)
        engine = toy_engine(model, tuning, layouts=self.method.layouts)
        train(engine, trees, 1)
        assert engine.optimizer is None or not torch.equal(outputs(model, trees), base) or not tuning.parameters()
        with tuning.disabled():
            assert torch.equal(outputs(model, trees), base)

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
