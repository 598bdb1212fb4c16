"""What is in this Python module?"""

import ast
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# One module at a time: Python 3.11 counts the depth of its parser for all threads together, and
# takes the steps of another thread for its own ("AST constructor recursion depth mismatch").
_parser = threading.Lock()

TODO_MARK = re.compile(rb"#[^\n]*\b(?:TODO|FIXME|XXX)\b")


@dataclass(frozen=True)
class ModuleFacts:
    """What the source of one module says about it."""

    lines: int
    functions: int
    classes: int
    todos: int
    longest_function: str
    longest_function_lines: int
    imports: tuple[str, ...]


def analyse(source: bytes, filename: str) -> ModuleFacts:
    """Return the facts of a module's source.

    Raises the SyntaxError that Python itself would raise, with *filename* and the line in it.
    """
    with _parser:
        tree = ast.parse(source, filename)
    statements = list(_statements(tree))
    functions = [s for s in statements if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max(functions, key=_length, default=None)
    return ModuleFacts(
        lines=len(source.splitlines()),
        functions=len(functions),
        classes=sum(isinstance(s, ast.ClassDef) for s in statements),
        todos=len(TODO_MARK.findall(source)),
        longest_function=longest.name[:200] if longest else "",
        longest_function_lines=_length(longest) if longest else 0,
        imports=tuple(sorted({name for s in statements for name in _imported(s)})),
    )


def analyse_file(path: Path) -> ModuleFacts:
    """Return the facts of the module in a file, as it is now."""
    return analyse(path.read_bytes(), str(path))


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    # Only what can hold statements is entered: expressions are nine tenths of a tree, and
    # nothing that is counted here lives in them.
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            below = getattr(node, block, None)
            if isinstance(below, list):
                waiting.extend(below)


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _imported(statement: ast.stmt) -> Iterator[str]:
    """Yield the top-level packages that an import statement names; relative ones name none."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield alias.name.partition(".")[0]
    elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
        yield statement.module.partition(".")[0]
