"""The budgets of the house: how long, how deep, how wide; what must be said, and what must never be called.

Every check reads the syntax tree of the package and yields a `Breach`. What may stay in breach stands in `budgets.toml` with its
reason, and is measured too: an exception that is no longer needed fails, so that the list only shrinks.
"""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tunewright"

FILE_LINES, FUNCTION_LINES, NESTING, PARAMETERS, FIELDS = 400, 60, 3, 6, 15
WINDOW, REPEATED_SHARE, TEST_SHARE = 8, 0.03, 0.7
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"torch.load", "eval", "exec", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}
# What classes of torch and of the standard library ask their subclasses to define under a name that is not ours to choose.
FOREIGN = {"Module": {"forward"}, "Function": {"forward", "backward"}, "HTMLParser": {"handle_starttag", "handle_data"}}
BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Breach(NamedTuple):
    """One budget overrun: the rule, where (`file` or `file::Class.function`), and the number or what was found."""

    rule: str
    place: str
    found: int | str


class Named(NamedTuple):
    """A class or function with its place: `public` means that every name on the way to it is."""

    node: Function | ast.ClassDef
    place: str
    public: bool
    owner: ast.ClassDef | None


# ---- what there is ------------------------------------------------------------------------------------------------------------


def named(file: str, tree: ast.Module) -> Iterator[Named]:
    """Every class and function of a module, the inner ones too."""

    def below(node: ast.AST, prefix: str, public: bool, owner: ast.ClassDef | None) -> Iterator[Named]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.ClassDef):
                shown = public and (not child.name.startswith("_") or (child.name.startswith("__") and child.name.endswith("__")))
                yield Named(child, f"{file}::{prefix}{child.name}", shown, owner)
                inside = shown and isinstance(child, ast.ClassDef)
                yield from below(child, f"{prefix}{child.name}.", inside, child if isinstance(child, ast.ClassDef) else None)
            else:
                yield from below(child, prefix, public, owner)

    yield from below(tree, "", True, None)


def functions(file: str, tree: ast.Module) -> Iterator[tuple[Named, Function]]:
    """The functions among `named`."""
    for item in named(file, tree):
        if isinstance(item.node, Function):
            yield item, item.node


def bases_of(node: ast.ClassDef) -> list[str]:
    """The last names of a class's bases: `Room[T]` is `Room`, `nn.Module` is `Module`."""
    plain = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return [ast.unparse(base).rpartition(".")[2] for base in plain]


def parameters_of(item: Named, node: Function) -> list[ast.arg]:
    """The parameters of a function without `self` and `cls`, without `*args` and `**kwargs`."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
    return every[1:] if item.owner is not None and not static else every


class Family:
    """The classes of the package by name, to ask whether a method defines anew what an ancestor has defined."""

    def __init__(self, trees: Mapping[str, ast.Module]) -> None:
        self.methods: dict[str, set[str]] = defaultdict(set)
        self.bases: dict[str, set[str]] = defaultdict(set)
        for tree in trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self.methods[node.name] |= {inner.name for inner in node.body if isinstance(inner, Function)}
                    self.bases[node.name] |= set(bases_of(node)) - {node.name}

    def ancestors(self, name: str) -> set[str]:
        """The names of everything that a class inherits from."""
        seen: set[str] = set()
        waiting = set(self.bases.get(name, ()))
        while waiting:
            seen.add(one := waiting.pop())
            waiting |= self.bases.get(one, set()) - seen
        return seen

    def overrides(self, owner: ast.ClassDef, method: str) -> bool:
        """Whether `method` of `owner` defines anew what an ancestor has defined and described."""
        above = {one for base in bases_of(owner) for one in (base, *self.ancestors(base))} - {owner.name}
        return any(method in self.methods.get(one, ()) or method in FOREIGN.get(one, ()) for one in above)


# ---- the checks ---------------------------------------------------------------------------------------------------------------


def sizes(file: str, tree: ast.Module, lines: int) -> Iterator[Breach]:
    """Long files, long functions, deep nesting, many parameters."""
    if lines > FILE_LINES:
        yield Breach("file lines", file, lines)
    for item, node in functions(file, tree):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            yield Breach("function lines", item.place, length)
        if (depth := nesting(node)) > NESTING:
            yield Breach("nesting", item.place, depth)
        if (count := len(parameters_of(item, node))) > PARAMETERS:
            yield Breach("parameters", item.place, count)


def nesting(node: ast.AST) -> int:
    """How many loops, conditions, contexts and attempts stand inside each other; an `elif` is no deeper than its `if`."""
    deepest = 0
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, Function | ast.ClassDef | ast.Lambda):
                continue
            chained = isinstance(node, ast.If) and field == "orelse" and isinstance(child, ast.If) and len(value) == 1
            deepest = max(deepest, nesting(child) + (isinstance(child, BLOCKS) and not chained))
    return deepest


def wide_configurations(file: str, tree: ast.Module, family: Family) -> Iterator[Breach]:
    """Configurations (descendants of `Strict`) with too many fields."""
    for item in named(file, tree):
        if isinstance(item.node, ast.ClassDef) and "Strict" in family.ancestors(item.node.name):
            own = [ast.unparse(inner.annotation) for inner in item.node.body if isinstance(inner, ast.AnnAssign)]
            if (count := sum("ClassVar" not in annotation for annotation in own)) > FIELDS:
                yield Breach("fields", item.place, count)


def undocumented(file: str, tree: ast.Module, family: Family) -> Iterator[Breach]:
    """Modules and public names without a docstring.

    None is needed by special methods, by methods that an ancestor describes, and by the tests of a contract, whose names say all.
    """
    if not ast.get_docstring(tree):
        yield Breach("docstring", file, "module")
    for item in named(file, tree):
        special = item.node.name.startswith("__")
        told = item.owner is not None and family.overrides(item.owner, item.node.name)
        told = told or (file.startswith("testing/") and item.node.name.startswith("test_"))
        if item.public and not special and not told and not ast.get_docstring(item.node):
            yield Breach("docstring", item.place, "missing")


def unannotated(file: str, tree: ast.Module) -> Iterator[Breach]:
    """Functions with a parameter or a result of unknown type."""
    for item, node in functions(file, tree):
        every = [*parameters_of(item, node), *filter(None, (node.args.vararg, node.args.kwarg))]
        bare = [argument.arg for argument in every if argument.annotation is None] + (["return"] if node.returns is None else [])
        if bare:
            yield Breach("annotation", item.place, ", ".join(bare))


def open_signatures(file: str, tree: ast.Module) -> Iterator[Breach]:
    """Public functions that take `**kwargs`: nobody can tell what they accept."""
    for item, node in functions(file, tree):
        if item.public and node.args.kwarg is not None:
            yield Breach("kwargs", item.place, f"**{node.args.kwarg.arg}")


def broad_excepts(file: str, tree: ast.Module) -> Iterator[Breach]:
    """Handlers that catch everything."""
    inside = {id(inner): item.place for item, node in functions(file, tree) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = ["everything" if one is None else ast.unparse(one) for one in caught]
            if {"everything", "Exception", "BaseException"} & set(names):
                yield Breach("broad except", inside.get(id(node), file), ", ".join(names))


def environment(file: str, tree: ast.Module) -> Iterator[Breach]:
    """Reading or writing environment variables."""
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            name = next((f"os.{alias.name}" for alias in node.names if alias.name in ("environ", "getenv")), "")
        if name in ("os.environ", "os.getenv", "os.putenv", "os.unsetenv"):
            yield Breach("environment", file, name)


def forbidden(file: str, tree: ast.Module) -> Iterator[Breach]:
    """Names that say nothing, and calls that can run what a file says."""
    for part in Path(file).with_suffix("").parts:
        if part in FORBIDDEN_NAMES:
            yield Breach("module name", file, part)
    own_safe = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and SAFE_LOADERS & set(bases_of(node))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (Breach("forbidden", file, name) for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS)
        elif isinstance(node, ast.Call):
            yield from (Breach("forbidden", file, what) for what in dangers(node, own_safe | SAFE_LOADERS))


def dangers(call: ast.Call, safe_loaders: set[str]) -> Iterator[str]:
    """What about one call is forbidden."""
    name = ast.unparse(call.func)
    if name in FORBIDDEN_CALLS:
        yield name
    if name == "yaml.load":
        loaders = [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg == "Loader")]
        if not loaders or ast.unparse(loaders[0]).rpartition(".")[2] not in safe_loaders:
            yield "yaml.load with an unsafe loader"
    for keyword in call.keywords:
        if keyword.arg == "trust_remote_code" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
            yield "trust_remote_code"


def breaches(trees: Mapping[str, ast.Module], lines: Mapping[str, int]) -> list[Breach]:
    """Everything that is over budget, exceptions not yet considered."""
    family = Family(trees)
    found: list[Breach] = []
    for file, tree in trees.items():
        found += sizes(file, tree, lines[file])
        found += wide_configurations(file, tree, family)
        found += undocumented(file, tree, family)
        found += unannotated(file, tree)
        found += open_signatures(file, tree)
        found += forbidden(file, tree)
        if not file.startswith(("cli/", "serve/jobs")):
            found += broad_excepts(file, tree)
        if file != "core/surroundings.py":
            found += environment(file, tree)
    return found


def repeated_share(texts: Mapping[str, str]) -> tuple[float, list[str]]:
    """The share of lines that stand in a window of 8 lines that occurs twice, and where such windows begin.

    Blank lines and indentation do not count, and neither do import statements: rooms that use the same things name the same things.
    """
    lines = {file: kept_lines(text) for file, text in texts.items()}
    seen: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for file, kept in lines.items():
        for start in range(len(kept) - WINDOW + 1):
            seen[tuple(line for _, line in kept[start : start + WINDOW])].append((file, start))
    repeated = {place for places in seen.values() if len(places) > 1 for place in places}
    inside = {(file, start + offset) for file, start in repeated for offset in range(WINDOW)}
    total = sum(len(kept) for kept in lines.values())
    return len(inside) / max(1, total), sorted(f"{file}:{lines[file][start][0]}" for file, start in repeated)


def kept_lines(text: str) -> list[tuple[int, str]]:
    """Number and content of the lines that count for repetition."""
    imports = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip() and n not in imports]


# ---- the tests ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.fixture(scope="module")
def over_budget(texts: dict[str, str]) -> list[Breach]:
    return breaches({file: ast.parse(text) for file, text in texts.items()}, {f: text.count("\n") for f, text in texts.items()})


@pytest.fixture(scope="module")
def exceptions() -> dict[tuple[str, str], dict[str, str | int]]:
    listed = tomllib.loads((ROOT / "tests" / "budgets.toml").read_text(encoding="utf-8")).get("exception", [])
    return {(one["rule"], one["place"]): one for one in listed}


def allowed(breach: Breach, exceptions: Mapping[tuple[str, str], Mapping[str, str | int]]) -> bool:
    """Whether an exception covers the breach: a number may not grow beyond what was granted."""
    one = exceptions.get((breach.rule, breach.place))
    return one is not None and (isinstance(breach.found, str) or breach.found <= int(one["limit"]))


def test_budgets(over_budget: list[Breach], exceptions: dict[tuple[str, str], dict[str, str | int]]) -> None:
    over = [f"{one.place}: {one.rule}: {one.found}" for one in over_budget if not allowed(one, exceptions)]
    assert not over, "\n".join(["over budget:", *over])


def test_exceptions_are_needed_and_explained(
    over_budget: list[Breach], exceptions: dict[tuple[str, str], dict[str, str | int]]
) -> None:
    needed = {(breach.rule, breach.place): breach.found for breach in over_budget}
    stale = [key for key in exceptions if key not in needed]
    loose = [key for key, one in exceptions.items() if isinstance(found := needed.get(key), int) and found != one["limit"]]
    bare = [key for key, one in exceptions.items() if len(str(one.get("reason", ""))) < 20]
    assert (stale, loose, bare) == ([], [], [])


def test_little_is_repeated(texts: dict[str, str]) -> None:
    share, places = repeated_share(texts)
    assert share < REPEATED_SHARE, f"{share:.1%} of the lines are repeated:\n" + "\n".join(places)


def test_there_are_enough_tests(texts: dict[str, str]) -> None:
    written = sum(path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "tests").rglob("*.py"))
    assert written >= TEST_SHARE * sum(text.count("\n") for text in texts.values())


DOC = "    'Doc.'\n"
LONG = f"def long() -> None:\n{DOC}" + "    x = 1\n" * 60
DEEP = f"def deep() -> None:\n{DOC}    for a in b:\n        if a:\n            with a:\n                assert [b for b in a]\n"
FLAT = f"def flat() -> None:\n{DOC}    if a:\n        pass\n" + "    elif b:\n        pass\n" * 4
WIDE = f"class Strict:\n{DOC}class Wide(Strict):\n{DOC}" + "".join(f"    field_{n}: int = 0\n" for n in range(16))
OVERRIDE = f"class A:\n{DOC}    def f(self) -> None:\n    {DOC}class B(A):\n{DOC}    def f(self) -> None:\n        pass\n"
LOADER = f"import yaml\nclass Own(yaml.SafeLoader):\n{DOC}yaml.load(text, Loader=Own)\n"
CONTRACT = f"class Contract:\n{DOC}    def test_it_holds(self) -> None:\n        pass\n"
SIX, SEVEN = (", ".join(f"a{n}: int" for n in range(count)) for count in (6, 7))


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        (LONG, ["function lines"]),
        (DEEP, []),
        (DEEP.replace("assert [b for b in a]", "while a:\n                    pass"), ["nesting"]),
        (FLAT, []),
        (WIDE, ["fields"]),
        (OVERRIDE, []),
        (OVERRIDE.replace("(A)", ""), ["docstring"]),
        ("x = 1\n" * 401, ["file lines"]),
        (f"def f({SEVEN}) -> None:\n{DOC}", ["parameters"]),
        (f"class A:\n{DOC}    def f(self, {SIX}) -> None:\n    {DOC}", []),
        ("def f(a) -> None:\n    '''Doc.'''\n", ["annotation"]),
        ("def _f(a: int):\n    pass\n", ["annotation"]),
        ("def f() -> None:\n    pass\n", ["docstring"]),
        ("class A:\n    def __len__(self) -> int:\n        return 0\n", ["docstring"]),
        ("def f(**rest: int) -> None:\n    '''Doc.'''\n", ["kwargs"]),
        ("def _f(**rest: int) -> None:\n    pass\n", []),
        ("try:\n    pass\nexcept (ValueError, Exception):\n    pass\n", ["broad except"]),
        ("try:\n    pass\nexcept:\n    pass\n", ["broad except"]),
        ("try:\n    pass\nexcept ValueError:\n    pass\n", []),
        ("import os\nhome = os.environ['HOME']\n", ["environment"]),
        ("from os import getenv\n", ["environment"]),
        ("import pickle\n", ["forbidden"]),
        ("from joblib import load\n", ["forbidden"]),
        ("import torch\ntorch.load('x')\n", ["forbidden"]),
        ("eval('1')\n", ["forbidden"]),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)\n", ["forbidden"]),
        (LOADER, []),
        ("load(name, trust_remote_code=True)\n", ["forbidden"]),
        ("load(name, trust_remote_code=False)\n", []),
    ],
)
def test_each_budget_can_be_broken(source: str, rules: list[str]) -> None:
    text = f"'''Doc.'''\n{source}"
    assert [one.rule for one in breaches({"file.py": ast.parse(text)}, {"file.py": text.count("\n")})] == rules


def test_a_name_that_says_nothing_is_found() -> None:
    found = breaches({"data/utils.py": ast.parse("'''Doc.'''")}, {"data/utils.py": 1})
    assert [one.rule for one in found] == ["module name"]


def test_the_name_of_a_contract_test_says_what_it_promises() -> None:
    tree = ast.parse(f"'Doc.'\n{CONTRACT}")
    assert breaches({"testing/one.py": tree}, {"testing/one.py": 5}) == []
    assert [one.rule for one in breaches({"data/one.py": tree}, {"data/one.py": 5})] == ["docstring"]


def test_repeated_windows_are_found() -> None:
    body = "".join(f"value_{n} = compute({n})\n" for n in range(WINDOW))
    share, places = repeated_share({"one.py": body, "two.py": f"import os\n{body}", "three.py": "x = 1\n" * 3})
    assert places == ["one.py:1", "two.py:2"]
    assert share == pytest.approx(16 / 19)


def test_an_exception_covers_no_growth() -> None:
    granted: dict[tuple[str, str], dict[str, str | int]] = {("nesting", "a.py::f"): {"limit": 4, "reason": "..."}}
    assert allowed(Breach("nesting", "a.py::f", 4), granted)
    assert not allowed(Breach("nesting", "a.py::f", 5), granted)
    assert not allowed(Breach("nesting", "a.py::g", 4), granted)
