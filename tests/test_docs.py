"""The documentation: what it names exists, what it shows is valid, what is generated is up to date."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tunewright.core.configuration import build, parse_yaml
from tunewright.finetune import Run

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tunewright"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")
SETTINGS_VERBS = ("tune", "quickstart", "estimate", "check", "show targets")
GLOBAL_FLAGS = {"config", "json", "debug", "help", "version"}


def pages() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in PAGES]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def blocks(text: str, *languages: str) -> Iterator[str]:
    """The fenced blocks in one of the languages."""
    return (found[2] for found in FENCE.finditer(text) if found[1] in languages)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of `tunewright` and `make` that a text shows, in fences, between backticks, or after `#` in a run file."""
    lines = [line.removeprefix("$ ") for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    lines += [code for code in INLINE.findall(prose(text)) if not code.endswith("...")]
    lines += [line.lstrip("# ") for line in text.splitlines() if re.match(r"#   (tunewright|make) ", line)]
    for line in lines:
        if re.match(r"(tunewright|make) \S", line):
            yield shlex.split(re.split(r"\s{3,}|\s\|\s", line)[0], comments=True)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    return {slug(line) for line in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)}


def broken_links(path: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere, anchors included."""
    found = []
    for target in LINK.findall(prose(text)):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            found.append(target)
    return found


def missing_files(text: str) -> list[str]:
    """Paths between backticks that begin in a folder of the repository or of the package and are not there."""
    tops = {path.name for home in (ROOT, PACKAGE) for path in home.iterdir() if path.is_dir()}
    named = [code for code in INLINE.findall(prose(text)) if re.fullmatch(r"[\w.-]+(/[\w.*-]*)+", code)]
    named = [code for code in named if code.split("/")[0] in tops and not re.search(r"[A-Z]{3,}(?!\w*\.md)", code)]
    return [code for code in named if not any(next(home.glob(code.rstrip("/")), None) for home in (ROOT, PACKAGE))]


def wrong_command(tokens: list[str]) -> str:
    """What is wrong with a command, empty where nothing is."""
    if tokens[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return "" if tokens[1] in targets else f"no target {tokens[1]}"
    from cyclopts.exceptions import CycloptsError

    from tunewright.cli.settings import SHORT, settings
    from tunewright.cli.verbs import VERBS, app

    verbs = [name for names in VERBS.values() for name in names]
    if tokens[1].startswith("--"):
        return "" if tokens[1][2:] in GLOBAL_FLAGS else f"no flag {tokens[1]}"
    if tokens[1] not in verbs:
        return f"no verb {tokens[1]}"
    verb = " ".join(tokens[1:3]) if tokens[1] == "show" else tokens[1]
    if verb == shlex.join(tokens[1:]):  # a verb that is spoken of
        return ""
    if verb not in SETTINGS_VERBS:
        try:
            app().parse_args(without_global_flags(tokens[1:]), exit_on_error=False, print_error=False)
        except CycloptsError as error:
            return str(error)
        return ""
    source = (PACKAGE / "cli" / f"{verb.replace(' ', '_')}.py").read_text(encoding="utf-8")
    flags = [token[2:].partition("=")[0].replace("-", "_") for token in tokens if token.startswith("--")]
    known = {*settings({}), *SHORT, *GLOBAL_FLAGS}
    unknown = [flag for flag in flags if flag not in known and f'"{flag}"' not in source]
    return f"no flag {unknown[0]}" if unknown else ""


def without_global_flags(tokens: list[str]) -> list[str]:
    """The tokens that reach the verb."""
    return [token for token in tokens if token not in ("--json", "--debug")]


def generator() -> ModuleType:
    """`docs/generate.py` as a module."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    assert broken_links(ROOT / page, (ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", pages())
def test_files_that_are_named_exist(page: str) -> None:
    assert missing_files((ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", [*pages(), *(str(path.relative_to(ROOT)) for path in RECIPES)])
def test_commands_that_are_shown_exist(page: str) -> None:
    shown = commands((ROOT / page).read_text(encoding="utf-8"))
    assert [f"{shlex.join(tokens)}: {wrong}" for tokens in shown if (wrong := wrong_command(tokens))] == []


@pytest.mark.parametrize("page", pages())
def test_run_files_that_are_shown_are_valid(page: str) -> None:
    for block in blocks((ROOT / page).read_text(encoding="utf-8"), "yaml"):
        data = parse_yaml(block, page)
        build(Run, {"data": {"train": "examples.jsonl"}, **data}, page)


@pytest.mark.parametrize("page", pages())
def test_python_that_is_shown_compiles(page: str) -> None:
    for block in blocks((ROOT / page).read_text(encoding="utf-8"), "python"):
        compile(block, page, "exec")


def test_reference_tables_are_up_to_date() -> None:
    docs = generator()
    stale = [page.name for page in docs.pages() if docs.updated(text := page.read_text(encoding="utf-8")) != text]
    assert stale == [], "run `make docs`"


def test_everything_that_can_be_generated_stands_somewhere() -> None:
    docs = generator()
    named = {name for page in docs.pages() for _, name, _ in docs.PAIR.findall(page.read_text(encoding="utf-8"))}
    assert named == set(docs.TABLES)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("block", ["[a](nowhere.md)", "[a](README.md#no-such-heading)", "![a](docs/none.png)"])
def test_a_broken_link_is_found(block: str) -> None:
    assert broken_links(ROOT / "README.md", block)


def test_a_missing_file_is_found() -> None:
    text = "`tests/test_docs.py`, `core/errors.py`, `methods/NAME.py`, `runs/NAME/` and `core/nothing.py`"
    assert missing_files(text) == ["core/nothing.py"]


@pytest.mark.parametrize(
    "command",
    [
        "make everything",
        "tunewright tuen x.jsonl",
        "tunewright tune --trainig.epochs 3",
        "tunewright resume --again x",
        "tunewright --no",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    (tokens,) = commands(f"```sh\n{command}   # as shown\n```\n")
    assert wrong_command(tokens)
