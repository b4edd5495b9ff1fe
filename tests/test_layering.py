"""The import law: which room may import which, and where Ray may be seen. Imports inside functions count."""

import ast
from collections.abc import Iterator
from pathlib import Path

from common.paths import CHECKOUT

MAY_IMPORT = {
    "common": {"common"},
    "actors": {"actors", "common"},
    "learner": {"learner", "common"},
    "deploy": {"deploy", "actors", "learner", "common"},
}
ROOMS = set(MAY_IMPORT)
RAY_SHELLS = ("_actor.py", "_pool.py", "_group.py")

FILES = sorted(path for room in ROOMS for path in (CHECKOUT / room).rglob("*.py"))


def imported_modules(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports name their room"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    return set(imported_modules(path.read_text()))


def packages_of(path: Path) -> set[str]:
    """The top-level names that a file imports."""
    return {module.partition(".")[0] for module in imports_of(path)}


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def room(path: Path) -> str:
    return name(path).partition("/")[0]


def may_see_ray(path: Path) -> bool:
    return room(path) == "deploy" or path.name.endswith(RAY_SHELLS)


def test_the_walk_sees_every_form_of_import() -> None:
    source = "import a.b\nfrom c import d\nclass X:\n    def f(self):\n        import e as g; from h.i import j\n"
    assert set(imported_modules(source)) == {"a.b", "c", "c.d", "e", "h.i", "h.i.j"}


def test_every_room_has_files() -> None:
    assert {room(path) for path in FILES} == ROOMS


def test_a_room_imports_only_the_rooms_below_it() -> None:
    imported = {name(path): packages_of(path) & ROOMS - MAY_IMPORT[room(path)] for path in FILES}
    assert {path: rooms for path, rooms in imported.items() if rooms} == {}


def test_no_room_imports_tests_or_their_tools() -> None:
    assert [
        name(path) for path in FILES if packages_of(path) & {"tests", "pytest", "hypothesis", "benchmarks"}
    ] == []


def test_ray_is_imported_in_deploy_and_in_ray_shells_only() -> None:
    importers = [path for path in FILES if "ray" in packages_of(path)]
    assert [name(path) for path in importers if not may_see_ray(path)] == []
    assert importers, "somebody must import Ray"


def test_a_pure_file_imports_no_ray_shell() -> None:
    """Else the core would import Ray by a detour."""
    shells = {name(path).removesuffix(".py").replace("/", ".") for path in FILES if path.name.endswith(RAY_SHELLS)}
    assert [name(path) for path in FILES if not may_see_ray(path) and imports_of(path) & shells] == []


def test_recipes_are_checked_without_heavy_imports() -> None:
    config = [path for path in FILES if name(path).startswith("common/config/") or path.name == "spec.py"]
    assert [name(path) for path in config if packages_of(path) & {"torch", "ray", "numpy", "pyarrow"}] == []
    own = {module for path in config for module in imports_of(path) if module.startswith("common.")}
    light = ("common.config", "common.errors", "common.paths", "common.text")
    assert {module for module in own if not module.startswith(light) and ".spec" not in module} == set()


def test_lpips_has_one_importer() -> None:
    assert [name(path) for path in FILES if "lpips" in packages_of(path)] == [
        "common/models/perceptual/lpips_metric.py"
    ]
