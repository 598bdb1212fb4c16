"""What does every fault test start from: an empty table of effects, and no workers yet?"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from . import effects
from .fleet import FULL, SAID, Fleet, say
from .servers import PostgresServer, own_postgres


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "full(*vendors): runs with make faults only, on these databases or on all"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to the full form what would make the short one long."""
    left_out = [item for item in items if not FULL and _is_for_full_form(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_for_full_form(item: pytest.Item) -> bool:
    marks = item.iter_markers("full")
    return any(not mark.args or connection.vendor in mark.args for mark in marks)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if SAID:
        terminalreporter.section("seeds and measurements")
        for line in SAID:
            terminalreporter.line(line)


@pytest.fixture
def chance() -> random.Random:
    """Random numbers whose seed is printed; CQ_FAULTS_SEED repeats a run."""
    seed = int(os.environ.get("CQ_FAULTS_SEED") or random.SystemRandom().randrange(2**32))
    say(f"CQ_FAULTS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def own_server(transactional_db: None) -> Iterator[PostgresServer]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def fleet(process_environment: dict[str, str], tmp_path: Path) -> Iterator[Fleet]:
    effects.create()
    environment = {**process_environment, "DJANGO_SETTINGS_MODULE": "faults.settings"}
    fleet = Fleet(environment, tmp_path)
    yield fleet
    fleet.stop()
    effects.drop()
    print(fleet.log() if (tmp_path / "workers.log").exists() else "")
