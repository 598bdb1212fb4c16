"""What does a measure report, and is it enough?"""

from __future__ import annotations

import json
import operator
from dataclasses import asdict, dataclass
from typing import Any

_SIGNS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Figure:
    """One measured number. *target* is a comparison like ``>= 10000``, or empty."""

    measure: str
    who: str
    value: float
    unit: str
    verified: str
    target: str = ""

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        sign, bound = self.target.split()
        return "ok" if _SIGNS[sign](self.value, float(bound)) else "MISSED"

    def encoded(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decoded(cls, line: str) -> Figure:
        values: dict[str, Any] = json.loads(line)
        return cls(**values)


def table(figures: list[Figure]) -> str:
    """*figures* as a Markdown table."""
    lines = [
        "| measure | who | figure | target | what was verified |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for one in figures:
        number = f"{one.value:,.0f}" if abs(one.value) >= 100 else f"{one.value:,.2f}"
        target = f"{one.target} {one.verdict}".strip()
        lines.append(
            f"| {one.measure} | {one.who} | {number} {one.unit} | {target} | {one.verified} |"
        )
    return "\n".join(lines)
