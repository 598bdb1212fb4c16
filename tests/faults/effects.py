"""What have the tasks of the fault suite done to the database, and how often?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.db import connection


@dataclass(frozen=True)
class Effects:
    """All three are equal to the number of tasks when each had its effect exactly once."""

    rows: int
    keys: int
    counter: int


def exactly_once(tasks: int) -> Effects:
    return Effects(rows=tasks, keys=tasks, counter=tasks)


def create() -> None:
    drop()
    with connection.cursor() as cursor:
        # No unique key: a second effect is to be seen, not to be refused.
        cursor.execute("CREATE TABLE faults_effect (name varchar(80) NOT NULL)")
        cursor.execute("CREATE TABLE faults_page (name varchar(80) NOT NULL)")
        cursor.execute("CREATE TABLE faults_counter (value integer NOT NULL)")
        cursor.execute("INSERT INTO faults_counter VALUES (0)")


def drop() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS faults_effect")
        cursor.execute("DROP TABLE IF EXISTS faults_counter")
        cursor.execute("DROP TABLE IF EXISTS faults_page")


def insert(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO faults_effect VALUES (%s)", [name])


def write_page(name: str) -> None:
    """What a web process writes, that is no task."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO faults_page VALUES (%s)", [name])


def increment() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE faults_counter SET value = value + 1")


def seen() -> Effects:
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*), COUNT(DISTINCT name) FROM faults_effect")
        rows, keys = cursor.fetchone()
        cursor.execute("SELECT value FROM faults_counter")
        (counter,) = cursor.fetchone()
    return Effects(rows, keys, counter)


def names() -> Counter[str]:
    """How often each name is there."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, COUNT(*) FROM faults_effect GROUP BY name")
        return Counter(dict(cursor.fetchall()))


def pages() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM faults_page")
        return {row[0] for row in cursor.fetchall()}
