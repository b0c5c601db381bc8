"""How a comparison is shown."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tunewright.compare import page
from tunewright.compare.methods import Compared, Comparison, MethodComparison
from tunewright.compare.trial import Trial
from tunewright.core.configuration import build
from tunewright.core.scores import Score
from tunewright.methods.full import Full
from tunewright.methods.head import Head
from tunewright.methods.lora import LoRA


def trial(value: float, **changed: object) -> Trial:
    facts = {"metric": "accuracy", "title": "Accuracy", "percent": True, "higher_is_better": True, "base": None}
    facts |= {"quality": Score(value, value - 0.1, value + 0.1, 40), "parameters": 1000, "share": 0.01, "peak_memory": 10**9}
    facts |= {"seconds_per_thousand": 0.5, "bytes": 4000, "slow_down": 1.2, "forgetting": 0.1, "forgetting_kind": "loss"}
    return build(Trial, facts | changed)


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    run = {"data": {"train": "<rows>.jsonl"}, "folder": str(tmp_path), "name": "c"}
    question = build(MethodComparison, {"run": run, "methods": ["lora", "full", "head"], "repeats": 2})
    entries = [
        Compared("lora", LoRA(), {0: trial(0.5), 1: trial(0.7)}, {}),
        Compared("full", Full(), {0: trial(0.8, parameters=10**6, peak_memory=None)}, {1: "the loss is nan"}),
        Compared("head", Head(), {}, {0: "<b>refused</b>", 1: "refused"}),
    ]
    return Comparison(tmp_path, question, entries)


def test_the_best_stands_first_and_failures_last(comparison: Comparison) -> None:
    heads, rows = page.rows_of(comparison)
    assert [row[0] for row in rows] == ["full", "lora", "head"]
    assert rows[2][1] == "failed"
    assert all(len(row) == len(heads) for row in rows)
    full = dict(zip(heads, rows[0], strict=True))
    assert full["trained"] == "1 M"
    assert full["memory"] == "-"
    assert full["slower"] == "1.20x"
    assert full["forgot"] == "+0.1"


@pytest.mark.parametrize(("share", "text"), [(1.0, "100 %"), (0.097, "9.7 %"), (0.00123, "0.12 %"), (0.0996, "10 %")])
def test_a_share_is_written_in_two_digits_and_never_in_powers(comparison: Comparison, share: float, text: str) -> None:
    entry = Compared("full", Full(), {0: trial(0.8, share=share)}, {})
    heads, rows = page.rows_of(comparison._replace(entries=[entry]))
    assert rows[0][heads.index("share")] == text


def test_less_is_better_where_it_is() -> None:
    low, high = (Compared(str(v), Full(), {0: trial(v, higher_is_better=False)}, {}) for v in (0.2, 0.4))
    assert page.ranked([high, low]) == [low, high]


def test_the_markdown_says_what_it_shows(comparison: Comparison) -> None:
    text = page.markdown(comparison)
    assert text.startswith("<rows>.jsonl on embedded, 2 runs of each method.")
    assert "| lora | 60.0\u202f% (" in text
    assert "rise of the loss per token" in text


def test_an_encoders_forgetting_is_said_to_be_a_cosine(comparison: Comparison) -> None:
    entry = Compared("full", Full(), {0: trial(0.8, forgetting_kind="cosine")}, {})
    assert "one minus the cosine" in page.legend(comparison._replace(entries=[entry]))[0]


def test_the_plot_is_well_formed_and_leaves_out_what_failed(comparison: Comparison) -> None:
    root = ElementTree.fromstring(str(page.plot(comparison)))
    words = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "lora" in words
    assert "head" not in words
    assert "1 M" in words
    assert str(page.plot(comparison._replace(entries=comparison.entries[2:]))) == ""


def test_the_page_escapes_what_came_from_outside(comparison: Comparison) -> None:
    text = page.html(comparison)
    assert "&lt;rows&gt;.jsonl" in text
    assert "&lt;b&gt;refused&lt;/b&gt;" in text
    assert "<b>" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_everything_measured_is_written(comparison: Comparison) -> None:
    paths = page.write(comparison)
    assert set(paths) == {"page", "table", "plot", "outcome"}
    found = json.loads(Path(paths["outcome"]).read_text())
    assert [entry["method"] for entry in found["methods"]] == ["full", "lora", "head"]
    assert found["methods"][1]["trials"]["1"]["quality"][0] == 0.7
    assert found["methods"][2]["failures"]["1"] == "refused"
    assert found["methods"][0]["costs"]["memory"] is None
