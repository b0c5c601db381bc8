from tunewright.methods._reft import Positions
from tunewright.methods.loreft import LoReFT
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract


class TestLoReFT(MethodContract):
    method = LoReFT(rank=4, positions=Positions(first=2, last=3), share=False)
    families = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5", "olmo2")
    misspelt = (LoReFT(blocks=(4,)), LoReFT(blocks=(0, -3)))
    merges = False

    def expected_count(self, model: Model) -> int:
        blocks = len(model.blocks) // (2 if model.kind == "encoder_decoder" else 1)
        ends = 2 * blocks - (model.kind == "decoder")  # nothing reads the beginning of a prompt behind a decoder's last block
        return ends * 4 * (2 * model.width + 1)
