"""The rows: what is stored, and which questions it answers."""

from .act import Act, ActItem
from .repeating import RepeatingRun, RepeatingTask, schedule_task
from .statistic import FailureGroup, Statistic
from .task import Attempt, Task, TaskLog
from .worker import HeldFunction, Queue, Worker

__all__ = [
    "Act",
    "ActItem",
    "Attempt",
    "FailureGroup",
    "HeldFunction",
    "Queue",
    "RepeatingRun",
    "RepeatingTask",
    "Statistic",
    "Task",
    "TaskLog",
    "Worker",
    "schedule_task",
]
