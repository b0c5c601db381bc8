"""A desk for the tests of the command line: tiny bases, small data, and ways to call `tunewright`."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tunewright.cli import main
from tunewright.core.surroundings import set_default

# Before torch loads: threads that spin while they wait make every test slow where cores are shared.
set_default("OMP_WAIT_POLICY", "PASSIVE")
WORDS = ["red", "blue", "green", "small", "large", "cat", "dog", "bird", "tree", "house", "river"]


class Said(NamedTuple):
    """What a command said: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, object]:
        """The one JSON object on standard output."""
        return json.loads(self.out)


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    """Rows as a file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pair_rows(count: int) -> list[dict[str, object]]:
    """Prompts and completions, all different."""
    draw = random.Random(1)
    seen: dict[tuple[str, ...], None] = {}
    while len(seen) < count:
        seen[tuple(draw.sample(WORDS, 3))] = None
    return [{"prompt": f"Turn round: {' '.join(words)}", "completion": " ".join(reversed(words))} for words in seen]


def label_rows(count: int) -> list[dict[str, object]]:
    """Texts with one of two labels that a word gives away."""
    draw = random.Random(2)
    kinds = (("lovely", "pos"), ("awful", "neg"))
    chosen = [kinds[number % 2] for number in range(count)]
    return [
        {"text": f"{number} {word} {' '.join(draw.sample(WORDS, 3))}", "label": label}
        for number, (word, label) in enumerate(chosen)
    ]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the processes that they start, keep nothing in the caches of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWRIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny bases, `llama` (a decoder) and `bert` (an encoder), and with `pairs.jsonl` and `labels.jsonl`."""
    from tunewright.testing.tiny import save_tiny

    folder = tmp_path_factory.mktemp("bases")
    for family in ("llama", "bert"):
        save_tiny(family, folder / family)
    write_jsonl(folder / "pairs.jsonl", pair_rows(60))
    write_jsonl(folder / "labels.jsonl", label_rows(60))
    return folder


@pytest.fixture
def desk(tmp_path: Path, bases: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with `llama`, `bert`, `pairs.jsonl` and `labels.jsonl`."""
    for family in ("llama", "bert"):
        (tmp_path / family).symlink_to(bases / family)
    for name in ("pairs.jsonl", "labels.jsonl"):
        shutil.copy(bases / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path


@pytest.fixture
def say(desk: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call `tunewright` within this process, in the desk."""

    def call(*words: str) -> Said:
        capsys.readouterr()
        code = main(list(words))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def start(desk: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `tunewright` as a process of its own, in the desk, without waiting for it."""

    def call(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(command(*words), cwd=desk, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return call


@pytest.fixture
def shell(desk: Path) -> Callable[..., Said]:
    """Call `tunewright` as a user does: as a process of its own, in the desk."""

    def call(*words: str, stdin: str = "") -> Said:
        done = subprocess.run(command(*words), cwd=desk, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stdout + done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    return call


def command(*words: str) -> list[str]:
    """The command line of one call."""
    return [sys.executable, "-c", "import sys; from tunewright.cli import main; sys.exit(main())", *words]
