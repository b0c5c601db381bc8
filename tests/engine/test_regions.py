"""Compiled blocks compute what plain ones do; when they are compiled is decided with a reason."""

import pytest
import torch

from tunewright.engine.recompute import Recomputing
from tunewright.engine.regions import Compiled, worth_compiling
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, toy_engine, toy_loss, toy_trees


@pytest.mark.parametrize(
    ("asked", "device", "steps", "wanted", "words"),
    [
        ("on", "cpu", 1, True, "asked for"),
        ("off", "cuda", 9999, False, "asked for"),
        ("auto", "cpu", 9999, False, "on a CPU"),
        ("auto", "cuda", 20, False, "20 steps are over"),
        ("auto", "cuda", 5000, True, "5000 steps on a GPU"),
    ],
)
def test_when_it_is_worth_it(asked: str, device: str, steps: int, wanted: bool, words: str):
    chosen, reason = worth_compiling(asked, torch.device(device), steps)
    assert chosen is wanted
    assert words in reason


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch hides it itself, unless warnings are errors
@pytest.mark.parametrize(("layout", "recompute"), [("forest", False), ("padded", True)])
def test_losses_and_gradients_stay_for_any_number_of_tokens(layout: str, recompute: bool):
    torch._dynamo.reset()
    model = tiny("llama")
    engine = toy_engine(model, LoRA(rank=4).attach(model, 0), layout)
    model.network.train()

    def step(seed: int) -> tuple[float, dict[str, torch.Tensor]]:
        total, count = toy_loss(engine, engine.collate(toy_trees(model, 2 + seed, seed)))
        total.backward()
        found = {name: value.grad for name, value in engine.parameters.items() if value.grad is not None}
        engine.forget()
        return float(total.detach() / count), found

    before = [step(seed) for seed in range(3)]
    compiled = Compiled(model, backend="eager")
    recomputing = Recomputing(model) if recompute else None
    frames = torch._dynamo.utils.counters["frames"]
    frames.clear()
    try:
        after = [step(seed) for seed in range(3)]
        made = frames["ok"]
        step(9)
        assert frames["ok"] == made > 0  # a batch of another size and layout needs no new graph
        if recomputing is not None:
            recomputing.remove()
    finally:
        compiled.remove()
    for (loss, gradients), (other, traced) in zip(before, after, strict=True):
        assert other == pytest.approx(loss, rel=1e-5)
        assert all(difference(traced[name], value) < 1e-4 for name, value in gradients.items() if value.any())
    again = step(0)
    assert again[0] == before[0][0]
