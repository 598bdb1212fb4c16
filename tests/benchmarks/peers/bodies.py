"""Which tasks does every peer run, and where do they leave their traces?"""

import os
import threading
import time
from pathlib import Path

POSTGRES = os.environ["PEERS_POSTGRES"]
REDIS = os.environ["PEERS_REDIS"]
MARKS = os.environ["PEERS_MARKS"]
COUNT = int(os.environ["PEERS_COUNT"])
_local = threading.local()


def noop(number):
    """Note when the first and the last of COUNT tasks ran."""
    if number in (0, COUNT - 1):
        with Path(MARKS, str(number)).open("w") as mark:
            mark.write(repr(time.time()))


def stamp(sent):
    """Append how long ago this task was sent, in seconds."""
    with Path(MARKS, "latency").open("a") as marks:
        marks.write(f"{time.time() - sent!r}\n")


def insert(number):
    """Insert one row, autocommitted, and note when."""
    _connection().execute("INSERT INTO bench_effect (number) VALUES (%s)", (number,))


def effect(number):
    """Work, have an effect in one transaction, and work on."""
    time.sleep(0.1)
    connection = _connection()
    with connection.transaction():
        write(connection.execute, number)
    time.sleep(0.02)


def write(execute, number):
    execute("INSERT INTO storm_effect (number) VALUES (%s)", (number,))
    execute("UPDATE storm_counter SET value = value + 1")


def _connection():
    import psycopg

    connection = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = psycopg.connect(POSTGRES, autocommit=True)
    return connection


ALL = (noop, stamp, insert, effect)
