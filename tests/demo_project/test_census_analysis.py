"""Does the census read source code as Python does?"""

from pathlib import Path
from textwrap import dedent

import pytest

from demo.census.analysis import analyse, analyse_file
from demo.census.inventory import LARGEST_MODULE, batch_size, find_packages


def source(text: str) -> bytes:
    return dedent(text).encode()


def test_functions_and_classes_count_wherever_they_are_nested() -> None:
    module = source(
        """
        class Outer:
            class Inner:
                async def fetch(self): ...

        try:
            if True:
                def one(): ...
            else:
                def two(): ...
        except OSError:
            def three(): ...
        finally:
            def four(): ...

        match 1:
            case 1:
                def five(): ...
        """
    )

    facts = analyse(module, "nested.py")

    assert facts.functions == 6
    assert facts.classes == 2


def test_the_longest_function_is_named_with_its_lines() -> None:
    module = source(
        """
        def short():
            return 1

        def long():
            a = 1
            b = 2
            return a + b
        """
    )

    facts = analyse(module, "long.py")

    assert facts.longest_function == "long"
    assert facts.longest_function_lines == 4


def test_a_module_without_functions_has_no_longest_one() -> None:
    facts = analyse(b"ANSWER = 42\n", "constant.py")

    assert facts.longest_function == ""
    assert facts.longest_function_lines == 0
    assert facts.lines == 1


def test_marks_count_in_comments_only() -> None:
    module = source(
        """
        # TODO: sort
        x = "TODO"  # FIXME later
        todo = 1  # nothing; TODOS is another word
        """
    )

    facts = analyse(module, "marks.py")

    assert facts.todos == 2


def test_imports_are_top_level_packages_without_relative_ones() -> None:
    module = source(
        """
        import os.path, sys
        from django.db import models
        from . import sibling
        from .cousin import thing
        def late():
            import json
        """
    )

    facts = analyse(module, "imports.py")

    assert facts.imports == ("django", "json", "os", "sys")


def test_a_module_that_does_not_parse_raises_with_its_file_and_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ny = (2\n")

    with pytest.raises(SyntaxError, match="was never closed") as caught:
        analyse_file(broken)

    assert caught.value.filename == str(broken)
    assert caught.value.lineno == 2


def test_a_coding_cookie_is_obeyed() -> None:
    module = b"# -*- coding: latin-1 -*-\nname = '\xe9'\n"

    assert analyse(module, "latin.py").lines == 2


def test_folders_at_the_top_are_packages_and_single_modules_are_one_more(tmp_path: Path) -> None:
    root = tmp_path / "site"
    for module in ("shop/__init__.py", "shop/cart/total.py", "six.py", "shop/data.txt"):
        path = root / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    packages = {package.name: package.modules for package in find_packages(root)}

    assert packages == {
        "shop": ("shop/__init__.py", "shop/cart/total.py"),
        "site/*.py": ("six.py",),
    }


def test_caches_and_generated_tables_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "stale.py").write_text("")
    (tmp_path / "table.py").write_bytes(b"#" * (LARGEST_MODULE + 1))
    (tmp_path / "just_fits.py").write_bytes(b"#" * LARGEST_MODULE)

    modules = [module for package in find_packages(tmp_path) for module in package.modules]

    assert modules == ["just_fits.py"]


def test_the_interpreters_own_tests_are_left_out_but_those_of_others_count(tmp_path: Path) -> None:
    standard, site = tmp_path / "std", tmp_path / "site"
    for module in ("ast.py", "tokenize.py", "test/bad_coding.py", "lib2to3/tests/data/crlf.py"):
        path = standard / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (site / "shop" / "tests").mkdir(parents=True)
    (site / "shop" / "tests" / "test_cart.py").write_text("")

    names = [package.name for package in find_packages(standard)]
    others = [module for package in find_packages(site) for module in package.modules]

    assert names == ["std/*.py"]
    assert others == ["shop/tests/test_cart.py"]


def test_a_root_that_does_not_exist_has_no_packages(tmp_path: Path) -> None:
    assert find_packages(tmp_path / "nowhere") == []


@pytest.mark.parametrize(("modules", "size"), [(0, 1), (1499, 1), (2999, 1), (3000, 2), (7600, 5)])
def test_batches_keep_a_tree_between_one_and_three_thousand_tasks(modules: int, size: int) -> None:
    assert batch_size(modules) == size
