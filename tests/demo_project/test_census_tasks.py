"""Does a census store what is there, once, and report it?"""

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cq.ids import uuid7
from demo.census.models import CensusRun, ModuleCount
from demo.census.tasks import census, forget_old_runs, in_batches

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(tmp_path: Path, settings: Settings) -> Path:
    """A folder with a package of two modules, beside an inbox with one file."""
    settings.DEMO_INBOX = str(tmp_path / "inbox")
    settings.DEMO_REPORTS = str(tmp_path / "reports")
    files = {
        "site/shop/cart.py": "import json\n\n\ndef total(prices):\n    return sum(prices)\n",
        "site/shop/__init__.py": "",
        "inbox/tidy.py": "# TODO: more of these\n" * 1000,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "site"


def test_a_census_counts_each_module_once_and_writes_its_report(root: Path) -> None:
    run_id = census([str(root)])

    run = CensusRun.objects.get(pk=run_id)
    counted = {(row.package, Path(row.path).name, row.lines) for row in run.modules.all()}
    assert counted == {
        ("shop", "cart.py", 5),
        ("shop", "__init__.py", 0),
        ("inbox/*.py", "tidy.py", 1000),
    }
    assert run.reported is not None
    text = run.report_path.read_text()
    assert "1,005 lines of Python in 3 modules: 1\n    functions" in text
    assert "json" in text


def test_a_module_that_does_not_parse_stops_the_census_with_its_name(root: Path) -> None:
    (root / "shop" / "cart.py").write_text("total = (1 +\n")

    with pytest.raises(SyntaxError) as caught:
        census([str(root)])

    assert caught.value.filename == str(root / "shop" / "cart.py")
    assert not ModuleCount.objects.filter(path__endswith="cart.py").exists()


def test_names_found_in_source_code_are_escaped_in_the_report(root: Path) -> None:
    (root / "<b>shop").mkdir()
    (root / "<b>shop" / "a.py").write_text("def f(): ...\n")

    run = CensusRun.objects.get(pk=census([str(root)]))

    text = run.report_path.read_text()
    assert "&lt;b&gt;shop" in text
    assert "<b>shop" not in text


def test_old_censuses_are_forgotten_with_their_reports(settings: Settings, tmp_path: Path) -> None:
    settings.DEMO_REPORTS = str(tmp_path)
    runs = [CensusRun.objects.create(task_id=uuid7()) for _ in range(5)]
    for run in runs:
        run.report_path.write_text("counted")

    forget_old_runs(keep=2)

    assert list(CensusRun.objects.all()) == [runs[4], runs[3]]
    assert sorted(tmp_path.iterdir()) == sorted([runs[3].report_path, runs[4].report_path])


def test_batches_hold_every_module_in_order() -> None:
    assert list(in_batches(["a", "b", "c", "d", "e"], 2)) == [["a", "b"], ["c", "d"], ["e"]]
