"""Does the code that the README shows run?"""

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

README = Path(__file__).resolve().parent.parent.parent / "README.md"


@pytest.fixture
def example() -> Iterator[ModuleType]:
    """The first piece of Python in the README, as a module."""
    found = re.search(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    module = ModuleType("readme_example")
    sys.modules[module.__name__] = module
    exec(compile(found[1], str(README), "exec"), vars(module))
    yield module
    del sys.modules[module.__name__]


def test_the_example_runs_here_and_now(
    example: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="cq"):
        count = example.album(["sea.jpg", "sun.jpg"])

    assert count == 2
    assert caplog.messages == ["shrinking sea.jpg", "shrinking sun.jpg", "2 pictures are ready"]


@pytest.mark.django_db
def test_the_example_can_be_queued(example: ModuleType) -> None:
    task = example.album.delay(["sea.jpg"])

    assert task.status == task.STATUS_QUEUED
    assert task.func_name == "readme_example.album"


def test_every_file_and_picture_that_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())

    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
