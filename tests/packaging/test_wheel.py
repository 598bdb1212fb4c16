"""Does what we publish give a working console in a project that knows nothing of this one?

Built, installed and started once for all tests here; each step is what a newcomer would type.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent

OPEN_CONSOLE = """
import os, re
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
from django.contrib.auth.models import User
from django.contrib.staticfiles.views import serve
from django.test import Client, RequestFactory

browser = Client(SERVER_NAME="127.0.0.1")
browser.force_login(User.objects.get(username="operator"))
for address in ("/admin/cq/", "/admin/cq/task/"):
    page = browser.get(address)
    print("page", page.status_code, address)
    for path in sorted(set(re.findall(r'"/?static/(cq_console/[^"?]+)', page.text))):
        print("static", serve(RequestFactory().get("/"), path).status_code, path)
"""

FIND_CONSOLE = """
from importlib.util import find_spec
print(*find_spec("cq_console").submodule_search_locations)
"""


def test_the_wheel_carries_both_packages_with_templates_static_files_and_migrations(
    built: Built,
) -> None:
    expected = source_files("cq", "cq_console")
    expected |= {f"cq_console/{name}" for name in source_files("templates", "static")}

    names = wheel_names(built.wheel)

    assert expected - names == set()
    assert {"cq/py.typed", "cq_console/py.typed", "cq/migrations/0001_initial.py"} <= names


def test_the_wheel_carries_nothing_else(built: Built) -> None:
    top = {name.split("/")[0] for name in wheel_names(built.wheel)}

    assert {name for name in top if not name.endswith(".dist-info")} == {"cq", "cq_console"}


def test_the_wheel_is_the_same_when_it_is_built_without_the_sdist(built: Built) -> None:
    assert wheel_names(built.wheel) == wheel_names(built.wheel_without_sdist)


def test_the_sdist_carries_templates_and_static_files_once_and_at_the_top(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]

    inside = ("cq_console/templates", "cq_console/static")
    assert all(names.count(name) == 1 for name in source_files("templates", "static"))
    assert [name for name in names if name.startswith(inside)] == []


def test_a_fresh_project_passes_the_system_checks(project: Project) -> None:
    output = project.manage("check", "--fail-level", "WARNING")

    assert "no issues" in output


def test_a_fresh_project_needs_no_migration_of_its_own(project: Project) -> None:
    project.manage("makemigrations", "--check", "--dry-run", "cq")


def test_a_fresh_project_opens_the_console(project: Project) -> None:
    project.manage("migrate", "--verbosity", "0")
    operator = ["--username", "operator", "--email", "operator@shop.example"]
    password = "only for this test"
    project.manage("createsuperuser", "--noinput", *operator, DJANGO_SUPERUSER_PASSWORD=password)

    lines = run([project.python, "-c", OPEN_CONSOLE], project.folder).splitlines()

    assert "page 200 /admin/cq/" in lines
    assert "page 200 /admin/cq/task/" in lines
    static = [line for line in lines if line.startswith("static ")]
    assert static
    assert all(line.startswith("static 200 ") for line in static)


def test_an_editable_install_uses_the_top_level_folders(tmp_path: Path) -> None:
    python = create_environment(tmp_path)
    run([*pip_install(python), "--no-deps", "--editable", REPOSITORY], tmp_path)

    (package,) = run([python, "-c", FIND_CONSOLE], tmp_path).split()

    assert Path(package, "templates").resolve() == REPOSITORY / "templates"
    assert Path(package, "static").resolve() == REPOSITORY / "static"


@dataclass(frozen=True)
class Built:
    """The files that a release would publish, and the wheel made without the detour."""

    sdist: Path
    wheel: Path
    wheel_without_sdist: Path


@dataclass(frozen=True)
class Project:
    """A fresh Django project with django-cq, in an environment of its own."""

    python: Path
    folder: Path

    def manage(self, *arguments: str, **environment: str) -> str:
        return run([self.python, "manage.py", *arguments], self.folder, **environment)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    detour, direct = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("direct")
    build = [sys.executable, "-m", "build", "--outdir"]
    run([*build, detour], REPOSITORY)
    run([*build, direct, "--wheel"], REPOSITORY)
    return Built(
        sdist=only_file(detour, "*.tar.gz"),
        wheel=only_file(detour, "*.whl"),
        wheel_without_sdist=only_file(direct, "*.whl"),
    )


@pytest.fixture(scope="session")
def empty_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which nothing but pip is installed."""
    return create_environment(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="session")
def project(
    built: Built, empty_environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """A project made by startproject and set up as the README says, with the wheel installed."""
    folder = tmp_path_factory.mktemp("shop")
    run([*pip_install(empty_environment), built.wheel], folder)
    run([empty_environment, "-m", "django", "startproject", "shop", "."], folder)
    settings = folder / "shop" / "settings.py"
    settings.write_text(follow_readme(settings.read_text()))
    return Project(empty_environment, folder)


def source_files(*folders: str) -> set[str]:
    """Return the files of these folders, without what Python leaves there."""
    return {
        str(path.relative_to(REPOSITORY))
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def follow_readme(settings: str) -> str:
    """Return startproject's settings with the README's block in place of its INSTALLED_APPS."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    block = next(block for block in blocks if "INSTALLED_APPS = [" in block)
    apps = re.search(r"INSTALLED_APPS = \[\n(.*?)\]\n", settings, re.DOTALL)
    assert apps is not None
    others = (
        apps[1]
        .replace('    "django.contrib.admin",\n', "")
        .replace("    'django.contrib.admin',\n", "")
    )
    assert "    # …\n" in block
    return settings.replace(apps[0], block.replace("    # …\n", others))


def create_environment(folder: Path) -> Path:
    run([sys.executable, "-m", "venv", folder], folder)
    return folder / "bin" / "python"


def pip_install(python: Path) -> list[str | Path]:
    return [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def only_file(folder: Path, pattern: str) -> Path:
    (file,) = folder.glob(pattern)
    return file


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Run a command outside of this test's own environment; return its output, fail with it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DJANGO_", "PYTHON"))}
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, f"{' '.join(map(str, command))}\n{ended.stdout}"
    return ended.stdout
