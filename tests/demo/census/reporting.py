"""What did a census find, and how is that told?"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from django.contrib.staticfiles import finders
from django.db.models import Count, Max, Sum
from django.template.loader import render_to_string
from django.utils import timezone

from demo.census.models import CensusRun, ModuleCount

LISTED = 15


@dataclass(frozen=True)
class PackageSummary:
    """One package's share of a census."""

    name: str
    modules: int
    lines: int
    functions: int
    classes: int
    todos: int
    longest_function_lines: int


@dataclass(frozen=True)
class LongFunction:
    """A function of remarkable length, and where it is."""

    name: str
    path: str
    lines: int


@dataclass(frozen=True)
class ImportCount:
    """How many modules import a package."""

    name: str
    modules: int


@dataclass(frozen=True)
class Summary:
    """What a census found, added up; packages by their lines, the most first."""

    modules: int
    lines: int
    functions: int
    classes: int
    todos: int
    packages: tuple[PackageSummary, ...]
    longest_functions: tuple[LongFunction, ...]
    most_imported: tuple[ImportCount, ...]


def summarise(run: CensusRun) -> Summary:
    """Add up the modules that a census has counted."""
    packages = tuple(
        PackageSummary(
            name=row["package"],
            modules=row["module_count"],
            lines=row["line_count"],
            functions=row["function_count"],
            classes=row["class_count"],
            todos=row["todo_count"],
            longest_function_lines=row["longest"],
        )
        for row in run.modules.values("package")
        .annotate(
            module_count=Count("id"),
            line_count=Sum("lines"),
            function_count=Sum("functions"),
            class_count=Sum("classes"),
            todo_count=Sum("todos"),
            longest=Max("longest_function_lines"),
        )
        .order_by("-line_count", "package")
    )
    return Summary(
        modules=sum(package.modules for package in packages),
        lines=sum(package.lines for package in packages),
        functions=sum(package.functions for package in packages),
        classes=sum(package.classes for package in packages),
        todos=sum(package.todos for package in packages),
        packages=packages,
        longest_functions=_longest_functions(run),
        most_imported=_most_imported(run),
    )


def write_report(run: CensusRun, summary: Summary) -> None:
    """Write the report's file; who reads it meanwhile sees the old one or the new one, whole."""
    stylesheet = finders.find("census/census.css")
    text = render_to_string(
        "census/report.html",
        {
            "run": run,
            "summary": summary,
            "written": timezone.now(),
            # In the file itself: it is to look the same when it is sent to somebody.
            "style": Path(stylesheet).read_text("utf-8") if isinstance(stylesheet, str) else "",
        },
    )
    path = run.report_path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(text, "utf-8")
    unfinished.replace(path)


def _longest_functions(run: CensusRun) -> tuple[LongFunction, ...]:
    rows = run.modules.filter(longest_function_lines__gt=0).order_by(
        "-longest_function_lines", "path"
    )
    return tuple(
        LongFunction(row.longest_function, row.path, row.longest_function_lines)
        for row in rows[:LISTED]
    )


def _most_imported(run: CensusRun) -> tuple[ImportCount, ...]:
    counter: Counter[str] = Counter()
    rows = ModuleCount.objects.filter(run=run).values_list("imports", flat=True)
    for imports in rows.iterator():
        counter.update(imports)
    return tuple(ImportCount(name, modules) for name, modules in counter.most_common(LISTED))
