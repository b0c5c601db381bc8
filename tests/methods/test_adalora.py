"""AdaLoRA: the contract, the schedule, and PEFT's AdaLoraModel beside it, update by update."""

import json
from pathlib import Path

import peft
import pytest
import torch

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError, RequestError
from tunewright.engine.engine import Engine
from tunewright.methods._adalora import Schedule, straighten
from tunewright.methods._saved import method_of
from tunewright.methods.adalora import AdaLoRA, AdaLoRATuning
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_loss, toy_trees, train
from tunewright.training import checkpoints
from tunewright.training.around import Best
from tunewright.training.loop import Step

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Note that .r. is not used in AdaLora"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning"),  # those of its own files too
]
CLOSE = 1e-5
FAMILIES = ("llama", "gpt2", "bert", "t5")


class TestAdaLoRA(MethodContract):
    method = AdaLoRA(rank=2, initial_rank=4)
    families = ("llama", "qwen3", "gpt2", "bert", "t5")
    misspelt = (AdaLoRA(targets=("atention.query",)), AdaLoRA(targets=("linear", "q_porj")))

    def expected_count(self, model: Model) -> int:
        return 4 * sum(sum(layer.weight.shape) + 1 for layer in model.sites("linear").values())


def roughened(model: Model, method: AdaLoRA) -> AdaLoRATuning:
    tuning = method.attach(model, 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return tuning


def of_peft(network: torch.nn.Module, model: Model) -> torch.Tensor:
    held = Model(network.base_model.model, model.tokenizer, model.kind, model.family, "", None, "")
    return outputs(held, toy_trees(model))


def by_our_names(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter
        for name, parameter in network.named_parameters()
        if "lora_" in name
    }


def test_the_budget_falls_by_a_cubic_and_stays():
    schedule = Schedule(initial=120, target=40, warmup=10, final=30, steps=100, every=5)
    assert [schedule.budget(step) for step in (1, 10, 11, 40, 69, 70, 100)] == [120, 120, 116, 50, 40, 40, 40]
    assert [step for step in range(1, 101) if schedule.decides(step)] == [*range(15, 71, 5)]
    assert Schedule(12, 6, 0, 0, 1).decides(1)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_every_run_is_long_enough_to_choose_once(steps: int):
    tuning = AdaLoRA(warmup=0.5, final=0.49).attach(tiny("llama"), 0)
    tuning.begin(steps)
    assert tuning.schedule is not None
    assert any(tuning.schedule.decides(step) for step in range(1, steps + 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_peft(family: str, tmp_path: Path):
    model = tiny(family)
    tuning = roughened(model, AdaLoRA(rank=2, initial_rank=3, alpha=5))
    tuning.save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny(family).network, str(tmp_path), is_trainable=True)
    assert difference(of_peft(theirs, model), outputs(model, toy_trees(model))) < CLOSE
    ids = torch.arange(10, 30)[None]
    more = {"decoder_input_ids": ids[:, :7]} if model.kind == "encoder_decoder" else {}
    for network in (model.network, theirs):
        network.eval()
        network(input_ids=ids, **more)[0].pow(2).mean().backward()
    found = by_our_names(theirs)
    for name, parameter in tuning.parameters().items():
        assert difference(parameter.grad, found[name].grad) < CLOSE, name


def test_every_update_and_choice_is_that_of_peft():
    """Losses with the orthogonal term, gradients, weights and masks of a whole run, and what stays is as many as asked."""
    steps, rate = 24, 0.05
    method = AdaLoRA(rank=2, initial_rank=4, alpha=8, warmup=0.13, final=0.26, every=2, orthogonality=0.3)
    model = tiny("llama")
    tuning = method.attach(model, 0)
    settings = {"target_r": 2, "init_r": 4, "tinit": 3, "tfinal": 6, "total_step": steps, "deltaT": 2, "orth_reg_weight": 0.3}
    theirs = peft.get_peft_model(tiny("llama").network, peft.AdaLoraConfig(lora_alpha=8, target_modules="all-linear", **settings))
    found = by_our_names(theirs)
    with torch.no_grad():
        for name, parameter in tuning.parameters().items():
            found[name].copy_(parameter)
    engine, trees = toy_engine(model, tuning, layout="padded"), toy_trees(model)
    tuning.begin(steps)
    ours, other = (torch.optim.SGD(one, lr=rate) for one in (tuning.parameters().values(), found.values()))
    seen = []
    for step in range(1, steps + 1):
        theirs_loss = _peft_loss(theirs, engine.collate(trees))
        ours.zero_grad()
        engine.forward_backward([engine.collate(trees)], toy_loss)
        for parameter in tuning.parameters().values():
            parameter.grad /= engine.accumulated.count
        engine.accumulated.total = engine.accumulated.count = 0.0
        tuning.before_update()
        theirs_loss.backward()
        for name, parameter in tuning.parameters().items():
            assert difference(parameter.grad, found[name].grad) < 1e-4, (step, name)
        ours.step()
        other.step()
        tuning.after_update()
        theirs.base_model.update_and_allocate(step)
        other.zero_grad()
        for name, parameter in tuning.parameters().items():
            assert difference(parameter, found[name]) < 1e-4, (step, name)
            assert torch.equal(parameter == 0, found[name] == 0), (step, name)
        seen.append(sum(tuning.ranks().values()))
    assert seen[0] == 4 * 14
    assert seen[-1] == 2 * 14
    assert sorted(seen[3::2], reverse=True) == seen[3::2]  # at each choice; between two, what was taken away may move
    assert len(set(tuning.ranks().values())) > 1  # layers differ


def _peft_loss(network: torch.nn.Module, batch) -> torch.Tensor:
    """The mean loss at the batch's targets, with the term that PEFT adds to whatever loss a model returns."""

    class Answered:
        loss = None

    logits = network.base_model.model(input_ids=batch.tokens_BT, attention_mask=batch.mask_BT).logits
    answered = Answered()
    answered.loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1)[batch.rows_N], batch.targets_N)
    inner = network.base_model
    inner.model.forward, real = (lambda: answered), inner.model.forward
    try:
        return inner.forward().loss
    finally:
        inner.model.forward = real


def test_the_orthogonal_term_has_the_gradient_of_autograd():
    tuning = roughened(tiny("gpt2"), AdaLoRA(rank=2, initial_rank=3))
    values = [one for layer in tuning.layers.values() for one in (layer.A_RI, layer.B_OR.T)]
    term = sum(torch.norm(one @ one.T - torch.eye(3), p="fro") for one in values) / len(values)
    pairs = [(layer.A_RI, layer.B_OR) for layer in tuning.layers.values()]
    wanted = torch.autograd.grad(0.7 * term, [one for pair in pairs for one in pair])
    for pair in pairs:
        for one in pair:
            one.grad = torch.zeros_like(one)
    straighten(tuning.layers, 0.7)
    for one, gradient in zip([one for pair in pairs for one in pair], wanted, strict=True):
        assert difference(one.grad, gradient) < CLOSE


def trained(steps: int, total: int = 12, folder: Path | None = None) -> tuple[Model, AdaLoRATuning, Engine]:
    """A tuning after `steps` of `total` updates, from the checkpoint in `folder` where one is given."""
    model = tiny("llama")
    tuning = AdaLoRA(rank=2, initial_rank=4).attach(model, 0)
    engine = toy_engine(model, tuning)
    tuning.begin(total)
    if folder is not None:
        checkpoints.restore(folder, engine, Best("loss", higher_is_better=False))
    train(engine, toy_trees(model), steps)
    return model, tuning, engine


def test_a_resumed_run_goes_on_exactly(tmp_path: Path):
    """Averages, masks and the count of updates belong to the checkpoint."""
    _, whole, _ = trained(12)
    _, _, engine = trained(5)
    step = Step(5, 1.0, 0.5, 1e-2, 1.0, 1.0, 1, 0.1)
    checkpoints.save(tmp_path, step, engine, Best("loss", higher_is_better=False))
    _, resumed, _ = trained(7, folder=tmp_path)
    assert int(resumed.importance.step) == 12
    for name, parameter in whole.parameters().items():
        assert torch.equal(parameter, resumed.parameters()[name]), name
    for name, value in whole.kept().items():
        assert torch.equal(value, resumed.kept()[name]), name


def test_what_was_taken_away_is_not_written_and_peft_reads_it(tmp_path: Path):
    model, tuning, _ = trained(12)
    assert sum(tuning.ranks().values()) == 2 * len(tuning.layers)
    tuning.save(tmp_path)
    facts = json.loads((tmp_path / "adapter_config.json").read_text())
    assert {path: sum(mask) for path, mask in facts["rank_pattern"].items()} == {
        f"{path}.lora_E": count for path, count in tuning.ranks().items()
    }
    theirs = peft.PeftModel.from_pretrained(tiny("llama").network, str(tmp_path))
    wanted = outputs(model, toy_trees(model))
    assert difference(of_peft(theirs, model), wanted) < CLOSE
    again = tiny("llama")
    method_of(tmp_path).attach(again, 1).load(tmp_path)
    assert torch.equal(outputs(again, toy_trees(again)), wanted)


def test_a_layer_may_lose_all_its_ranks(tmp_path: Path):
    model = tiny("llama")
    tuning = roughened(model, AdaLoRA(rank=2, initial_rank=3))
    with torch.no_grad():
        tuning.layers["model.layers.0.self_attn.q_proj"].E_R1.zero_()
    tuning.save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny("llama").network, str(tmp_path))
    assert difference(of_peft(theirs, model), outputs(model, toy_trees(model))) < CLOSE
    again = tiny("llama")
    method_of(tmp_path).attach(again, 1).load(tmp_path)
    assert torch.equal(outputs(again, toy_trees(again)), outputs(model, toy_trees(model)))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"target_modules": ["q_proj", "not_there"]}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "lora_alpha": 3}),
        ("t5", {"target_modules": ["q", "wo"], "lora_dropout": 0.1}),
    ],
)
def test_an_adapter_made_by_peft_loads_here(family: str, settings: dict, tmp_path: Path):
    model = tiny(family)
    theirs = peft.get_peft_model(tiny(family).network, peft.AdaLoraConfig(init_r=5, target_r=3, total_step=10, **settings))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in by_our_names(theirs).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    theirs.save_pretrained(tmp_path)
    method = method_of(tmp_path)
    assert isinstance(method, AdaLoRA)
    assert (method.initial_rank, method.rank, method.dropout) == (5, 3, settings.get("lora_dropout", 0))
    method.attach(model, 0).load(tmp_path)
    assert difference(outputs(model, toy_trees(model)), of_peft(theirs, model)) < CLOSE


@pytest.mark.parametrize(
    ("settings", "where"),
    [({"rank": 8, "initial_rank": 4}, "initial_rank"), ({"warmup": 0.6, "final": 0.4}, "final"), ({"beta1": 1.0}, "beta1")],
)
def test_settings_that_cannot_be_are_refused(settings: dict, where: str):
    with pytest.raises(ConfigurationError) as found:
        build(AdaLoRA, settings)
    assert where in str(found.value)


def test_a_damaged_pattern_is_refused(tmp_path: Path):
    _, tuning, _ = trained(12)
    tuning.save(tmp_path)
    path = tmp_path / "adapter_config.json"
    facts = json.loads(path.read_text())
    name = next(name for name, mask in facts["rank_pattern"].items() if not all(mask))
    facts["rank_pattern"][name] = facts["rank_pattern"][name][:-1]
    path.write_text(json.dumps(facts))
    with pytest.raises(BaseModelError, match="rank_pattern do not fit together"):
        method_of(tmp_path).attach(tiny("llama"), 0).load(tmp_path)


def test_options_that_are_not_computed_are_refused_by_name(tmp_path: Path):
    roughened(tiny("llama"), AdaLoRA()).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "modules_to_save": ["lm_head"]}))
    with pytest.raises(BaseModelError, match="uses modules_to_save, which is not supported"):
        method_of(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("init_r", "many"), ("beta1", 2)])
def test_damaged_settings_are_refused(key: str, value: object, tmp_path: Path):
    roughened(tiny("llama"), AdaLoRA(rank=2)).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(RequestError):
        method_of(tmp_path)
