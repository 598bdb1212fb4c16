"""Measure: run.py [drain|atomic|enqueue|latency|idle|tree|claims|memory|peers …] [--quick]"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A script's own folder is on the path; its modules are known by one name only.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from benchmarks.figures import Figure, table  # noqa: E402
from benchmarks.reference import at_the_speed_of_then  # noqa: E402

MEASURES = ("drain", "atomic", "enqueue", "latency", "idle", "tree", "claims", "memory", "peers")
ON_SQLITE = ("drain",)
QUICK = 0.25
_MARK = "figure "


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="measure", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="smaller numbers, fast peers only")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.measures) - set(MEASURES)
    if unknown:
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    if options.child:
        return _measure_here(options.child, is_quick=options.quick)
    # Where projects run, a process that starts does not compile what it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    began, load = time.monotonic(), os.getloadavg()[0]
    figures: list[Figure] = []
    failed = []
    for measure in options.measures or MEASURES:
        for database in ("postgresql", "sqlite") if measure in ON_SQLITE else ("postgresql",):
            found = _measure_in_child(measure, database, is_quick=options.quick)
            figures += found
            if not found:
                failed.append(f"{measure} on {database}")
    said = [*_ratios(figures), *at_the_speed_of_then(figures)]
    print(_machine(load), table(figures), *said, sep="\n\n")
    print(f"\n{time.monotonic() - began:.0f} s")
    for one in failed:
        print(f"FAILED: {one}; its output is above")
    return bool(failed) or any(figure.verdict == "MISSED" for figure in figures)


def _measure_in_child(measure: str, database: str, *, is_quick: bool) -> list[Figure]:
    """In a process of its own: what one measure warms up, the next does not find."""
    figures = []
    command = [sys.executable, __file__, "--child", measure, *(["--quick"] if is_quick else [])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "BENCH_DATABASE": database}
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(_MARK):
                figure = Figure.decoded(line.removeprefix(_MARK))
                figures.append(figure)
                print(table([figure]).splitlines()[-1], file=sys.stderr, flush=True)
            else:
                print(line, end="", file=sys.stderr, flush=True)
    return figures if child.returncode == 0 else []


def _measure_here(measure: str, *, is_quick: bool) -> int:
    from benchmarks import stage

    scale = float(os.environ.get("BENCH_SCALE") or (QUICK if is_quick else 1))
    os.environ["BENCH_FAST_PEERS_ONLY"] = "1" if is_quick else ""
    if measure != "peers":
        stage.set_up()
    for figure in import_module(f"benchmarks.{measure}").measure(scale):
        print(_MARK + figure.encoded(), flush=True)
    return 0


def _machine(load: float) -> str:
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores shared by caller, worker and "
        f"servers, Python {platform.python_version()}, load before the run {load:.1f}"
    )


def _ratios(figures: list[Figure]) -> list[str]:
    """How we compare with the best peer of the same run."""
    said = []
    for measure, ours in (
        ("drain", "django-cq, postgresql"),
        ("delay(), autocommit", "django-cq"),
        ("atomic INSERT, two processes", "django-cq"),
    ):
        own = [one.value for one in figures if (one.measure, one.who) == (measure, ours)]
        peers = [one for one in figures if one.measure == measure and "django-cq" not in one.who]
        said += [
            f"- {measure}: {value / one.value:.2f} times {one.who}"
            for value in own
            for one in sorted(peers, key=lambda peer: -peer.value)
        ]
    return ["\n".join(said)] if said else []


if __name__ == "__main__":
    sys.exit(main())
