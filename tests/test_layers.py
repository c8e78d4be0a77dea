"""The house's floors: every room imports from those below it, and no module from one above it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]

FLOORS = (
    ("errors",),
    ("files", "cli", "parallel", "statistics"),
    ("report", "partial"),
    ("losses", "data"),
    ("toy", "report.run"),
    ("models",),
    ("huggingface",),
    ("read", "train"),
    ("evaluate",),
    ("methods",),
    ("study",),
    ("score", "convert", "report.__main__", "data.audit.__main__", "api"),
    ("__main__",),
)
"""From the ground up; rooms of one floor do not import each other."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """All of the library's, by dotted name without the library's own."""
    paths = sorted((ROOT / "jaxrm").rglob("*.py"))
    names = (".".join(path.relative_to(ROOT / "jaxrm").with_suffix("").parts) for path in paths)
    return {
        name.removesuffix("__init__").rstrip("."): path
        for name, path in zip(names, paths, strict=True)
    }


MODULES = modules()


def imports(path: Path) -> set[str]:
    """Names of the library's modules, or of the rooms of `experiments`, that a file imports when it
    runs (not for type checkers alone)."""
    tree = ast.parse(path.read_text("utf-8"))
    idle = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and "TYPE_CHECKING" in ast.unparse(guard.test)
        for node in ast.walk(guard)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in idle:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def module_of(name: str) -> str | None:
    """The library's module that an imported name is, or lies in."""
    parts = name.split(".")
    if parts[0] != "jaxrm":
        return None
    own = ".".join(parts[1:])
    return own if own in MODULES else ".".join(parts[1:-1])


def room(module: str) -> str:
    """Where a module lives."""
    return module if module in FLOOR else module.split(".")[0]


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES if module} == set(FLOOR)


def test_imports_point_down():
    wrong = []
    for module, path in MODULES.items():
        for name in imports(path):
            other = module_of(name)
            assert not name.startswith(("experiments", "benchmarks", "tests")), (module, name)
            if not module or not other or room(module) == room(other):
                continue
            if FLOOR[room(other)] >= FLOOR[room(module)]:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_no_module_imports_itself_on_a_way_around():
    below = {
        module: {module_of(name) for name in imports(path)} - {None, "", module}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            for other in below.get(module, ()):
                visit(other, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_nothing_imports_an_experiment():
    for path in (ROOT / "experiments").glob("*.py"):
        others = {name for name in imports(path) if name.startswith("experiments.")}
        assert not others, f"{path.name}: {others}"


def test_the_vocabulary_is_seen_in_one_file_and_losses_know_no_data():
    for module, path in MODULES.items():
        if room(module) == "losses":
            rooms = {room(other) for name in imports(path) if (other := module_of(name))}
            assert rooms <= {"errors", "losses"}, (module, rooms)
        if room(module) == "data":
            assert "models" not in {room(o) for n in imports(path) if (o := module_of(n))}, module
