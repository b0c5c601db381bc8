"""Rows through a template: which wording, which examples, which words, and what is refused."""

from collections import Counter
from pathlib import Path

import pytest

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.rows import LabelRow, PromptRow
from tunewright.data.templates.dressing import Dressing, Prompting, dressed, is_prompted

ROWS = [LabelRow(text=f"remark number {i}", label="01"[i % 2], where=f"f.jsonl:{i + 1}", metadata={"id": i}) for i in range(40)]
LABELS = {0: "negative", "1": "positive"}


def ready(rows=ROWS, pool=None, seed=0, **settings) -> Dressing:
    return Dressing(
        build(Prompting, {"name": "sentiment", "labels": LABELS, **settings}), rows, rows if pool is None else pool, seed
    )


def test_a_row_has_one_wording_that_its_content_decides() -> None:
    first = dressed(ROWS, ready(), learned=True)
    again = dressed(ROWS[::-1], ready(), learned=True)[::-1]
    assert [one.prompt for one in first] == [one.prompt for one in again]
    assert [one.prompt for one in first] != [one.prompt for one in dressed(ROWS, ready(seed=1), learned=True)]
    assert len({one.metadata["wording"] for one in first}) >= 8
    assert first[3].where == "f.jsonl:4"
    assert first[3].metadata["id"] == 3
    assert is_prompted(first[3])
    assert not is_prompted(ROWS[3])


def test_all_wordings_multiply_training_rows_only() -> None:
    many = ready(wordings="all")
    count = len(many.template.wordings)
    trained, measured = dressed(ROWS, many, learned=True), dressed(ROWS, many, learned=False)
    assert Counter(one.metadata["wording"] for one in trained) == dict.fromkeys(range(1, count + 1), len(ROWS))
    assert len(measured) == len(ROWS)


def test_inverted_wordings_are_learned_and_never_measured() -> None:
    rows = ROWS * 5
    inverted = {n + 1 for n, one in enumerate(ready().template.wordings) if one.inverted}
    assert inverted & {one.metadata["wording"] for one in dressed(rows, ready(), learned=True)}
    assert not inverted & {one.metadata["wording"] for one in dressed(rows, ready(), learned=False)}


def test_copies_of_a_row_go_through_all_wordings() -> None:
    one = ready()
    count = len(one.template.wordings)
    assert len({one.one(ROWS[0], copy=copy).prompt for copy in range(count)}) == count


def test_examples_come_from_the_pool_and_are_never_the_row_itself() -> None:
    pool, test = ROWS[:12], ROWS[12:]
    one = ready(pool=pool, shots=3)
    for row in ROWS:
        prompt = one.one(row, measured=True).prompt
        assert prompt.count("remark number") == 4
        shown = {
            other.text
            for other in ROWS
            if f"{other.text}\n" in f"{prompt}\n" or f'{other.text}"' in prompt or f"{other.text} " in prompt
        }
        assert shown - {row.text} <= {other.text for other in pool}
        assert len(shown) == 4
    assert one.one(test[0]).prompt == ready(pool=pool, shots=3).one(test[0]).prompt
    assert one.one(test[0]).prompt != one.one(test[1]).prompt


def test_an_input_that_is_equal_but_for_case_is_no_example() -> None:
    twins = [LabelRow(text="Same", label="0"), LabelRow(text="same ", label="1"), LabelRow(text="other", label="1")]
    prompt = ready(rows=twins, shots=1).one(twins[0]).prompt
    assert "other" in prompt
    with pytest.raises(DataError, match=r"2 examples cannot be shown in front of a prompt.*Ask for fewer `shots`"):
        ready(rows=twins, shots=2).one(twins[0])


def test_solved_examples_stand_as_prompts_with_their_answers() -> None:
    rows = [PromptRow(prompt="1 + 1?", completion="2"), PromptRow(prompt="2 + 2?", completion="4")]
    one = Dressing(Prompting(name="arithmetic", shots=1), rows, rows, 0)
    assert one.one(rows[1], wording=0).prompt == "1 + 1?\n2\n\n2 + 2?"
    assert one.one(rows[1], wording=0).completion == "4"


def test_labels_that_have_no_word_are_named_with_what_to_write() -> None:
    with pytest.raises(DataError) as caught:
        ready(labels={"0": "negative"})
    assert "f.jsonl: the template 'sentiment' has no word for '1'" in str(caught.value)
    assert 'labels: {"1": ...}' in str(caught.value)


def test_two_labels_with_one_word_are_refused() -> None:
    rows = [LabelRow(text="a", second_text="b", label=name) for name in ("contradiction", "not_entailment", "entailment")]
    with pytest.raises(DataError, match="has one word for several labels"):
        Dressing(Prompting(name="entailment"), rows, rows, 0)


def test_a_place_that_nothing_fills_is_named_and_can_be_given_once() -> None:
    rows = [PromptRow(prompt="dog", completion="Hund", metadata={"source_language": "English"})]
    with pytest.raises(ConfigurationError, match="nothing fills the place 'target_language'"):
        Dressing(Prompting(name="translation"), rows, rows, 0)
    one = Dressing(Prompting(name="translation", values={"target_language": "German"}), rows, rows, 0)
    assert one.one(rows[0], wording=0).prompt == "Translate into German: dog"
    with pytest.raises(ConfigurationError, match="Did you mean 'target_language'"):
        Dressing(Prompting(name="translation", values={"target_langage": "German"}), rows, rows, 0)


def test_a_file_of_ones_own_may_use_any_column(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "about: stars\nshapes: [text_label]\nplaces: {text: text, label: label, shop: shop}\nanswer: label\nchoices: any\n"
        "wordings:\n  - 'At {shop}: {text} ({options})'\n"
    )
    rows = [LabelRow(text="fine", label=label, metadata={"shop": "Bo's {x}"}) for label in ("b", "a")]
    one = Dressing(Prompting(name=str(file)), rows, rows, 0)
    assert one.one(rows[0]).prompt == "At Bo's {x}: fine (a or b)"
    assert one.one(rows[0]).completion == "b"
