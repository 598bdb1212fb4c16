"""Which modules are there to count?"""

from collections.abc import Iterator
from dataclasses import dataclass
from os import walk
from pathlib import Path

# Not source code of the package it lies in: caches, other packages, and the interpreter's own
# test suites, which hold files that are broken on purpose (lib2to3/tests/data, test/tokenizedata).
# Those suites are left out in the standard library only; what others ship as tests is code.
LEFT_OUT = frozenset({"__pycache__", "site-packages", "dist-packages"})
LEFT_OUT_OF_THE_STANDARD_LIBRARY = LEFT_OUT | {"test", "tests", "idle_test"}

# Larger ones are generated tables; one of them would hold the interpreter for a second.
LARGEST_MODULE = 256 * 1024


@dataclass(frozen=True)
class Package:
    """A folder of modules at the top of a root, or the single modules beside such folders."""

    root: str
    name: str
    modules: tuple[str, ...]


def find_packages(root: Path) -> list[Package]:
    """Return the packages below a root, by name, with their modules' paths relative to the root.

    A root that does not exist has none.
    """
    found: dict[str, list[str]] = {}
    for module in _modules(root):
        package = module.parts[0] if len(module.parts) > 1 else f"{root.name}/*.py"
        found.setdefault(package, []).append(str(module))
    return [Package(str(root), name, tuple(sorted(found[name]))) for name in sorted(found)]


def batch_size(modules: int, wanted_batches: int = 1500) -> int:
    """Return how many modules go into one task, for about the wanted number of tasks.

    Fewer modules than that give a task each.
    """
    return max(1, modules // wanted_batches)


def _modules(root: Path) -> Iterator[Path]:
    left_out = LEFT_OUT_OF_THE_STANDARD_LIBRARY if _is_standard_library(root) else LEFT_OUT
    for folder, folders, files in walk(root):
        folders[:] = sorted(set(folders) - left_out)
        for name in files:
            path = Path(folder, name)
            if path.suffix == ".py" and path.is_file() and path.stat().st_size <= LARGEST_MODULE:
                yield path.relative_to(root)


def _is_standard_library(root: Path) -> bool:
    return (root / "ast.py").is_file() and (root / "tokenize.py").is_file()
