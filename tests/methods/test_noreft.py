from tunewright.methods._reft import Positions
from tunewright.methods.noreft import NoReFT
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract


class TestNoReFT(MethodContract):
    method = NoReFT(rank=4, positions=Positions(first=2, last=3), share=False)
    families = ("llama", "gpt2", "bert", "t5")
    everywhere = ("gemma2", "phi", "roberta", "bart")
    misspelt = (NoReFT(blocks=(4,)), NoReFT(blocks=(0, -3)))
    merges = False

    def expected_count(self, model: Model) -> int:
        blocks = len(model.blocks) // (2 if model.kind == "encoder_decoder" else 1)
        ends = 2 * blocks - (model.kind == "decoder")  # nothing reads the beginning of a prompt behind a decoder's last block
        return ends * 4 * (2 * model.width + 1)
