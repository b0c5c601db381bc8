"""The self-test: what Tunewright promises, tried out on this machine with the libraries that are installed, in seconds.

It tunes a tiny model in a temporary folder and compares: reloaded = saved, resumed = uninterrupted, merged = attached, the same
in PEFT, cached = uncached, packed = alone, cut = whole. Everything runs on the CPU, so that equal bits can be asked for.

What this does not cover: large models, GPUs, other families than the tiny Llama. The test suite has those.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tunewright.core.configuration import build
from tunewright.core.errors import Interrupted, TunewrightError
from tunewright.core.narrator import Narrator
from tunewright.core.storage import write_text
from tunewright.engine.engine import Engine
from tunewright.engine.fused import fuse
from tunewright.engine.sampling import sample
from tunewright.engine.settings import Sampling
from tunewright.evaluation.opening import Opened, open_model
from tunewright.finetune import Result, Run, finetune, resume
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.models.loading import quiet
from tunewright.testing.tiny import save_tiny, tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_loss, toy_trees

CLOSE = 1e-5  # of the largest value: another order of the same sums
STEPS = 8
# Whatever a broken stack may raise; a check catches it and reports it. Interrupts pass.
_FAILURES = (
    *(TunewrightError, SafetensorError, ArithmeticError, AssertionError, AttributeError, BufferError, ImportError, LookupError),
    *(MemoryError, NameError, OSError, RuntimeError, TypeError, ValueError, StopIteration),
)


class Check(NamedTuple):
    """One promise: whether it holds here, how far the two sides were apart, in words, and the seconds it took.

    `difference` is relative to the largest value; None where nothing could be compared.
    """

    name: str
    passed: bool
    difference: float | None
    detail: str
    seconds: float


class Finding(NamedTuple):
    """What a check found: the difference, the most that is allowed, and a sentence."""

    difference: float
    limit: float
    detail: str


def run(narrator: Narrator) -> list[Check]:
    """Try every promise; a failure is a check that did not pass, never an exception.

    Args:
        narrator: hears each check as it ends.
    """
    narrator.stage("Self-test")
    found: list[Check] = []
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="tunewright-selftest-") as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about themselves; what is wrong shows in the numbers
        torch.set_num_threads(1)
        bench = _Bench(Path(place))
        for name, check in bench.checks.items():
            found.append(_carried_out(name, check))
            narrator.progress(len(found), len(bench.checks), {"check": name, "passed": found[-1].passed})
            (narrator.say if found[-1].passed else narrator.warn)(f"{name}: {found[-1].detail}")
    torch.set_num_threads(threads)  # runs on a tiny model take one
    return found


def _carried_out(name: str, check: Callable[[], Finding]) -> Check:
    began = time.perf_counter()
    try:
        apart, limit, detail = check()
    except _FAILURES as error:
        return Check(name, False, None, f"{type(error).__name__}: {str(error)[:300]}", time.perf_counter() - began)
    passed = apart <= limit  # False for NaN as well
    detail = detail if passed else f"does not hold, apart by {apart:.1e}: {detail}"
    return Check(name, passed, apart if math.isfinite(apart) else None, detail, time.perf_counter() - began)


class _Bench:
    """A temporary folder with a tiny base, one finished run, and the checks on them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.checks: dict[str, Callable[[], Finding]] = {
            "tune": self.tunes,
            "reload": self.reloaded_is_saved,
            "resume": self.resumed_is_uninterrupted,
            "merge": self.merged_is_attached,
            "peft": self.same_in_peft,
            "cache": self.cached_is_uncached,
            "pack": self.packed_is_alone,
            "accumulate": self.cut_is_whole,
        }

    def _described(self, name: str) -> Run:
        base, rows = self.place / "base", self.place / "rows.jsonl"
        if not base.exists():
            save_tiny("llama", base)
            draw = random.Random(0)
            words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(24)]
            write_text(rows, "".join(f'{{"prompt": "spell {word}", "completion": "{word[0]} {word[1]}"}}\n' for word in words))
        settings = {
            "data": {"train": str(rows), "validation_share": 0.2, "test_share": 0.2},
            "base": str(base),
            "method": {"name": "lora", "rank": 4, "dropout": 0.1},
            "training": {"max_steps": STEPS, "batch_size": 6, "learning_rate": 0.01, "validate_every": 3, "precision": "float32"},
            "evaluation": {"metrics": ["exact_match"], "written": 1, "sampling": {"max_new_tokens": 2}},
            "device": "cpu",
            "threads": 1,
            "name": name,
            "folder": str(self.place / "runs"),
        }
        return build(Run, settings)

    @cached_property
    def folder(self) -> Path:
        """The finished run that most checks look at."""
        return self.finished.folder

    @cached_property
    def finished(self) -> Result:
        """From rows to report, undisturbed."""
        return finetune(self._described("whole"))

    @cached_property
    def opened(self) -> Opened:
        """The run as `evaluate`, `chat` and `serve` open it."""
        return open_model(str(self.folder))

    def tunes(self) -> Finding:
        curve = self.finished.report.curves.train_loss.values
        detail = f"{len(curve)} steps from rows to report; the loss went from {curve[0]:.2f} to {curve[-1]:.2f}"
        return Finding(0.0 if curve[-1] < 0.95 * curve[0] else math.inf, 0.0, detail)

    def reloaded_is_saved(self) -> Finding:
        newest = max((self.folder / "checkpoints").glob("step-*"))
        attached = tiny("llama")
        fuse(attached.network)  # as every base is that is opened; the same products in the same order
        kept = LoRA(rank=4).attach(attached, 0).parameters()
        with torch.no_grad():
            for name, value in load_file(newest / "best.safetensors").items():
                kept[name].copy_(value)
        apart = difference(self._outputs(), outputs(attached, toy_trees(attached)))
        return Finding(apart, 0.0, "the saved adapter gives the logits of the weights that were tuned")

    def resumed_is_uninterrupted(self) -> Finding:
        described, seen = self._described("stopped"), iter(range(1, STEPS + 1))
        try:
            finetune(described, stop_asked=lambda: next(seen) == 4)
        except Interrupted:
            resume(described.folder / "stopped")
        one, other = (
            load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (self.folder, described.folder / "stopped")
        )
        apart = max(float((one[name] - other[name]).abs().max()) for name in one)
        return Finding(apart, 0.0, f"stopped after step 4 and resumed: the same bits in {len(one)} tensors")

    def merged_is_attached(self) -> Finding:
        wanted, opened = self._outputs(), open_model(str(self.folder))
        assert opened.tuning is not None
        opened.tuning.merge()
        place = self.place / "merged"
        with quiet():
            opened.model.network.save_pretrained(place)
            opened.model.tokenizer.save_pretrained(place)
        apart = difference(outputs(open_model(str(place)).model, toy_trees(opened.model)), wanted)
        return Finding(apart, CLOSE, "the merged model, saved and loaded, gives the logits of base and adapter")

    def same_in_peft(self) -> Finding:
        import peft

        base = tiny("llama")
        network = peft.PeftModel.from_pretrained(base.network, str(self.folder / "adapter")).base_model.model
        theirs = outputs(Model(network, base.tokenizer, base.kind, base.family, "", None, ""), toy_trees(base))
        return Finding(
            difference(theirs, self._outputs()), CLOSE, f"peft {peft.__version__} reads the adapter and gives the same logits"
        )

    def cached_is_uncached(self) -> Finding:
        engine = self.opened.engine
        prompts = [tree.segments[0].tokens for tree in toy_trees(engine.model, 5, seed=1)]
        different = 0
        for settings in (Sampling(max_new_tokens=12), Sampling(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=1)):
            one, other = (sample(engine, prompts, settings, ends=frozenset({2}), cache=cache) for cache in (True, False))
            different += sum(first != second for first, second in zip(one, other, strict=True))
        return Finding(float(different), 0.0, f"{2 * len(prompts)} answers with and without a key-value cache: the same tokens")

    def packed_is_alone(self) -> Finding:
        engine, probed = self.opened.engine, self.opened.probed
        trees = toy_trees(engine.model, 6, seed=2)
        packed, alone = engine.score(trees)[0], torch.cat([engine.score([tree])[0] for tree in trees])
        if probed.layout != "forest":
            return Finding(float("inf"), CLOSE, f"rows cannot be packed here ({probed.reason})")
        return Finding(difference(packed, alone), CLOSE, "rows packed into one pass give the losses of rows alone")

    def cut_is_whole(self) -> Finding:
        gradients = []
        for parts in (1, 3):
            model = tiny("llama")
            engine: Engine = toy_engine(model, LoRA(rank=4).attach(model, 0))
            trees = toy_trees(model, 6)
            size = len(trees) // parts
            engine.forward_backward([engine.collate(trees[start : start + size]) for start in range(0, len(trees), size)], toy_loss)
            counted = engine.accumulated.count
            gradients.append(
                torch.cat([one.grad.flatten() for one in engine.parameters.values() if one.grad is not None]) / counted
            )
        return Finding(difference(*gradients), CLOSE, "a step cut into three passes has the gradients of one pass")

    def _outputs(self) -> torch.Tensor:
        model = self.opened.model
        return outputs(model, toy_trees(model))
