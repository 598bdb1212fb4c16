"""What does the timeline of a task's page answer?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse

from cq.models import Task

from .. import arguments, durations, live, rows, statuses, timeline
from ..queries import timeline as queries
from . import page as pages

# A larger tree is drawn when its page is opened, not at every change.
TICK_BEFORE = 80
DRAWN_LIVE = 1_000


@dataclass(frozen=True, slots=True)
class BarShown:
    bar: timeline.Bar
    name: arguments.Name
    brief: str
    url: str
    duration: str
    word: str

    @property
    def indent(self) -> int:
        """Deeper levels than this are indented no further."""
        return min(self.bar.depth, 6)


def context(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, scene: rows.Scene
) -> dict[str, Any]:
    """The picture of the whole family's time."""
    return {"timeline_part": part(request, tasks, scene)}


def parts(request: HttpRequest, tasks: QuerySet[Task], scene: rows.Scene) -> list[live.Part]:
    """The picture again, while it moves and is small enough."""
    is_drawn = scene.family.total <= DRAWN_LIVE and not scene.family.is_capped
    return [part(request, tasks, scene)] if is_drawn else []


def part(request: HttpRequest, tasks: QuerySet[Task], scene: rows.Scene) -> live.Part:
    spans = queries.spans(tasks, scene.root.id, scene.heads, is_capped=scene.family.is_capped)
    picture = timeline.draw(spans, scene.heads, scene.now)
    context = {
        "picture": picture,
        "bars": _shown(tasks, picture) if picture else [],
        "ticks": [
            {
                "place": tick.place,
                "said": durations.axis(tick.after),
                # What stands behind the last line would be cut off on a phone.
                "is_before": tick.place > TICK_BEFORE,
            }
            for tick in picture.ticks
        ]
        if picture
        else [],
        "is_capped": scene.family.is_capped,
        "drawn": scene.now if scene.is_open and scene.family.total > DRAWN_LIVE else None,
    }
    return pages.part(request, "cq-timeline", "_timeline.html", context)


def _shown(tasks: QuerySet[Task], picture: timeline.Picture) -> list[BarShown]:
    labels = queries.labels(tasks, [bar.span for bar in picture.bars if bar.count == 1])
    return [
        BarShown(
            bar,
            arguments.name_of(bar.span.function),
            "" if bar.count > 1 else labels.get(bar.span.id, ""),
            _url(bar),
            durations.said(bar.duration) if bar.span.started or bar.count > 1 else "",
            statuses.word(bar.span.status),
        )
        for bar in picture.bars
    ]


def _url(bar: timeline.Bar) -> str:
    """A task's own page; of merged ones that of their parent, where they are listed."""
    id = bar.span.parent if bar.count > 1 and bar.span.parent else bar.span.id
    return reverse("admin:cq_task_change", args=[id])
