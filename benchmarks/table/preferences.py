"""B4 to B6: preference pairs (DPO), reward pairs, groups of answers (GRPO update); the prompt is computed once a tree."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks import peers
from benchmarks.asked import Asked
from benchmarks.material import base, groups, pairs, text
from benchmarks.ours import Ours, branches
from benchmarks.side_by_side import Stepper, interleave, parity, table
from tunewright.data.forest import Segment, Tree
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine
from tunewright.engine.loss import Loss, segment_sums
from tunewright.methods.lora import LoRA

BETA, PAIRS, GROUP = 0.1, 4, 8
DPO_PEERS = {
    "TRL default": {},
    "TRL tuned, online reference": {**peers.TUNED},
    "TRL tuned, online reference, bf16": {**peers.TUNED_BF16},
    "TRL tuned": {**peers.TUNED, "precompute_ref_log_probs": True},
    "TRL tuned, bf16": {**peers.TUNED_BF16, "precompute_ref_log_probs": True},
}
PLAIN_PEERS = {"TRL default": {}, "TRL tuned": peers.TUNED, "TRL tuned, bf16": peers.TUNED_BF16}


def _answers(engine: Engine, batch: Batch, differentiable: bool = True) -> Tensor:
    """log p of every segment, summed over its tokens: [S]."""
    with torch.set_grad_enabled(differentiable):
        return segment_sums(engine.token_scores(batch).log_probability_N, batch)


class Preference:
    """The DPO loss on trees of a prompt with (chosen, rejected): -log sigmoid(beta * ((c - r) - (c_ref - r_ref))).

    Args:
        cached: log-probabilities of the reference, (chosen, rejected) by row; None computes them in every step.
    """

    def __init__(self, ours: Callable[[], Ours], cached: dict[int, tuple[float, float]] | None = None) -> None:
        self.ours, self.cached = ours, cached

    def __call__(self, engine: Engine, batch: Batch) -> Loss:
        reference_S = self._reference(engine, batch)
        margin_S = _answers(engine, batch) - reference_S
        chosen, rejected = _children(batch)
        losses = -logsigmoid(BETA * (margin_S[chosen] - margin_S[rejected]))
        return Loss(losses.sum(), torch.tensor(float(len(losses))))

    def _reference(self, engine: Engine, batch: Batch) -> Tensor:
        if self.cached is None:
            with self.ours().tuning.disabled():
                return _answers(engine, batch, differentiable=False)
        found = torch.zeros(len(batch.row_S))
        for place, which in zip(_children(batch), (0, 1), strict=True):
            found[place] = torch.tensor([self.cached[row][which] for row in batch.row_S[place].tolist()])
        return found


def _children(batch: Batch) -> tuple[Tensor, Tensor]:
    """The segments that are chosen answers, and those that are rejected ones: trees are (prompt, chosen, rejected)."""
    start = torch.arange(0, len(batch.row_S), 3)
    return start + 1, start + 2


def reference(ours: Ours) -> dict[int, tuple[float, float]]:
    """The log-probabilities of every row's answers under the base."""
    found = {}
    with ours.tuning.disabled():
        for tree in ours.plan.trees:
            batch = ours.engine.collate([tree])
            scores = _answers(ours.engine, batch, differentiable=False)
            found[tree.segments[0].row] = (float(scores[1]), float(scores[2]))
    return found


def b4(asked: Asked) -> dict[str, Any]:
    """DPO with LoRA: prompts of 128 tokens, answers of 32 to 64."""
    from trl import DPOConfig, DPOTrainer

    steps = asked.repeats + 4
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        rows = pairs(asked.shape, PAIRS * steps)
        trees = [branches(prompt, [chosen, rejected], index) for index, (prompt, chosen, rejected) in enumerate(rows)]
        ours: dict[str, Ours] = {}
        for precision, name in (("float32", ""), ("bfloat16", ", bf16")):
            for cached, label in ((False, "ours, online reference"), (True, "ours")):
                key = label + name
                loss = Preference(lambda key=key: ours[key])
                ours[key] = Ours(folder, LoRA(rank=8, alpha=16), trees, loss, precision=precision, batch_size=PAIRS)
                loss.cached = reference(ours[key]) if cached else None
        start = ours["ours"].stir()
        for one in ours.values():
            one.engine.put_back(start)
        ordered = [rows[index] for index in ours["ours"].order(steps)]
        data = [{"prompt": text(p), "chosen": " " + text(c), "rejected": " " + text(r)} for p, c, r in ordered]

        def peer(settings: dict[str, Any]) -> Any:
            arguments = DPOConfig(**peers.settled(settings, PAIRS), beta=BETA)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            network = peers.network(folder)
            trainer = DPOTrainer(
                network, args=arguments, train_dataset=Dataset.from_list(data), processing_class=tokenizer, peft_config=peers.LORA
            )
            first = trainer.train_dataset[0]
            if "prompt_ids" in first and [*first["prompt_ids"], *first["chosen_ids"]] != [*ordered[0][0], *ordered[0][1]]:
                raise ValueError("TRL made other tokens of the same text")
            peers.adopt(trainer, start)
            return trainer

        first = peers.first_step(peer({**peers.TUNED, "logging_steps": 1}), asked.threads)
        same = parity(ours["ours, online reference"].first(), first)
        cached_same = parity(ours["ours"].first(), first)
        steppers = {name: Stepper(peer(settings), asked.threads) for name, settings in DPO_PEERS.items()}
        timings = interleave({name: one.step for name, one in (ours | steppers).items()}, asked.repeats)
        for stepper in steppers.values():
            stepper.close()
    wall = {name: timing.median()["wall"] for name, timing in timings.items()}
    chosen = min(("ours", "ours, bf16"), key=wall.__getitem__)
    found, plain = table(timings, chosen, list(DPO_PEERS)), table(timings, "ours", list(DPO_PEERS))["ratios"]
    ratios = found["ratios"]
    return {
        "parity": same | {"cached": cached_same},
        "ours": chosen,
        "ratio_default": ratios["TRL default"],
        "ratio_tuned": min(ratios["TRL tuned"], ratios["TRL tuned, bf16"]),
        "ratio_tuned_online": min(ratios["TRL tuned, online reference"], ratios["TRL tuned, online reference, bf16"]),
        "ratio_float32": plain,
        "ours_seconds": found["seconds"][chosen],
        "peer_seconds": {name: found["seconds"][name] for name in DPO_PEERS},
        "all_seconds": found["seconds"],
        "peer_settings": DPO_PEERS,
    }


class Scored:
    """The pairwise reward loss, -log sigmoid(r(chosen) - r(rejected)); r is a linear read-out of each answer's last token."""

    def __init__(self, width: int) -> None:
        self.weight_D = nn.Parameter(torch.randn(width, generator=torch.Generator().manual_seed(0)) * 0.02)

    def __call__(self, engine: Engine, batch: Batch) -> Loss:
        chosen, rejected = _children(batch)
        ends = batch.spans_S2[torch.cat([chosen, rejected]), 1] - 1
        with engine.autocast():
            hidden_SD = engine.hidden_at(batch, ends)
        chosen_P, rejected_P = (hidden_SD.float() @ self.weight_D).chunk(2)
        losses = -logsigmoid(chosen_P - rejected_P)
        return Loss(losses.sum(), torch.tensor(float(len(losses))))


def b5(asked: Asked) -> dict[str, Any]:
    """A reward model with LoRA and a scalar head, on the pairs of B4."""
    from peft import LoraConfig
    from trl import RewardConfig, RewardTrainer

    lora = LoraConfig(
        r=8, lora_alpha=16, target_modules="all-linear", lora_dropout=0.0, task_type="SEQ_CLS", modules_to_save=["score"]
    )
    steps = asked.repeats + 4
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        rows = pairs(asked.shape, PAIRS * steps)
        plain = [branches(prompt, [chosen, rejected], index) for index, (prompt, chosen, rejected) in enumerate(rows)]
        # A reward has no target tokens: the segments are only read.
        trees = [Tree(tuple(Segment(one.tokens, one.parent, row=one.row) for one in tree.segments)) for tree in plain]
        ours: dict[str, Ours] = {}
        for precision, name in (("float32", "ours"), ("bfloat16", "ours, bf16")):
            one = Ours(folder, LoRA(rank=8, alpha=16), trees, precision=precision, batch_size=PAIRS)
            one.use_loss(loss := Scored(one.model.width), {"score.weight": loss.weight_D})
            ours[name] = one
        start = ours["ours"].stir()
        for one in ours.values():
            one.engine.put_back(start)
        ordered = [rows[index] for index in ours["ours"].order(steps)]
        data = [{"chosen_ids": p + c, "rejected_ids": p + r} for p, c, r in ordered]

        def peer(settings: dict[str, Any]) -> Any:
            network = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
            trainer = RewardTrainer(
                network,
                args=RewardConfig(**peers.settled(settings, PAIRS)),
                train_dataset=Dataset.from_list(data),
                processing_class=AutoTokenizer.from_pretrained(folder),
                peft_config=lora,
            )
            peers.adopt(trainer, start | {"score.weight": start["score.weight"][None]})
            return trainer

        loss, gradients = peers.first_step(peer({**peers.TUNED, "logging_steps": 1}), asked.threads)
        gradients = {name: one.flatten() if name == "score.weight" else one for name, one in gradients.items()}
        same = parity(ours["ours"].first(), (loss, gradients))
        steppers = {name: Stepper(peer(settings), asked.threads) for name, settings in PLAIN_PEERS.items()}
        timings = interleave({name: one.step for name, one in (ours | steppers).items()}, asked.repeats)
        for stepper in steppers.values():
            stepper.close()
    return _line(timings, same)


def _line(timings: dict[str, Any], same: dict[str, Any]) -> dict[str, Any]:
    chosen = min(("ours", "ours, bf16"), key=lambda name: timings[name].median()["wall"])
    found, plain = table(timings, chosen, list(PLAIN_PEERS)), table(timings, "ours", list(PLAIN_PEERS))["ratios"]
    return {
        "parity": same,
        "ours": chosen,
        "ratio_default": found["ratios"]["TRL default"],
        "ratio_tuned": min(found["ratios"]["TRL tuned"], found["ratios"]["TRL tuned, bf16"]),
        "ratio_float32": plain,
        "ours_seconds": found["seconds"][chosen],
        "peer_seconds": {name: found["seconds"][name] for name in PLAIN_PEERS},
        "all_seconds": found["seconds"],
        "peer_settings": PLAIN_PEERS,
    }


class Policy:
    """The GRPO update on given answers: -sum exp(log p - log p_old) A over tokens, p_old = p (the first update of a group)."""

    def __init__(self, advantages: dict[int, list[float]]) -> None:
        self.advantages = advantages

    def __call__(self, engine: Engine, batch: Batch) -> Loss:
        log_N = engine.token_scores(batch).log_probability_N
        roots_T = torch.cat([torch.tensor([0.0, *self.advantages[int(row)]]) for row in batch.row_S[:: GROUP + 1]])
        ratio_N = torch.exp(log_N - log_N.detach())
        return Loss(-(ratio_N * roots_T[batch.owners_N]).sum(), torch.tensor(float(len(log_N))))


def b6(asked: Asked) -> dict[str, Any]:
    """The update of GRPO: groups of 8 given answers of 48 tokens to prompts of 192."""
    from trl import GRPOConfig, GRPOTrainer

    steps = asked.repeats + 4
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        rows = groups(asked.shape, steps, GROUP)
        draw = torch.Generator().manual_seed(0)
        advantages = {index: torch.randn(GROUP, generator=draw).tolist() for index in range(len(rows))}
        trees = [branches(prompt, answers, index) for index, (prompt, answers) in enumerate(rows)]
        ours = {
            name: Ours(folder, LoRA(rank=8, alpha=16), trees, Policy(advantages), precision=precision, batch_size=1)
            for precision, name in (("float32", "ours"), ("bfloat16", "ours, bf16"))
        }
        start = ours["ours"].stir()
        for one in ours.values():
            one.engine.put_back(start)
        order = ours["ours"].order(steps)

        class Given(GRPOTrainer):
            """TRL's trainer with answers and advantages that are given; everything after the rollout is its own."""

            taken = 0

            def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
                which = order[self.taken]
                self.taken += 1
                prompt, answers = rows[which]
                answers_GC = torch.tensor(answers)
                return {
                    "prompt_ids": torch.tensor([prompt] * GROUP),
                    "prompt_mask": torch.ones(GROUP, len(prompt), dtype=torch.long),
                    "completion_ids": answers_GC,
                    "completion_mask": torch.ones_like(answers_GC),
                    "advantages": torch.tensor(advantages[which]),
                    "num_items_in_batch": torch.tensor(answers_GC.numel()),
                }

        def peer(settings: dict[str, Any]) -> Any:
            quiet = peers.settled(settings, GROUP)
            quiet.pop("max_length")
            quiet.pop("train_sampling_strategy")
            arguments = GRPOConfig(
                **quiet, num_generations=GROUP, max_completion_length=48, steps_per_generation=1, shuffle_dataset=False
            )
            trainer = Given(
                peers.network(folder),
                reward_funcs=lambda completions, **_: [0.0] * len(completions),
                args=arguments,
                train_dataset=Dataset.from_list([{"prompt": text(prompt)} for prompt, _ in rows]),
                processing_class=AutoTokenizer.from_pretrained(folder),
                peft_config=peers.LORA,
            )
            peers.adopt(trainer, start)
            return trainer

        same = parity(ours["ours"].first(), peers.first_step(peer({**peers.TUNED, "logging_steps": 1}), asked.threads))
        steppers = {name: Stepper(peer(settings), asked.threads) for name, settings in PLAIN_PEERS.items()}
        timings = interleave({name: one.step for name, one in (ours | steppers).items()}, asked.repeats)
        for stepper in steppers.values():
            stepper.close()
    return _line(timings, same)
