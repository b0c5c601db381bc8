import re

import pytest
import yaml

from tunewright.evaluation.report.card import front_matter, inline, render_card
from tunewright.evaluation.report.schema import Subject


def front(text):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.S)[1])


def test_the_front_matter_parses(report):
    found = front(render_card(report))
    assert found["license"] == "unknown"
    assert "tunewright" in found["tags"]
    assert found == front_matter(report)


@pytest.mark.parametrize(
    ("base", "weights", "library", "relation"),
    [
        ("Qwen/Qwen3-0.6B", "peft_adapter", "peft", "adapter"),
        ("Qwen/Qwen3-0.6B", "full_model", "transformers", "finetune"),
        ("/data/models/mine", "own_adapter", "tunewright", None),
        ("embedded", "peft_adapter", "peft", None),
    ],
)
def test_the_base_is_named_only_where_the_hub_knows_it(label_report, base, weights, library, relation):
    subject = Subject(base=base, method="lora", objective="sft", weights=weights)
    found = front_matter(label_report.model_copy(update={"subject": subject}))
    assert found["library_name"] == library
    assert found.get("base_model_relation") == relation
    assert ("base_model" in found) == (relation is not None)


def test_the_table_has_a_line_for_each_measure(report):
    lines = [line for line in render_card(report).splitlines() if line.startswith("| ")]
    for measure in report.measures:
        assert [line.count(" | ") for line in lines if line.startswith(f"| {measure.title} ")] == [4]


def test_loading_is_shown_as_it_works(label_report, text_report):
    def card(report, **changed):
        return render_card(report.model_copy(update={"subject": report.subject.model_copy(update=changed)}))

    encoder = card(label_report, kind="encoder", head=True)
    assert 'AutoPeftModelForFeatureExtraction.from_pretrained("banking-intents/adapter")' in encoder
    assert "only Tunewright reads it" in encoder
    assert "tunewright evaluate banking-intents rows.jsonl" in encoder
    assert 'AutoModel.from_pretrained("banking-intents/model")' in card(label_report, kind="encoder", weights="full_model")
    own = render_card(text_report)
    assert "tunewright chat news-summaries" in own
    assert "from peft" not in own
    assert "tunewright merge news-summaries FOLDER" in own
    assert "tunewright merge" not in card(text_report, merges=False)
    assert 'AutoPeftModelForSeq2SeqLM.from_pretrained("news-summaries/adapter")' in card(
        text_report, weights="peft_adapter", kind="encoder_decoder"
    )


def test_hostile_names_do_not_break_the_card(label_report):
    hostile = "x | y\n---\n# <script>alert(1)</script> [a](b)"
    data = label_report.data.model_copy(update={"source": hostile})
    text = render_card(label_report.model_copy(update={"data": data, "warnings": (hostile,)}))
    assert "<script>" not in text
    assert "\n# " in text
    assert len(re.findall(r"^# ", text, re.M)) == 1
    assert inline("a\n| b") == "a \\| b"
