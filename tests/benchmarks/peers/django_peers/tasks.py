"""Which tasks do the engines behind Django's own interface run?"""

import time

import bodies
from django.db import connection, transaction
from django.tasks import task


@task()
def noop(number):
    bodies.noop(number)


@task()
def stamp(sent):
    bodies.stamp(sent)


@task()
def effect(number):
    """The same as elsewhere, on Django's own connection."""
    time.sleep(0.1)
    with transaction.atomic(), connection.cursor() as cursor:
        bodies.write(cursor.execute, number)
    time.sleep(0.02)
