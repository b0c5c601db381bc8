import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from tunewright.evaluation.report.html import flat, render_html, top_mistakes
from tunewright.evaluation.report.schema import ConfusionTables, Finding, Report, Subject, Verdict

EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Outline(HTMLParser):
    """Every element with its attributes; fails on tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def tags(self):
        return {tag for tag, _ in self.elements}


def test_the_page_is_self_contained(report):
    page = Outline(render_html(report))
    assert not page.tags() & {"script", "link", "img", "iframe", "object", "embed", "form"}
    for tag, attributes in page.elements:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    text = render_html(report)
    assert not re.search(r"url\(|@import|https?://", text)


def test_the_policy_forbids_everything_but_its_own_style(report):
    text = render_html(report)
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text


def test_links_lead_somewhere(report):
    page = Outline(render_html(report))
    places = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(places) == len(set(places))
    assert {attributes["href"][1:] for tag, attributes in page.elements if tag == "a"} <= set(places)


def test_images_are_described(report):
    for tag, attributes in Outline(render_html(report)).elements:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


HOSTILE = "</title></style></svg><script>alert('x')</script><img src=x onerror=alert(1)>{{ 7*7 }}&amp;"


def test_hostile_texts_stay_texts(label_report):
    names = (HOSTILE, *label_report.confusion.labels[1:])
    data = label_report.data.model_copy(
        update={
            "labels": {HOSTILE: {HOSTILE: 3, "b": 2}},
            "dropped": (Finding(name=HOSTILE, count=1, examples=(HOSTILE,), action=HOSTILE),),
            "notes": (HOSTILE,),
        }
    )
    texts = dict.fromkeys(("prompt", "reference", "base_answer", "tuned_answer", "where"), HOSTILE)
    rows = label_report.rows.model_copy(update={"worst": tuple(row.model_copy(update=texts) for row in label_report.rows.worst)})
    hostile = label_report.model_copy(
        update={
            "name": HOSTILE,
            "created": HOSTILE,
            "warnings": (HOSTILE,),
            "baseline_note": HOSTILE,
            "data": data,
            "rows": rows,
            "measures": tuple(one.model_copy(update={"title": HOSTILE, "split": HOSTILE}) for one in label_report.measures),
            "confusion": label_report.confusion.model_copy(update={"labels": names}),
            "settings": label_report.settings.model_copy(update={"values": {HOSTILE: HOSTILE}, "reasons": {HOSTILE: HOSTILE}}),
        }
    )
    page = Outline(render_html(hostile))
    assert not page.tags() & {"script", "img"}
    assert HOSTILE in "".join(page.text)


def test_the_barest_report_renders():
    bare = Report(
        name="bare",
        created="yesterday",
        verdict=Verdict(outcome="unmeasured", headline="Nothing was measured."),
        subject=Subject(base="b", method="m", objective="o"),
    )
    text = render_html(bare)
    assert "yesterday" in text
    assert "#results" not in text


def test_a_report_without_a_base_renders(label_report):
    alone = tuple(one.model_copy(update={"base": None, "difference": None}) for one in label_report.measures)
    tables = label_report.confusion.model_copy(update={"base": None})
    text = render_html(label_report.model_copy(update={"measures": alone, "confusion": tables}))
    assert "not measured" in text


def test_few_labels_are_a_table_and_many_a_map(label_report):
    assert "Most frequent confusions" in render_html(label_report)
    few = ConfusionTables(labels=("a", "b"), base=((3, 1), (0, 2)), tuned=((4, 0), (1, 1)))
    text = render_html(label_report.model_copy(update={"confusion": few}))
    assert "Most frequent confusions" not in text
    assert '<td class="h4 wrong">1</td>' in text


def test_mistakes_are_ordered_by_rows():
    found = top_mistakes(ConfusionTables(labels=("a", "b", "c"), tuned=((5, 1, 0), (3, 5, 0), (0, 0, 0))))
    assert [tuple(one) for one in found] == [("b", "a", None, 3, 8), ("a", "b", None, 1, 6)]


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"a": {"b": 1, "c": {"d": None}}}, [("a.b", "1"), ("a.c.d", "null")]),
        ({"a": [1, "x"], "b": True, "c": {}}, [("a", "1, x"), ("b", "true"), ("c", "{}")]),
        ({"a": []}, [("a", "[]")]),
    ],
)
def test_settings_are_flattened(values, lines):
    assert flat(values) == lines
