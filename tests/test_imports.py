"""Who imports whom: no circles, and each part of the tree imports only what it may. Imports inside functions count."""

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = ("infra", "image", "smoke_tests", "clients", "policy", "local", "benchmarks", "fakes")
TESTING = ("benchmarks", "fakes", "tests")
"""What measures and tests the product; the product imports nothing of it."""
Imports = dict[str, set[str]]


def modules(root: Path, parts: tuple[str, ...]) -> dict[str, Path]:
    """Our modules by dotted name; a package goes by its folder's name."""
    found = {}
    for part in parts:
        for path in sorted((root / part).rglob("*.py")):
            names = path.relative_to(root).with_suffix("").parts
            found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def named(source: str, module: str, package: bool) -> Iterator[tuple[str, bool]]:
    """Dotted names that a source imports, anywhere in it, and whether a name is a guess: a submodule or a value.

    `if TYPE_CHECKING` is not looked at by itself, so what stands below it counts as well.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")[: None if package and node.level == 1 else -(node.level - package)]
                base = ".".join([*up, *base.split(".")]).strip(".")
            yield base, False
            yield from ((f"{base}.{alias.name}", True) for alias in node.names)


def at_run_time(source: str) -> str:
    """A source without what only type checkers read."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def imports(root: Path, parts: tuple[str, ...]) -> Imports:
    """Each module and those of ours that it imports. A `from package import module` is an import of the module alone."""
    known = modules(root, parts)
    found: Imports = {}
    for module, path in known.items():
        names = set(named(path.read_text(encoding="utf-8"), module, path.name == "__init__.py"))
        submodules = {name for name, guess in names if guess and name in known}
        packages = {name.rpartition(".")[0] for name in submodules}
        plain = {name for name, guess in names if not guess and name in known and name not in packages}
        found[module] = (submodules | plain) - {module}
    return found


def circles(graph: Imports) -> set[tuple[str, ...]]:
    """The groups of modules that import one another, directly or by way of others: each sorted."""
    reached: Imports = {}
    for module in graph:
        seen: set[str] = set()
        waiting = list(graph[module])
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting += graph.get(name, ())
        reached[module] = seen
    groups = (tuple(sorted(other for other in reached[one] if one in reached.get(other, ()))) for one in graph)
    return {group for group in groups if group}


def crossing(graph: Imports, of: str, forbidden: tuple[str, ...]) -> list[str]:
    """Imports of anything `forbidden` by modules below `of`."""
    return [
        f"{module} imports {name}"
        for module, names in sorted(graph.items())
        if _below(module, (of,))
        for name in sorted(names)
        if _below(name, forbidden)
    ]


def _below(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def test_no_import_goes_in_a_circle() -> None:
    assert circles(imports(REPOSITORY, PARTS)) == set()


def test_each_part_imports_only_what_it_may() -> None:
    graph = imports(REPOSITORY, (*PARTS, "tests"))
    product = ("infra", "image", "local", "smoke_tests", "clients", "policy")
    assert crossing(graph, "image", tuple({*product, *TESTING} - {"image"})) == []
    assert crossing(graph, "infra.aws", ("infra.kubernetes",)) == []
    assert crossing(graph, "infra.kubernetes", ("infra.aws",)) == []
    assert [line for part in PARTS for line in crossing(graph, part, ("tests",))] == []
    assert [line for part in product for line in crossing(graph, part, TESTING)] == []
    assert crossing(graph, "fakes", (*product, "benchmarks")) == []


def test_planning_imports_no_pulumi() -> None:
    """Nor does anything of ours that it imports."""
    graph, known = imports(REPOSITORY, PARTS), modules(REPOSITORY, PARTS)
    waiting, seen = [module for module in graph if _below(module, ("infra.planning",))], set()
    while waiting:
        if (module := waiting.pop()) not in seen:
            seen.add(module)
            waiting += graph[module]
    for module in sorted(seen):
        names = {name for name, _ in named(at_run_time(known[module].read_text(encoding="utf-8")), module, False)}
        assert not {name for name in names if name.partition(".")[0].startswith("pulumi")}, module


def test_a_circle_and_a_crossing_are_found(tmp_path: Path) -> None:
    """Known bad, in each form in which Python lets one import."""
    forms = ("from p import b", "import p.b", "from . import b", "from .b import x", "def f():\n    from p.b import x",
             "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import x")  # fmt: skip
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "b.py").write_text("from p.c import x")
    (folder / "c.py").write_text("import p.a")
    for form in forms:
        (folder / "a.py").write_text(form)
        graph = imports(tmp_path, ("p",))
        assert circles(graph) == {("p.a", "p.b", "p.c")}, form
        assert crossing(graph, "p.a", ("p.b",)) == ["p.a imports p.b"], form
    (folder / "c.py").write_text("import os")
    assert circles(imports(tmp_path, ("p",))) == set()
