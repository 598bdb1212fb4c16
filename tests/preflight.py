"""Can this machine run the demo, and if not, what is the one thing to do about it?

Runs before anything is installed, under whatever python3 there is: standard library only, and
nothing that an old Python could not parse.
"""

import argparse
import socket
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 11)
VENV_PIP = Path(__file__).resolve().parent.parent / ".venv" / "bin" / "pip"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", help="a port of 127.0.0.1 that must be free")
    port = parser.parse_args().port

    complaint = complain_about_python() or (port is not None and complain_about_port(port))
    if complaint:
        sys.exit(complaint)


def complain_about_python() -> str:
    if sys.version_info < OLDEST_PYTHON:
        return "django-cq needs Python {}.{} or newer; {} is {}.{}".format(
            *OLDEST_PYTHON, sys.executable, *sys.version_info
        )
    if VENV_PIP.exists():
        return ""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "Python's venv module is missing. On Debian or Ubuntu: apt install python3-venv"
    return ""


def complain_about_port(text: str) -> str:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        return f"PORT={text} is not a port: give a number from 1 to 65535"
    port = int(text)
    with socket.socket() as probe:
        # As the server does: a port that merely waits out its last connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            another = port % 65535 + 1
            return f"Port {port}: {error.strerror}. Try another one: make demo PORT={another}"
    return ""


if __name__ == "__main__":
    main()
