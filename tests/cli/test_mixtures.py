"""Templates and mixtures from the command line: what `check` and `show targets` say of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

MIXTURE = """
data:
  mixture:
    temperature: 2
    parts:
      - {name: mood, train: mood.jsonl, template: sentiment}
      - {name: turn, train: turn.jsonl, template: question_answering}
      - {name: other, train: other.jsonl, template: topic, held_out: true}
"""


@pytest.fixture
def laid(say: Callable) -> Callable:
    """The desk of the command line with three sets and a run file on it."""

    def lines(name: str, rows: list[dict[str, str]]) -> None:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    lines("mood.jsonl", [{"text": f"thing {i} is {'ab'[i % 2] * i}", "label": ("pos", "neg")[i % 2]} for i in range(30)])
    lines("turn.jsonl", [{"question": f"what is {i * i} {'xyz'[i % 3] * i}", "answer": str(i)} for i in range(20)])
    lines("other.jsonl", [{"text": f"place {i} has {'uvw'[i % 3] * i}", "label": ("sea", "land")[i % 2]} for i in range(12)])
    Path("mix.yaml").write_text(MIXTURE, encoding="utf-8")
    return say


def test_check_shows_every_part_and_a_wording_of_each(laid: Callable) -> None:
    found = laid("check", "--config", "mix.yaml")
    assert found.code == 0, found.err
    assert "mixture of mood, turn, other" in found.out
    assert "'other' is held out" in found.out
    for template in ("sentiment", "question_answering", "topic"):
        assert f"of {template}" in found.out
    data = laid("check", "--config", "mix.yaml", "--json").data
    assert [row["task"] for row in data["first_rows"]] == ["mood", "turn", "other"]
    assert all(row["wording"] >= 1 for row in data["first_rows"])
    assert data["findings"]["parts"]["other"]["held_out"] is True
    assert data["splits"]["train"] == sum(data["findings"]["parts"][name]["train"] for name in ("mood", "turn"))


def test_show_targets_shows_prompts_of_a_mixture(laid: Callable) -> None:
    data = laid("show", "targets", "--config", "mix.yaml", "--base", "llama", "--rows", "2", "--json").data
    places = [row["summary"].split(" ")[0].rsplit(":", 1)[0] for row in data["rows"]]
    assert places == ["mood.jsonl", "turn.jsonl"]


def test_a_template_from_flags(laid: Callable) -> None:
    data = laid("check", "mood.jsonl", "--data.template.name", "sentiment", "--data.template.wordings", "all", "--json").data
    assert data["splits"]["train"] == 24 * 14
    found = laid("check", "mood.jsonl", "--data.template.name", "sentimant")
    assert found.code == 2
    assert "--data.template.name: there is no template 'sentimant'. Did you mean 'sentiment'?" in found.err


def test_a_file_beside_a_mixture_is_refused(laid: Callable) -> None:
    found = laid("check", "mood.jsonl", "--config", "mix.yaml")
    assert found.code == 2
    assert "data.train: 'train' says nothing about a mixture as a whole" in found.err
