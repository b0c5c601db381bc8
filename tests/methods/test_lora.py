from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5")


def outputs_and_inputs(model: Model, *targets: str) -> int:
    return sum(sum(module.weight.shape) for module in model.sites(*targets).values())


class TestLoRA(MethodContract):
    method = LoRA(rank=4)
    families = FAMILIES
    misspelt = (LoRA(targets=("atention.query",)), LoRA(targets=("linear", "q_porj")))

    def expected_count(self, model: Model) -> int:
        return 4 * outputs_and_inputs(model, "linear")
