"""How is a census taken, as a tree of tasks?

census                 one for each run
├── count_package      one for each package
│   └── count_modules  one for each batch of modules; the modules of the inbox one by one
└─→ report             when everything above has succeeded
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.utils import timezone

from cq import PREVIOUS, task
from demo.census import inventory
from demo.census.analysis import analyse_file
from demo.census.models import CensusRun, ModuleCount
from demo.census.reporting import summarise, write_report

if TYPE_CHECKING:
    from cq.context import Context

RUNS_KEPT = 24
KEEP_TREE = 24 * 60 * 60


@task(result_ttl=KEEP_TREE)
def census(cqt: Context, roots: list[str] | None = None) -> int:
    """Count what is installed below the roots and what lies in the inbox."""
    forget_old_runs()
    inbox = inventory.find_packages(Path(settings.DEMO_INBOX))
    packages = [
        package
        for root in roots or settings.DEMO_CENSUS_ROOTS
        for package in inventory.find_packages(Path(root))
    ]
    modules = sum(len(package.modules) for package in packages)
    size = inventory.batch_size(modules)
    run = CensusRun.objects.create(task_id=cqt.id, packages=len(packages) + len(inbox))
    cqt.log(f"{modules} modules in {len(packages)} packages, {size} to a task")

    cqt.subtask_many(
        count_package,
        [(package.name, package.root, package.modules, 1, run.pk) for package in inbox]
        + [(package.name, package.root, package.modules, size, run.pk) for package in packages],
    )
    cqt.chain(report, (PREVIOUS,))
    return run.pk


@task
def count_package(
    cqt: Context, package: str, root: str, modules: list[str], batch_size: int, run_id: int
) -> int:
    """Hand out the modules of a package in batches."""
    batches = list(in_batches(modules, batch_size))
    cqt.subtask_many(count_modules, [(package, root, batch, run_id) for batch in batches])
    cqt.log(f"{package}: {len(modules)} modules in {len(batches)} tasks", logging.DEBUG)
    return len(modules)


@task
def count_modules(
    cqt: Context, package: str, root: str, modules: list[str], run_id: int
) -> dict[str, int]:
    """Parse some modules and store what is in them.

    One that Python cannot parse fails the task with Python's own SyntaxError. Nothing of the
    batch is stored then; a retry reads the files again.
    """
    rows = []
    for done, module in enumerate(modules, start=1):
        facts = analyse_file(Path(root, module))
        rows.append(
            ModuleCount(
                run_id=run_id,
                package=package,
                path=str(Path(root, module)),
                lines=facts.lines,
                functions=facts.functions,
                classes=facts.classes,
                todos=facts.todos,
                longest_function=facts.longest_function,
                longest_function_lines=facts.longest_function_lines,
                imports=list(facts.imports),
            )
        )
        cqt.progress(done, len(modules), module)
    # The files were read first: from the first write on, SQLite keeps other writers waiting.
    # The rows commit together with this task's success, or not at all: none is there twice.
    ModuleCount.objects.bulk_create(rows)
    lines = sum(row.lines for row in rows)
    cqt.log(f"{package}: {lines} lines in {', '.join(modules)}")
    return {"modules": len(rows), "lines": lines}


@task(result_ttl=KEEP_TREE)
def report(cqt: Context, run_id: int) -> str:
    """Write what a census found to an HTML file."""
    run = CensusRun.objects.get(pk=run_id)
    cqt.progress(0, 2, "adding up")
    summary = summarise(run)
    cqt.progress(1, 2, "writing")
    write_report(run, summary)
    CensusRun.objects.filter(pk=run_id).update(reported=timezone.now())
    cqt.progress(2, 2)
    cqt.log(f"{summary.modules} modules, {summary.lines} lines: {run.report_path}")
    return str(run.report_path)


@task(result_ttl=600)
def heartbeat(cqt: Context) -> str:
    """Say that the schedule is alive."""
    cqt.log("still here")
    return timezone.now().isoformat()


def forget_old_runs(keep: int = RUNS_KEPT) -> None:
    """Delete all runs but the newest, with their reports."""
    for run in CensusRun.objects.order_by("-id")[keep:]:
        run.report_path.unlink(missing_ok=True)
        run.delete()


def in_batches(modules: list[str], size: int) -> Iterator[list[str]]:
    """Yield the modules in their order, *size* at a time."""
    for start in range(0, len(modules), size):
        yield modules[start : start + size]
