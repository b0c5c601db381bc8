"""Several LoRAs as one, against the sum of what they change and against PEFT's add_weighted_adapter."""

from pathlib import Path

import peft
import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.methods._lora_arithmetic import concatenation, linear, svd
from tunewright.methods.lora import LoRA, LoRATuning
from tunewright.models import Model
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_trees

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers. to .True.:UserWarning"),
]
METHODS = (LoRA(rank=3, alpha=5, targets=("embedding", "attention.query", "mlp.up")), LoRA(rank=2, targets=("mlp.up", "mlp.down")))
WEIGHTS = (0.7, -1.3)
SAME = (LoRA(rank=3, alpha=5), LoRA(rank=3, alpha=2, rank_stabilized=True))


def attached(model: Model, methods=METHODS, folder: Path | None = None) -> list[LoRATuning]:
    tunings = []
    for seed, method in enumerate(methods):
        tuning = method.attach(model, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in tuning.parameters().values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        if folder is not None:
            (folder / str(seed)).mkdir()
            tuning.save(folder / str(seed))
        tunings.append(tuning)
    return tunings


def changes(tunings) -> dict[str, torch.Tensor]:
    """The weighted sum of what they change, by path."""
    found: dict[str, torch.Tensor] = {}
    for tuning, weight in zip(tunings, WEIGHTS, strict=True):
        for path, layer in tuning.layers.items():
            found[path] = found.get(path, 0) + weight * layer.change()
    return found


def alone(made: LoRATuning, tunings) -> torch.Tensor:
    for tuning in tunings:
        tuning.detach()
    return outputs(made.model, toy_trees(made.model))


def test_a_concatenation_is_the_weighted_sum_of_what_is_changed(tmp_path: Path):
    model = tiny("llama")
    tunings = attached(model)
    made, wanted = concatenation(tunings, WEIGHTS), changes(tunings)
    assert set(made.layers) == set(wanted)
    for path, layer in made.layers.items():
        torch.testing.assert_close(layer.change(), wanted[path], rtol=1e-4, atol=1e-6)
    assert {path.rpartition(".")[2]: layer.rank for path, layer in made.layers.items()} == {
        "embed_tokens": 3,
        "q_proj": 3,
        "up_proj": 5,
        "down_proj": 2,
    }
    assert model.lanes.members == (0, 1, 2)
    found = alone(made, tunings)
    made.save(tmp_path)
    again = tiny("llama")
    LoRA.from_folder(tmp_path).attach(again, 0).load(tmp_path)
    assert difference(outputs(again, toy_trees(again)), found) < 1e-6


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("way", ["cat", "svd", "linear"])
def test_they_are_those_of_peft(family: str, way: str, tmp_path: Path):
    model = tiny(family)
    tunings = attached(model, SAME, tmp_path)
    makers = {
        "cat": lambda: concatenation(tunings, WEIGHTS),
        "svd": lambda: svd(tunings, WEIGHTS, 4),
        "linear": lambda: linear(tunings, WEIGHTS),
    }
    found = alone(makers[way](), tunings)
    theirs = peft.PeftModel.from_pretrained(tiny(family).network, str(tmp_path / "0"), adapter_name="0")
    theirs.load_adapter(str(tmp_path / "1"), adapter_name="1")
    theirs.base_model.add_weighted_adapter(
        ["0", "1"], list(WEIGHTS), "made", combination_type=way, svd_rank=4 if way == "svd" else None
    )
    theirs.set_adapter("made")
    network = Model(theirs.base_model.model, model.tokenizer, model.kind, family, "", None, "")
    assert difference(found, outputs(network, toy_trees(model))) < 2e-5


def test_a_smaller_rank_is_the_nearest_there_is():
    tunings = attached(tiny("llama"))
    wanted = changes(tunings)
    made = svd(tunings, WEIGHTS, 2)
    for path, layer in made.layers.items():
        U, S, V = torch.linalg.svd(wanted[path], full_matrices=False)
        torch.testing.assert_close(layer.change(), U[:, :2] * S[:2] @ V[:2], rtol=1e-3, atol=1e-5)
    whole = svd(tunings, WEIGHTS, 9)  # more than they have: exact, and filled up with zeros
    for path, layer in whole.layers.items():
        assert layer.rank == 9
        torch.testing.assert_close(layer.change(), wanted[path], rtol=1e-3, atol=1e-5)


def test_linear_is_not_the_sum():
    model = tiny("llama")
    tunings = attached(model, SAME)
    made, wanted = linear(tunings, (1.0, 1.0)), {}
    for tuning in tunings:
        for path, layer in tuning.layers.items():
            wanted[path] = wanted.get(path, 0) + layer.change()
    path = next(iter(wanted))
    assert made.layers[path].rank == 3
    assert difference(made.layers[path].change(), wanted[path]) > 0.1
    single = linear(tunings[:1], (1.0,))
    torch.testing.assert_close(single.layers[path].change(), tunings[0].layers[path].change())


def test_a_task_is_subtracted():
    model = tiny("llama")
    plain = outputs(model, toy_trees(model))
    tunings = attached(model, SAME[:1] * 2)
    with torch.no_grad():
        for name, parameter in tunings[1].parameters().items():
            parameter.copy_(tunings[0].parameters()[name])
    made = concatenation(tunings, (1.0, -1.0))
    assert difference(alone(made, tunings), plain) < 1e-5


def test_what_cannot_be_added_is_refused():
    model = tiny("llama")
    one = LoRA(rank=2).attach(model, 0)
    with pytest.raises(ConfigurationError, match="1 tunings and 2 weights"):
        concatenation([one], (1.0, 2.0))
    with pytest.raises(ConfigurationError, match="0 tunings"):
        svd([], (), 2)
    with pytest.raises(ConfigurationError, match="different models"):
        concatenation([one, LoRA(rank=2).attach(tiny("llama"), 0)], (1.0, 1.0))
    with pytest.raises(ConfigurationError, match="has magnitudes of its own"):
        concatenation([LoRA(rank=2, dora=True).attach(model, 0)], (1.0,))
    with pytest.raises(ConfigurationError, match=r"ranks \[2, 3\] at .* Use `concatenation` or `svd`"):
        linear([one, LoRA(rank=3).attach(model, 0)], (1.0, 1.0))
