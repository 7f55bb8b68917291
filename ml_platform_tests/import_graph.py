"""The graph of a package's imports, read from its source: also those inside functions and under `TYPE_CHECKING`."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import of one module by another, and where it is written."""

    importer: str
    imported: str
    place: str  # path:line

    def __str__(self) -> str:
        return f"{self.place}: {self.importer} imports {self.imported}"


def modules_of(root: Path, packages: Iterable[str]) -> dict[str, Path]:
    """Find all modules of the packages below `root`: name → file."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(root: Path, packages: Iterable[str]) -> list[Import]:
    """Read every import of the packages' own modules by one another."""
    modules = modules_of(root, packages)
    found = []
    for importer, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _names(node):
                imported = name if name in modules else name.rpartition(".")[0]
                if imported in modules and imported != importer:
                    found.append(Import(importer, imported, f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"))
    return found


def circles(edges: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Find the shortest circle through each node that lies on one, each circle once: [a, b, c] for a → b → c → a."""
    seen: set[frozenset[str]] = set()
    for start in edges:
        paths, reached = [[start]], {start}
        circle: list[str] | None = None
        while paths and circle is None:
            path = paths.pop(0)
            for following in edges.get(path[-1], ()):
                if following == start:
                    circle = path
                    break
                if following not in reached:
                    reached.add(following)
                    paths.append([*path, following])
        if circle is not None and frozenset(circle) not in seen:
            seen.add(frozenset(circle))
            yield circle


def circles_in_words(imports: Iterable[Import], group: Mapping[str, str] | None = None) -> list[str]:
    """Describe each circle of imports by the lines that close it; `group` joins modules (module → its group)."""
    lines: dict[tuple[str, str], Import] = {}
    edges: dict[str, dict[str, None]] = defaultdict(dict)
    for one in imports:
        importer, imported = (
            (one.importer, one.imported) if group is None else (group[one.importer], group[one.imported])
        )
        if importer != imported:
            lines.setdefault((importer, imported), one)
            edges[importer][imported] = None
    return [
        "circle of imports:\n"
        + "\n".join(f"  {lines[pair]}" for pair in zip(circle, circle[1:] + circle[:1], strict=True))
        for circle in circles(edges)
    ]


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []
