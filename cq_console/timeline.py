"""Which bars make up the picture of a tree's time, and which of its tasks made it take so long?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from cq.states import DONE, FAILED, Status

BARS = 200
# The silhouette of a merged bar says in so many steps how many of its tasks ran at a time.
STEPS = 120
HEIGHT = 12
TICKS = 6

# How many siblings of one function stand alone before they become one bar: the most that fit.
_ALONE = (BARS, 100, 50, 25, 12, 6, 3, 1, 0)
_TICK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Span:
    """When one task waited and ran, and where it stands in its tree."""

    id: UUID
    parent: UUID | None
    previous: UUID | None
    function: str
    status: str
    submitted: datetime
    started: datetime | None
    finished: datetime | None

    def end(self, now: datetime) -> datetime:
        return self.finished or now


@dataclass(frozen=True, slots=True)
class Bar:
    """One task, or siblings of one function as one; places are per cent of the axis."""

    span: Span
    depth: int
    count: int
    kind: str
    wait: tuple[float, float]
    run: tuple[float, float]
    is_critical: bool
    duration: timedelta
    # Of a merged bar: how many ran at a time, as the path of an area that is 100 by HEIGHT.
    silhouette: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    place: float
    after: timedelta


@dataclass(frozen=True, slots=True)
class Picture:
    """The bars from the top of the tree down; what does not fit is counted in *left_out*."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    start: datetime
    length: timedelta
    left_out: int = 0


def draw(spans: Sequence[Span], heads: Sequence[UUID], now: datetime) -> Picture | None:
    """The picture of a tree with these *heads*; None while nothing of it has begun."""
    begun = [span for span in spans if span.started is not None]
    if not begun:
        return None
    start = min(span.submitted for span in spans if span.id in set(heads)) if heads else now
    end = max(span.end(now) for span in begun)
    length = max(end - start, timedelta(milliseconds=10))
    critical = critical_path(spans, heads, now)
    children = _below(spans)
    axis = _Axis(start, length, now, critical)
    rows: list[Bar] = []
    for alone in _ALONE:
        rows = _rows(children, heads, {span.id: span for span in spans}, axis, alone)
        if len(rows) <= BARS:
            break
    return Picture(
        tuple(rows[:BARS]), _ticks(length), start, length, left_out=max(len(rows) - BARS, 0)
    )


def critical_path(spans: Sequence[Span], heads: Sequence[UUID], now: datetime) -> frozenset[UUID]:
    """What the tree's end waited for: again and again the child, then the predecessor, that
    finished last; one that still runs is the last of all.
    """
    by_id = {span.id: span for span in spans}
    children = _below(spans)
    found: set[UUID] = set()
    waiting = [[by_id[id] for id in heads if id in by_id]]
    while waiting:
        siblings = [span for span in waiting.pop() if span.started is not None]
        if not siblings:
            continue
        last: Span | None = max(siblings, key=lambda span: (span.end(now), span.id))
        while last is not None and last.id not in found:
            found.add(last.id)
            waiting.append(children.get(last.id, []))
            before = by_id.get(last.previous) if last.previous else None
            last = before if before is not None and before.started is not None else None
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Axis:
    start: datetime
    length: timedelta
    now: datetime
    critical: frozenset[UUID]

    def place(self, moment: datetime) -> float:
        share = (moment - self.start) / self.length
        return round(min(max(share, 0.0), 1.0) * 100, 2)

    def stretch(self, begin: datetime, end: datetime) -> tuple[float, float]:
        """Place and width; whatever was, is wide enough to be seen."""
        left = min(self.place(begin), 99.7)
        return left, max(round(self.place(end) - left, 2), 0.3)


def _below(spans: Iterable[Span]) -> dict[UUID, list[Span]]:
    found: dict[UUID, list[Span]] = {}
    for span in spans:
        if span.parent is not None:
            found.setdefault(span.parent, []).append(span)
    return found


def _rows(
    children: Mapping[UUID, Sequence[Span]],
    heads: Sequence[UUID],
    by_id: Mapping[UUID, Span],
    axis: _Axis,
    alone: int,
) -> list[Bar]:
    """The bars when at most *alone* siblings of one function stand alone; ends past the limit."""
    rows: list[Bar] = []
    waiting: list[tuple[Sequence[Span], int]] = [
        ([by_id[id]], 0) for id in reversed(heads) if id in by_id
    ]
    while waiting and len(rows) <= BARS:
        group, depth = waiting.pop()
        if len(group) > 1:
            rows.append(_merged(group, depth, axis))
            continue
        rows.append(_single(group[0], depth, axis))
        groups = _grouped(children.get(group[0].id, ()), axis.critical, alone)
        waiting += [(below, depth + 1) for below in reversed(groups)]
    return rows


def _grouped(
    siblings: Sequence[Span], critical: frozenset[UUID], alone: int
) -> list[Sequence[Span]]:
    """Siblings in their order; of one function and fate, more than *alone* go together."""
    fates: dict[tuple[str, bool], list[Span]] = {}
    for span in sorted(siblings, key=lambda span: span.id):
        if span.id not in critical:
            fates.setdefault((span.function, span.status in FAILED), []).append(span)
    merged = {key for key, group in fates.items() if len(group) > max(alone, 1)}
    groups: list[Sequence[Span]] = [fates[key] for key in merged]
    groups += [
        [span]
        for span in siblings
        if span.id in critical or (span.function, span.status in FAILED) not in merged
    ]
    return sorted(groups, key=lambda group: group[0].id)


def _single(span: Span, depth: int, axis: _Axis) -> Bar:
    end = span.end(axis.now)
    begun = span.started or end
    return Bar(
        span,
        depth,
        1,
        _kind(span.status),
        axis.stretch(span.submitted, begun),
        axis.stretch(begun, end) if span.started else (0.0, 0.0),
        span.id in axis.critical,
        end - begun,
    )


def _merged(group: Sequence[Span], depth: int, axis: _Axis) -> Bar:
    ran = [span for span in group if span.started is not None]
    submitted = min(span.submitted for span in group)
    if not ran:
        return replace(_single(group[0], depth, axis), count=len(group))
    first = min(span.started for span in ran if span.started is not None)
    last = max(span.end(axis.now) for span in ran)
    kinds = {_kind(span.status) for span in ran}
    return Bar(
        group[0],
        depth,
        len(group),
        next((kind for kind in ("failed", "running") if kind in kinds), "done"),
        axis.stretch(submitted, first),
        axis.stretch(first, last),
        is_critical=False,
        duration=last - first,
        silhouette=_silhouette(ran, first, last, axis.now),
    )


def _silhouette(spans: Sequence[Span], first: datetime, last: datetime, now: datetime) -> str:
    length = max(last - first, timedelta(microseconds=1))
    change = [0] * (STEPS + 1)
    for span in spans:
        begin = min(int(((span.started or first) - first) / length * STEPS), STEPS - 1)
        end = min(int((span.end(now) - first) / length * STEPS), STEPS - 1)
        change[begin] += 1
        change[end + 1] -= 1
    running, most = 0, 0
    levels = []
    for step in change[:STEPS]:
        running += step
        most = max(most, running)
        levels.append(running)
    path = [f"M0 {HEIGHT}"]
    shown = -1.0
    for index, level in enumerate(levels):
        top = round(HEIGHT - level / most * HEIGHT, 1)
        if top != shown:
            path.append(f"H{index / STEPS * 100:.4g}V{top:g}")
            shown = top
    return "".join([*path, f"H100V{HEIGHT}Z"])


def _kind(status: str) -> str:
    if status in (Status.FAILURE, Status.LOST):
        return "failed"
    if status in DONE:
        return "done"
    return "running" if status == Status.RUNNING else "open"


def _ticks(length: timedelta) -> tuple[Tick, ...]:
    seconds = length.total_seconds()
    scale = 1.0
    while seconds / scale < 9.99:
        scale /= 10
    step = next(
        (step * scale for step in _TICK_STEPS if seconds / (step * scale) <= TICKS),
        seconds / TICKS,
    )
    found = []
    index = 0
    while index * step <= seconds * 0.97:
        place = round(index * step / seconds * 100, 2)
        found.append(Tick(place, timedelta(seconds=index * step)))
        index += 1
    return tuple(found)
