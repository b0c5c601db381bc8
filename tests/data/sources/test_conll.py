"""CoNLL text: sentences with their lines, in the old form and in that of Universal Dependencies."""

from pathlib import Path

import pytest

from tunewright.data.sources import Note, Problem, Record
from tunewright.data.sources.conll import Conll

OLD = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n"
UNIVERSAL = (
    "# text = It's\n1-2\tIt's\t_\t_\t_\t_\t_\t_\t_\t_\n1\tIt\tit\tPRON\tPRP\t_\t2\tnsubj\t_\t_\n"
    "2\t's\tbe\tAUX\tVBZ\t_\t0\troot\t_\t_\n2.1\tgone\tgo\tVERB\t_\t_\t_\t_\t_\t_\n"
)


def read(path: Path, text: str) -> list[Record | Problem]:
    path.write_text(text, encoding="utf-8")
    return [item for item in Conll().records(path) if not isinstance(item, Note)]


@pytest.mark.parametrize("suffix", [".conll", ".bio"])
def test_a_word_and_its_last_column(suffix: str, tmp_path: Path):
    path = tmp_path / f"a{suffix}"
    assert Conll().accepts(path) is False
    found = read(path, OLD)
    assert Conll().accepts(path)
    assert found == [
        Record({"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}, f"{path}:3"),
        Record({"tokens": ["Peter"], "tags": ["B-PER"]}, f"{path}:7"),
    ]


def test_universal_dependencies(tmp_path: Path):
    path = tmp_path / "a.conllu"
    assert read(path, UNIVERSAL) == [Record({"tokens": ["It", "'s"], "tags": ["PRON", "AUX"]}, f"{path}:3")]


def test_a_sentence_with_a_broken_line_is_left_out_whole(tmp_path: Path):
    path = tmp_path / "a.conll"
    found = read(path, "EU B-ORG\nrejects\n\nPeter B-PER\n")
    assert found == [
        Problem(f"{path}:1", "bad_line", "line 2 has a word without a tag"),
        Record({"tokens": ["Peter"], "tags": ["B-PER"]}, f"{path}:4"),
    ]
    (broken,) = read(tmp_path / "b.conllu", "1\tIt\tPRON\n")
    assert isinstance(broken, Problem)
    assert "has 3 columns, CoNLL-U has 10" in broken.message


def test_words_with_spaces_in_files_with_tabs(tmp_path: Path):
    (found,) = read(tmp_path / "a.conll", "New York\tB-LOC\n")
    assert found == Record({"tokens": ["New York"], "tags": ["B-LOC"]}, f"{tmp_path / 'a.conll'}:1")
