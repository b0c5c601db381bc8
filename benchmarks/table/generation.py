"""B9: eight samples a prompt, against transformers' `generate` with `num_return_sequences=8`."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import peers
from benchmarks.asked import Asked
from benchmarks.material import PAD, SHAPES, base, tokens
from benchmarks.side_by_side import interleave, table
from tunewright.engine.engine import Engine
from tunewright.engine.fused import fuse
from tunewright.engine.probe import probe
from tunewright.engine.sampling import sample_groups
from tunewright.engine.settings import Sampling
from tunewright.models.loading import load_folder

PROMPT, NEW, SAMPLES, PROMPTS = 256, 64, 8, 2
ENDS_SHARE = 0.02  # of the vocabulary ends an answer, so that samples stop at lengths of their own, 40 tokens in the middle


def b9(asked: Asked) -> dict[str, Any]:
    """Greedy answers must be the same tokens; then samples at temperature 1 are timed, by seconds a token that was asked for."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        prompts = [tokens(draw, asked.shape, PROMPT) for _ in range(PROMPTS)]
        ends = frozenset(
            draw.sample(range(2, SHAPES[asked.shape]["vocabulary"]), int(ENDS_SHARE * SHAPES[asked.shape]["vocabulary"]))
        )
        model = load_folder(folder)
        fuse(model.network)
        engine = Engine(model, probed=probe(model))
        network = peers.network(folder).eval()
        inputs = torch.tensor(prompts)
        written = {"ours": [0, 0.0], "transformers": [0, 0.0]}

        def ours(temperature: float, seed: int) -> list[tuple[int, ...]]:
            settings = Sampling(max_new_tokens=NEW, temperature=temperature, seed=seed)
            found = sample_groups(engine, prompts, settings, ends=ends, samples=SAMPLES)
            return [one.tokens for answers in found for one in answers]

        def theirs(temperature: float, seed: int) -> list[tuple[int, ...]]:
            torch.manual_seed(seed)
            drawn = (
                {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
            )
            copies = inputs if temperature else inputs.repeat_interleave(SAMPLES, 0)
            drawn |= {"num_return_sequences": SAMPLES} if temperature else {}
            with torch.no_grad():
                out = network.generate(
                    copies,
                    attention_mask=torch.ones_like(copies),
                    max_new_tokens=NEW,
                    eos_token_id=sorted(ends),
                    pad_token_id=PAD,
                    **drawn,
                )
            return [_until(row.tolist(), ends) for row in out[:, PROMPT:]]

        same = ours(0.0, 0) == theirs(0.0, 0)
        seeds = {"ours": 0, "transformers": 0}

        def timed(name: str, work: Any) -> Any:
            def run() -> None:
                seeds[name] += 1
                found = work(1.0, seeds[name])
                written[name][0] += sum(len(one) + 1 for one in found)

            return run

        timings = interleave({"ours": timed("ours", ours), "transformers": timed("transformers", theirs)}, asked.repeats, warm_up=0)
        greedy = interleave({"ours": lambda: ours(0.0, 0), "transformers": lambda: theirs(0.0, 0)}, asked.repeats, warm_up=1)
    rates = {name: written[name][0] / sum(timings[name].wall) for name in timings}
    greedy_found = table(greedy, "ours", ["transformers"])
    return {
        "parity": {"passed": same, "reason": "greedy answers are the same tokens" if same else "greedy answers differ"},
        "ratio_default": None,
        "ratio_tuned": round(rates["ours"] / rates["transformers"], 2),
        "ratio_greedy": greedy_found["ratios"]["transformers"],
        "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ours_seconds": timings["ours"].median(),
        "peer_seconds": timings["transformers"].median(),
        "peer_settings": {
            "num_return_sequences": SAMPLES,
            "max_new_tokens": NEW,
            "precision": "float32",
            "cache": "dynamic (default)",
        },
    }


def _until(ids: list[int], ends: frozenset[int]) -> tuple[int, ...]:
    """The tokens before the first that ends an answer."""
    for place, token in enumerate(ids):
        if token in ends:
            return tuple(ids[:place])
    return tuple(ids)
