"""Which databases may the benchmarks fill and empty?"""

import os
import tempfile
from pathlib import Path

POSTGRES = os.environ.get("BENCH_POSTGRES", "postgresql://postgres@127.0.0.1:5432/cq_bench")
REDIS = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379/13")
# Worker logs, marks and the SQLite file of one run.
FOLDER = Path(os.environ.get("BENCH_FOLDER") or tempfile.gettempdir()) / "cq-bench"


def database_url() -> str:
    """The database of this process: PostgreSQL unless BENCH_DATABASE says SQLite."""
    if os.environ.get("BENCH_DATABASE") == "sqlite":
        return f"sqlite:///{FOLDER / 'bench.sqlite3'}"
    return POSTGRES
