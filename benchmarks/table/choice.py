"""B10: multiple-choice questions behind a few-shot prefix: the log-probability of each of four options."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.asked import Asked
from benchmarks.material import base, text, tokens
from benchmarks.side_by_side import interleave, table
from tunewright.engine.engine import Engine
from tunewright.engine.fused import fuse
from tunewright.engine.probe import probe
from tunewright.engine.scoring import score_continuations
from tunewright.models.loading import load_folder

SHOTS, QUESTION, OPTION, OPTIONS, QUESTIONS = 300, 40, 8, 4, 6


def b10(asked: Asked) -> dict[str, Any]:
    """Options of 8 tokens, and of one (letters), whose contexts lm-eval computes once; the sums must agree within 1e-3."""
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        lines = {length: _length(asked, folder, length) for length in (OPTION, 1)}
    main = lines[OPTION]
    return {
        "parity": {
            "passed": all(line["difference"] <= 1e-3 for line in lines.values()),
            "reason": "the same log-probabilities within 1e-3",
            "differences": [one["difference"] for one in lines.values()],
        },
        "ratio_default": main["ratios"]["lm-eval"],
        "ratio_tuned": main["ratios"]["lm-eval, batches of 8"],
        "ratio_letters": lines[1]["ratios"],
        "ours_seconds": main["seconds"]["ours"],
        "peer_seconds": {name: main["seconds"][name] for name in ("lm-eval", "lm-eval, batches of 8")},
        "all_seconds": {str(length): line["seconds"] for length, line in lines.items()},
        "peer_settings": {"lm-eval": {"batch_size": 1}, "lm-eval, batches of 8": {"batch_size": 8}, "precision": "float32"},
    }


def _length(asked: Asked, folder: Path, length: int) -> dict[str, Any]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    draw = random.Random(length)
    shots = tokens(draw, asked.shape, SHOTS)
    prompts = [shots + tokens(draw, asked.shape, QUESTION) for _ in range(QUESTIONS)]
    options = [[tokens(draw, asked.shape, length) for _ in range(OPTIONS)] for _ in prompts]
    model = load_folder(folder)
    fuse(model.network)
    engine = Engine(model, probed=probe(model))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    evaluators = {
        name: HFLM(pretrained=peers.network(folder).eval(), tokenizer=tokenizer, batch_size=size, device="cpu")
        for name, size in (("lm-eval", 1), ("lm-eval, batches of 8", 8))
    }
    asks = [
        Instance("loglikelihood", {}, (text(prompt), " " + text(option)), number)
        for number, (prompt, choices) in enumerate(zip(prompts, options, strict=True))
        for option in choices
    ]

    def ours() -> list[float]:
        return [one.log_probability for found in score_continuations(engine, prompts, options) for one in found]

    def theirs(name: str) -> list[float]:
        return [total for total, _ in evaluators[name].loglikelihood(asks, disable_tqdm=True)]

    difference = max(abs(one - other) for one, other in zip(ours(), theirs("lm-eval"), strict=True))
    work = {"ours": ours} | {name: lambda name=name: theirs(name) for name in evaluators}
    return {"difference": difference, **table(interleave(work, asked.repeats, warm_up=1), "ours", list(evaluators))}
