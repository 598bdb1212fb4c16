#!/usr/bin/env python
"""How are the demo's management commands run?"""

import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run the command that the command line names, with the project and the demo importable."""
    # Python puts the script's own folder there: `census` would be importable under two names.
    script_folder = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != script_folder]
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
