"""Three reports as real runs would leave them: 77 labels, three labels, and free text."""

import math
import random

import pytest

from tunewright.evaluation.report.schema import (
    ConfusionTables,
    Cost,
    Curves,
    Data,
    Environment,
    Finding,
    Lengths,
    Measure,
    Report,
    Rows,
    Series,
    Settings,
    ShownRow,
    Subject,
    Targets,
)
from tunewright.evaluation.report.verdict import judge
from tunewright.metrics import room
from tunewright.metrics.statistics.confusion import confusion, label_order
from tunewright.metrics.statistics.intervals import mean_score, score
from tunewright.metrics.statistics.paired import compare, compare_means

TOPICS = ["card", "transfer", "top up", "cash", "refund", "identity", "exchange rate", "direct debit", "pin", "app", "country"]
TROUBLES = ["not working", "pending", "declined", "charged twice", "limit", "fee", "how to"]
LABELS_77 = [f"{topic} {trouble}" for topic in TOPICS for trouble in TROUBLES]


def answered(references, labels, share, seed):
    """Answers right with probability `share`, else a label near the right one."""
    draw = random.Random(seed)
    places = {label: place for place, label in enumerate(labels)}
    return [
        text if draw.random() < share else labels[(places[text] + draw.choice([1, 1, 1, 7, 2])) % len(labels)]
        for text in references
    ]


def measure(name, base, tuned, references, split="test"):
    metric = room[name]()
    return Measure(
        metric=name,
        title=metric.title,
        split=split,
        base=score(metric, base, references),
        tuned=score(metric, tuned, references),
        difference=compare(metric, base, tuned, references),
        higher_is_better=metric.higher_is_better,
        percent=metric.percent,
    )


def general_loss(shift):
    draw = random.Random(5)
    base = [draw.gauss(2.9, 0.5) for _ in range(200)]
    tuned = [value + draw.gauss(shift, 0.06) for value in base]
    weights = [draw.randint(40, 200) for _ in base]
    return Measure(
        metric="loss",
        title="Loss a token",
        split="general text",
        role="retention",
        base=mean_score(base, weights),
        tuned=mean_score(tuned, weights),
        difference=compare_means(base, tuned, weights),
        higher_is_better=False,
        percent=False,
    )


def curves(steps, start, floor, overfit=False, title="Macro F1"):
    draw = random.Random(9)
    train = [floor + (start - floor) * math.exp(-4.5 * at / steps) + draw.gauss(0, 0.05) * start for at in range(steps)]
    at = list(range(0, steps + 1, max(1, steps // 10)))
    rise = [0.35 * start * max(0, step / steps - 0.5) if overfit else 0 for step in at]
    loss = [floor + 0.05 + (start - floor) * math.exp(-5 * step / steps) + up for step, up in zip(at, rise, strict=True)]
    good = [0.93 - 0.9 * math.exp(-6 * step / steps) for step in at]
    warm = max(1, steps // 20)
    rate = [2e-4 * min(1, step / warm) * (1 - step / steps) for step in range(steps)]
    norm = [0.6 + 2 * math.exp(-8 * step / steps) + abs(draw.gauss(0, 0.15)) for step in range(steps)]
    return Curves(
        train_loss=Series(title="Training loss", steps=range(1, steps + 1), values=[max(value, 0.01) for value in train]),
        validation=(
            Series(title="Validation loss", steps=at, values=loss),
            Series(title=title, steps=at, values=good, higher_is_better=True, percent=True),
        ),
        learning_rate=Series(title="Learning rate", steps=range(1, steps + 1), values=rate),
        gradient_norm=Series(title="Gradient norm", steps=range(1, steps + 1), values=norm),
        kept_step=at[5] if overfit else at[-2],
    )


def settings():
    return Settings(
        values={
            "base": "Qwen/Qwen3-0.6B",
            "method": {"name": "lora", "rank": 16, "alpha": 32.0, "dropout": 0.0, "targets": ["attention.*", "feed_forward.*"]},
            "objective": {"name": "classification"},
            "training": {"learning_rate": 2e-4, "tokens_per_step": 8192, "epochs": 3, "stop_after": None, "seed": 0},
        },
        reasons={
            "training.learning_rate": "the usual rate for LoRA of rank 16 on a base of this size",
            "training.tokens_per_step": "the largest that fits the 4.1 GB of free memory with 15 % to spare",
            "training.epochs": "8,016 rows: three passes, stopped early when validation does not improve twice",
        },
    )


def environment():
    return Environment(
        machine={"processor": "2 x Intel Xeon", "memory": "8 GB", "system": "Linux 6.8, Python 3.11"},
        versions={"tunewright": "0.1.0", "torch": "2.9.0", "transformers": "5.10.1"},
        hashes={"data": "6b1f0c" * 10, "base": "09ad3e" * 10, "code": "f00dfeed"},
    )


def many_labels():
    draw = random.Random(2)
    references = [draw.choice(LABELS_77) for _ in range(3080)]
    base, tuned = ["top up fee"] * 3080, answered(references, LABELS_77, 0.925, 3)
    base = [text if draw.random() < 0.98 else draw.choice(LABELS_77) for text in base]
    measures = (measure("accuracy", base, tuned, references), measure("macro_f1", base, tuned, references), general_loss(0.004))
    order = label_order(references, base, tuned)
    splits = {"train": 8016, "validation": 1002, "test": 3080}
    weights = [draw.paretovariate(2.2) for _ in LABELS_77]
    labels = {
        split: {label: max(1, round(count * weight / sum(weights))) for label, weight in zip(LABELS_77, weights, strict=True)}
        for split, count in splits.items()
    }
    note = "the majority label: the base has no classification head to ask"
    found = curves(940, 4.3, 0.2)
    return Report(
        name="banking-intents",
        created="2026-11-20T19:20:00",
        verdict=judge(measures, found, note),
        subject=Subject(
            base="Qwen/Qwen3-0.6B",
            base_description="decoder, 596 M parameters, bf16",
            method="lora",
            method_description="rank 16 on attention and feed-forward",
            objective="classification",
            task="classification",
        ),
        measures=measures,
        baseline_note=note,
        curves=found,
        data=Data(
            source="banking77/train.csv",
            shape="text and label",
            read=10142,
            kept=10098,
            splits=splits,
            dropped=(
                Finding(name="empty text", count=3, examples=("train.csv:811", "train.csv:2044")),
                Finding(name="same text, two labels", count=12, examples=("train.csv:88 “My card is not working”: card declined",)),
            ),
            duplicates=(
                Finding(name="exact", count=21, action="kept once", examples=("train.csv:90 “where is my card”",)),
                Finding(name="near (Jaccard 0.9)", count=8, action="kept in one split"),
            ),
            leakage=(Finding(name="test rows also in training", count=0),),
            labels=labels,
            lengths={split: Lengths(shortest=4, median=14, percentile_95=38, longest=91) for split in splits},
        ),
        targets=Targets(
            rows=8016,
            tokens=131_404,
            trained_tokens=8016,
            truncated_rows=0,
            packing_efficiency=0.987,
            layout="forest",
            layout_reason="the probe agreed within tolerance",
            probe_difference=3.1e-06,
        ),
        rows=Rows(
            worst=(
                ShownRow(
                    prompt="I was charged twice for the same coffee, what now?",
                    reference="card charged twice",
                    base_answer="top up fee",
                    tuned_answer="card limit",
                    where="test.csv:210",
                    score=0.03,
                ),
                ShownRow(
                    prompt="Why has my transfer still not arrived after three days?",
                    reference="transfer pending",
                    base_answer="top up fee",
                    tuned_answer="transfer declined",
                    where="test.csv:1734",
                    score=0.08,
                ),
            ),
            best=(
                ShownRow(
                    prompt="How do I change my PIN?",
                    reference="pin how to",
                    base_answer="top up fee",
                    tuned_answer="pin how to",
                    where="test.csv:9",
                    score=0.999,
                ),
            ),
            measured_by="probability of the reference",
        ),
        confusion=ConfusionTables(
            labels=order, base=confusion(base, references, order).matrix, tuned=confusion(tuned, references, order).matrix
        ),
        settings=settings(),
        environment=environment(),
        cost=Cost(
            stages={
                "read and check": 1.9,
                "load the base": 6.4,
                "measure the base": 41.0,
                "tune": 711.0,
                "test": 48.0,
                "report": 2.2,
            },
            tokens=394_212,
            tokens_per_second=554.0,
            peak_memory=3_120_000_000,
            estimated_memory=3_400_000_000,
            trainable_parameters=10_092_544,
            total_parameters=606_142_464,
        ),
        warnings=("12 texts carry two different labels; the test set holds such texts too, so 100 % cannot be reached.",),
    )


def three_labels():
    draw = random.Random(4)
    names = ["negative", "neutral", "positive"]
    references = [draw.choices(names, [3, 5, 2])[0] for _ in range(64)]
    base, tuned = answered(references, names, 0.78, 5), answered(references, names, 0.82, 6)
    measures = (measure("accuracy", base, tuned, references), measure("macro_f1", base, tuned, references))
    order = label_order(references, base, tuned)
    found = curves(120, 1.1, 0.1, overfit=True, title="Accuracy")
    labels = {"train": {"negative": 150, "neutral": 260, "positive": 102}, "test": {"negative": 19, "neutral": 33, "positive": 12}}
    return many_labels().model_copy(
        update={
            "name": "review-mood",
            "verdict": judge(measures, found),
            "measures": measures,
            "baseline_note": "",
            "curves": found,
            "confusion": ConfusionTables(
                labels=order, base=confusion(base, references, order).matrix, tuned=confusion(tuned, references, order).matrix
            ),
            "data": Data(
                source="reviews.jsonl", shape="text and label", read=600, kept=576, splits={"train": 512, "test": 64}, labels=labels
            ),
            "warnings": (),
        }
    )


PARAGRAPH = (
    "The council of the river town voted on Tuesday to restore the seven mills that once lined its banks. Work is to begin in "
    "spring and to be paid for by a levy on visitors, which innkeepers oppose. The mayor called the vote a turning point."
)


def free_text():
    draw = random.Random(8)
    words = PARAGRAPH.split()
    references = [" ".join(draw.sample(words, 16)) for _ in range(250)]
    base = [" ".join(word if draw.random() < 0.4 else draw.choice(words) for word in text.split()) for text in references]
    tuned = [" ".join(word if draw.random() < 0.55 else draw.choice(words) for word in text.split()) for text in references]
    measures = tuple(measure(name, base, tuned, references) for name in ("rouge_l", "rouge1", "rouge2", "chrf", "exact_match"))
    shown = ShownRow(
        prompt=f"Summarise in one sentence:\n\n{PARAGRAPH * 3}",
        reference="The town will restore its mills from spring, paid for by a levy on visitors.",
        base_answer="The council of the river town voted on Tuesday. The council of the river town voted on Tuesday. The council",
        tuned_answer="Seven mills are to be restored from spring with money from visitors.",
        where="articles.jsonl:118",
        score=0.41,
    )
    hostile = ShownRow(
        prompt="</title><script>alert(1)</script> اكتب جملة واحدة",
        reference="",
        tuned_answer='"><img src=x onerror=alert(2)>',
        where="a:1",
    )
    return many_labels().model_copy(
        update={
            "name": "news-summaries",
            "subject": Subject(
                base="embedded", base_description="decoder, 3.7 M parameters", method="lora", objective="sft", weights="own_adapter"
            ),
            "measures": (*measures, general_loss(0.06)),
            "verdict": judge((*measures, general_loss(0.06)), curves(300, 3.2, 1.9)),
            "baseline_note": "",
            "curves": curves(300, 3.2, 1.9, title="ROUGE-L"),
            "rows": Rows(worst=(shown, hostile), best=(shown,), measured_by="ROUGE-L"),
            "confusion": None,
            "data": Data(
                source="articles.jsonl", shape="prompt and completion", read=2600, kept=2500, splits={"train": 2000, "test": 250}
            ),
            "warnings": (),
        }
    )


@pytest.fixture(scope="session", params=[many_labels, three_labels, free_text], ids=lambda made: made.__name__)
def report(request):
    return request.param()


@pytest.fixture(scope="session")
def text_report():
    return free_text()


@pytest.fixture(scope="session")
def label_report():
    return many_labels()
