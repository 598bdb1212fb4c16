"""What does a visitor of the demo see?"""

from dataclasses import dataclass

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from cq.models import Task
from demo.census.models import CensusRun
from demo.census.operator import OPERATOR_NAME, OPERATOR_PASSWORD
from demo.census.tasks import census

RUNS_SHOWN = 10


@dataclass(frozen=True)
class Entry:
    """A census as the start page lists it; without a task once that was removed."""

    run: CensusRun
    task: Task | None


@require_safe
def start_page(request: HttpRequest) -> HttpResponse:
    """Say what this is, and list the last censuses."""
    runs = list(CensusRun.objects.all()[:RUNS_SHOWN])
    tasks = Task.objects.in_bulk([run.task_id for run in runs])
    return render(
        request,
        "census/start.html",
        {
            "entries": [Entry(run, tasks.get(run.task_id)) for run in runs],
            "operator_name": OPERATOR_NAME,
            "operator_password": OPERATOR_PASSWORD,
        },
    )


@require_POST
def start_census(request: HttpRequest) -> HttpResponse:
    """Enqueue a census and go where it can be watched."""
    task = census.delay()
    return redirect(reverse("admin:cq_task_change", args=[task.id]))


@require_safe
def report_page(request: HttpRequest, run_id: int) -> HttpResponse:
    """Show the report of a census."""
    run = get_object_or_404(CensusRun, pk=run_id)
    try:
        return HttpResponse(run.report_path.read_bytes())
    except FileNotFoundError:
        raise Http404(f"The report of census {run_id} has not been written yet.") from None
