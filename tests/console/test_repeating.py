"""Is a repeating task listed, edited, previewed and run as an operator expects?"""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from time import perf_counter, process_time
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from console.conftest import Staff
from cq import operations, task
from cq.context import Context
from cq.crontab import parse
from cq.models import Act, RepeatingRun, RepeatingTask, Task
from cq_console.repeating import load, preview, queries

HEARTBEAT = "demo.census.tasks.heartbeat"
URL = "/admin/cq/repeatingtask/"
NOW = datetime(2026, 10, 24, 12, tzinfo=UTC)


@task("mails.sent")
def send(cqt: Context, addr: str, password: str = "", *, tries: int = 1) -> None:
    """Send one mail."""


@pytest.fixture(autouse=True)
def nothing_repeats(db: None) -> None:
    RepeatingTask.objects.all().delete()


def entry(**fields: object) -> RepeatingTask:
    values = {"crontab": "30 2 * * *", "timezone": "Europe/Berlin", "func_name": HEARTBEAT}
    return RepeatingTask.objects.create(**{**values, **fields})


def form(**changes: str) -> dict[str, str]:
    return {
        "name": "Nightly",
        "func_name": HEARTBEAT,
        "args": "[]",
        "kwargs": "{}",
        "crontab": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "missed": "latest",
        "queue": "",
        "priority": "",
        "result_ttl": "",
        "coalesce": "on",
        "overlap": "on",
        "enabled": "on",
        "pause_reason": "",
        **changes,
    }


def test_an_entry_is_added(operator: Client) -> None:
    response = operator.post(f"{URL}add/", form())

    assert response.status_code == 302
    stored = RepeatingTask.objects.get()
    assert (stored.name, stored.crontab, stored.timezone) == (
        "Nightly",
        "30 2 * * *",
        "Europe/Berlin",
    )
    assert stored.next_run is not None
    assert stored.next_run > timezone.now()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"crontab": "61 2 * * *"}, "minute"),
        ({"crontab": "0 0 30 2 *"}, "day of month"),
        ({"func_name": "demo.census.tasks.heartbaet"}, "Did you mean"),
        ({"args": "[1, 2]"}, "do not fit"),
        ({"timezone": "Europe/Atlantis"}, "not a time zone"),
    ],
)
def test_what_would_never_run_is_refused(
    operator: Client, changes: dict[str, str], complaint: str
) -> None:
    response = operator.post(f"{URL}add/", form(**changes))

    assert response.status_code == 200
    assert complaint in response.content.decode()
    assert not RepeatingTask.objects.exists()


def test_the_preview_is_what_the_scheduler_will_do(operator: Client) -> None:
    expected = entry().upcoming(10)

    html = operator.get(
        f"{URL}_preview/", {"crontab": "30 2 * * *", "timezone": "UTC"}
    ).content.decode()
    berlin = operator.get(
        f"{URL}_preview/", {"crontab": "30 2 * * *", "timezone": "Europe/Berlin"}
    ).content.decode()
    berlin = re.sub(r"<[^>]+>", "", berlin)

    assert "At 02:30" in html
    for moment in expected:
        assert f"{moment:%H:%M}" in berlin
        assert f"{moment.day} {moment:%b %Y}" in berlin


def test_the_preview_shows_both_zones(operator: Client) -> None:
    operator.cookies["cq_tz"] = "Asia/Kathmandu"

    html = operator.get(
        f"{URL}_preview/", {"crontab": "30 2 * * *", "timezone": "UTC"}
    ).content.decode()

    assert "yours: Asia/Kathmandu" in html
    assert "08:15" in html


@pytest.mark.parametrize(
    "crontab", ["", "x", "* * * *", "*/0 * * * *", "9" * 5000, "<script>", "0 0 30 2 *", "\x00"]
)
def test_the_preview_answers_any_text(operator: Client, crontab: str) -> None:
    response = operator.get(f"{URL}_preview/", {"crontab": crontab, "timezone": "UTC"})

    assert response.status_code == 200
    assert b"<script>" not in response.content


def test_the_wrong_field_is_marked(operator: Client) -> None:
    html = operator.get(
        f"{URL}_preview/", {"crontab": "0 25 * * *", "timezone": "UTC"}
    ).content.decode()

    assert '<mark class="cq-wrong-field">25</mark>' in html


def test_the_signature_is_shown_and_arguments_are_checked(operator: Client) -> None:
    shown = operator.get(f"{URL}_signature/", {"func_name": HEARTBEAT, "args": "[]"})
    wrong = operator.get(f"{URL}_signature/", {"func_name": HEARTBEAT, "args": "[1]"})
    broken = operator.get(f"{URL}_signature/", {"func_name": HEARTBEAT, "args": "[1"})

    assert "heartbeat()" in shown.content.decode()
    assert "cq-wrong" not in shown.content.decode()
    assert "do not fit" in wrong.content.decode()
    assert broken.status_code == 200
    assert "cq-wrong" in broken.content.decode()


def test_run_now_queues_a_task_and_is_remembered(operator: Client) -> None:
    repeating = entry()

    response = operator.post(f"{URL}{repeating.pk}/run/")

    assert response.status_code == 303
    assert Task.objects.get().func_name == HEARTBEAT
    act = Act.objects.get()
    assert (act.verb, act.by_name, act.way) == ("run now", "olga", "console")


def test_run_now_needs_its_permission(staff: Staff) -> None:
    repeating = entry()
    client = staff("view_repeatingtask", "change_repeatingtask")

    button = client.get(URL).content.decode()
    response = client.post(f"{URL}{repeating.pk}/run/")
    client.post(URL, {"action": "run_selected", "_selected_action": repeating.pk})

    assert "Run now</button>" not in button
    assert response.status_code == 403
    assert not Task.objects.exists()


def test_run_now_is_not_a_link(operator: Client) -> None:
    repeating = entry()

    assert operator.get(f"{URL}{repeating.pk}/run/").status_code == 404
    assert not Task.objects.exists()


def test_disabling_needs_the_permission_to_change(staff: Staff) -> None:
    repeating = entry()
    client = staff("view_repeatingtask", "run_repeatingtask")

    client.post(URL, {"action": "disable_selected", "_selected_action": repeating.pk})

    repeating.refresh_from_db()
    assert repeating.enabled


def test_a_disabled_entry_has_no_next_run(operator: Client) -> None:
    repeating = entry()

    operator.post(URL, {"action": "disable_selected", "_selected_action": repeating.pk})

    repeating.refresh_from_db()
    assert not repeating.enabled
    assert repeating.next_run is None


def test_the_list_says_when_and_how_it_went(operator: Client) -> None:
    repeating = entry(name="Nightly", timezone="UTC")
    now = timezone.now()
    for n in range(3):
        RepeatingRun.objects.create(
            entry=repeating,
            tick=now - timedelta(days=3 - n),
            started=now,
            finished=now + timedelta(seconds=7),
            outcome="failed" if n == 2 else "succeeded",
        )

    html = operator.get(URL).content.decode()

    assert "At 02:30" in html
    assert "1 of 3 failed" in html
    assert "7.0 s" in html
    assert html.count('class="cq-outcome"') == 3


@pytest.mark.parametrize("count", [1, 20])
def test_the_runs_of_all_entries_cost_one_query(operator: Client, count: int) -> None:
    for n in range(count):
        RepeatingRun.objects.create(entry=entry(name=f"entry {n}"))
    operator.get(URL)

    with CaptureQueriesContext(connection) as queries:
        operator.get(URL)

    assert len([q for q in queries if "cq_repeatingrun" in q["sql"]]) == 1


def test_the_last_runs_are_the_newest_of_each_entry_with_what_its_task_does() -> None:
    one, other, idle = entry(), entry(), entry()
    made = [RepeatingRun.objects.create(entry=one) for _ in range(queries.STRIP + 2)]
    running = one.submit()
    Task.objects.filter(pk=running.pk).update(status="R", ready=None)
    last = RepeatingRun.objects.create(entry=other, outcome="failed")

    found = queries.last_runs([one.pk, other.pk, idle.pk])

    newest = RepeatingRun.objects.get(task_id=running.pk)
    kept = [*reversed(made)][: queries.STRIP - 1]
    assert [run.pk for run in found[one.pk]] == [newest.pk, *(run.pk for run in kept)]
    assert [run.task_status for run in found[one.pk][:2]] == ["R", None]
    assert [(run.pk, run.outcome) for run in found[other.pk]] == [(last.pk, "failed")]
    assert idle.pk not in found
    assert queries.last_runs([]) == {}


def test_an_entry_whose_function_has_vanished_says_so(operator: Client) -> None:
    entry(func_name="gone.task", error="No task is registered as 'gone.task'.")

    html = operator.get(URL).content.decode()

    assert "cannot run:" in html


# The switch, pausing, skipping


def test_the_switch_pauses_and_resumes_with_an_audit_entry(operator: Client) -> None:
    repeating = entry(name="Nightly")

    paused = operator.post(f"{URL}{repeating.pk}/switch/", {"to": "off", "reason": "stocktaking"})

    repeating.refresh_from_db()
    assert paused.status_code == 303
    assert (repeating.enabled, repeating.next_run) == (False, None)
    assert repeating.pause_reason == "stocktaking"
    assert "paused: stocktaking" in operator.get(URL).content.decode()

    operator.post(f"{URL}{repeating.pk}/switch/", {"to": "on"})

    repeating.refresh_from_db()
    assert repeating.enabled
    assert repeating.next_run is not None
    assert repeating.pause_reason == ""
    acts = Act.objects.order_by("id").values_list("verb", "target", "reason", "by_name", "way")
    assert list(acts) == [
        ("pause", "Nightly", "stocktaking", "olga", "console"),
        ("resume", "Nightly", "", "olga", "console"),
    ]
    assert LogEntry.objects.filter(object_id=repeating.pk).count() == 2


def test_pressing_the_switch_twice_does_it_once(operator: Client) -> None:
    repeating = entry()

    for _ in range(2):
        operator.post(f"{URL}{repeating.pk}/switch/", {"to": "off"})

    assert Act.objects.count() == 1


def test_skip_next_lets_the_tick_that_was_shown_pass(operator: Client) -> None:
    repeating = entry()
    shown, following = repeating.upcoming(2)

    operator.post(f"{URL}{repeating.pk}/skip/", {"shown": shown.isoformat()})
    operator.post(f"{URL}{repeating.pk}/skip/", {"shown": shown.isoformat()})

    repeating.refresh_from_db()
    assert repeating.next_run == following
    assert [run.tick for run in repeating.runs.all()] == [shown]
    assert Act.objects.get().verb == "skip next"


@pytest.mark.parametrize(
    ("address", "data", "lacking"),
    [
        ("switch/", {"to": "off"}, "change_repeatingtask"),
        ("skip/", {}, "change_repeatingtask"),
        ("run/", {}, "run_repeatingtask"),
        ("run-with/", {"args": "[]", "kwargs": "{}"}, "run_repeatingtask"),
    ],
)
def test_each_verb_needs_its_permission(
    staff: Staff, address: str, data: dict[str, str], lacking: str
) -> None:
    repeating = entry()
    held = {"view_repeatingtask", "change_repeatingtask", "run_repeatingtask"} - {lacking}
    client = staff(*held)

    response = client.post(f"{URL}{repeating.pk}/{address}", data)

    repeating.refresh_from_db()
    assert response.status_code == 403
    assert repeating.enabled
    assert not Task.objects.exists()
    assert not Act.objects.exists()


@pytest.mark.parametrize("action", ["enable_selected", "disable_selected", "run_selected"])
def test_bulk_actions_leave_an_audit_entry_for_each(operator: Client, action: str) -> None:
    chosen = [entry(enabled=action != "enable_selected").pk for _ in range(3)]
    entry()

    operator.post(URL, {"action": action, "_selected_action": chosen})

    assert Act.objects.count() == LogEntry.objects.count() == 3


# Run once with other arguments


def test_it_runs_once_with_other_arguments_and_the_entry_stays(operator: Client) -> None:
    repeating = entry(func_name="mails.sent", args=["a@b"])

    asked = operator.get(f"{URL}{repeating.pk}/run-with/").content.decode()
    response = operator.post(
        f"{URL}{repeating.pk}/run-with/",
        {"args": '["c@d"]', "kwargs": '{"tries": 3}', "reason": "a test"},
    )

    repeating.refresh_from_db()
    stored = Task.objects.get()
    assert "a@b" in asked
    assert response.status_code == 303
    assert (stored.args, stored.kwargs) == (["c@d"], {"tries": 3})
    assert repeating.args == ["a@b"]
    assert Act.objects.get().reason == "a test"


def test_arguments_that_do_not_fit_run_nothing(operator: Client) -> None:
    repeating = entry(func_name="mails.sent", args=["a@b"])

    for args in ("[]", "5", "[1", '{"addr": 1}'):
        response = operator.post(f"{URL}{repeating.pk}/run-with/", {"args": args, "kwargs": "{}"})
        assert response.status_code == 200

    assert not Task.objects.exists()


def test_asking_writes_nothing(operator: Client) -> None:
    repeating = entry()

    operator.get(f"{URL}{repeating.pk}/run-with/")
    operator.get(f"{URL}{repeating.pk}/change/")

    assert not Act.objects.exists()
    assert not LogEntry.objects.exists()
    assert not Task.objects.exists()


# Secrets


def test_a_secret_is_masked_in_the_form_and_stays_when_it_is_saved(operator: Client) -> None:
    repeating = entry(
        func_name="mails.sent", args=["a@b", "hunter2"], kwargs={"tries": 2}, crontab="1 1 * * *"
    )
    url = f"{URL}{repeating.pk}/change/"

    html = operator.get(url).content.decode()
    masked = '["a@b", "••••••••"]'
    operator.post(
        url, form(func_name="mails.sent", args=masked, kwargs='{"tries": 4}', crontab="2 2 * * *")
    )

    repeating.refresh_from_db()
    assert "hunter2" not in html
    assert repeating.crontab == "2 2 * * *"
    assert (repeating.args, repeating.kwargs) == (["a@b", "hunter2"], {"tries": 4})


def test_who_may_only_look_sees_no_secret(staff: Staff) -> None:
    repeating = entry(func_name="mails.sent", args=["a@b", "hunter2"])

    html = staff("view_repeatingtask").get(f"{URL}{repeating.pk}/change/").content.decode()

    assert "a@b" in html
    assert "hunter2" not in html
    assert "Run now" not in html


# The form


@pytest.mark.parametrize(
    "changes",
    [
        {"args": "5"},
        {"args": '{"a": 1}'},
        {"kwargs": "[1]"},
        {"args": "[1"},
        {"queue": "no queue!"},
        {"priority": "101"},
        {"priority": "99999999"},
    ],
)
def test_what_is_no_call_is_refused(operator: Client, changes: dict[str, str]) -> None:
    response = operator.post(f"{URL}add/", form(**changes))

    assert response.status_code == 200
    assert b"errorlist" in response.content
    assert not RepeatingTask.objects.exists()


@pytest.mark.parametrize("args", ["[1]", "5", "[[" * 9000, '{"a": 1}', "\x00", "[NaN]", "9" * 9999])
def test_any_arguments_are_answered_while_they_are_typed(operator: Client, args: str) -> None:
    data = {"func_name": HEARTBEAT, "args": args, "kwargs": args}

    response = operator.get(f"{URL}_signature/", data)

    assert response.status_code == 200
    assert b'role="alert"' in response.content


def test_functions_are_offered_with_their_docstrings(operator: Client) -> None:
    html = operator.get(f"{URL}add/").content.decode()

    assert '<option value="mails.sent" label="Send one mail.">' in html
    assert '<option value="Australia/Lord_Howe">' in html


def test_without_scripts_a_button_previews_and_stores_nothing(operator: Client) -> None:
    repeating = entry(name="before")

    response = operator.post(
        f"{URL}{repeating.pk}/change/",
        form(name="after", crontab="45 3 * * *", _preview="1"),
    )

    html = response.content.decode()
    assert response.status_code == 200
    assert "At 03:45" in html
    assert 'value="after"' in html
    assert "errornote" not in html
    repeating.refresh_from_db()
    assert (repeating.name, repeating.crontab) == ("before", "30 2 * * *")


def test_without_scripts_a_wrong_entry_is_marked_by_the_button_too(operator: Client) -> None:
    html = operator.post(f"{URL}add/", form(crontab="0 0 30 2 *", _preview="1")).content.decode()

    assert '<mark class="cq-wrong-field">30</mark>' in html
    assert "never fires" in html


# The preview


def shown(html: str) -> list[list[str]]:
    """The cells of the rows of runs."""
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", row)] for row in rows
    ]


def fragment(crontab: str, zone: str = "Europe/Berlin", **options: object) -> str:
    mine = ZoneInfo("Asia/Kathmandu")
    stored = options.get("stored")
    assert stored is None or isinstance(stored, RepeatingTask)
    return preview.runs(crontab, zone, mine, stored, NOW)


MINUTES = st.one_of(st.just("*"), st.integers(0, 59).map(str), st.sampled_from(["*/7", "5,25"]))
HOURS = st.one_of(st.just("*"), st.integers(0, 23).map(str), st.sampled_from(["1-3", "*/5"]))
DAYS = st.sampled_from(["* * *", "1 * *", "* * sun", "25 10 *", "* 3,10 *"])
ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])


@pytest.mark.django_db
@given(minute=MINUTES, hour=HOURS, days=DAYS, zone=ZONES)
def test_preview_upcoming_and_scheduler_say_the_same(
    minute: str, hour: str, days: str, zone: str
) -> None:
    repeating = RepeatingTask(crontab=f"{minute} {hour} {days}", timezone=zone)

    rows = shown(fragment(repeating.crontab, zone))

    upcoming = repeating.upcoming(10, NOW)
    local = [moment.astimezone(ZoneInfo(zone)) for moment in upcoming]
    scheduled, moment = [], NOW
    for _ in range(10):
        # What the scheduler writes into next_run, tick by tick.
        moment = parse(repeating.crontab, zone).next_after(moment)
        scheduled.append(moment)
    assert upcoming == scheduled
    assert [row[0] for row in rows] == [f"{at:%a} {at.day} {at:%b %Y %H:%M}" for at in local]
    mine = [at.astimezone(ZoneInfo("Asia/Kathmandu")) for at in upcoming]
    assert [row[1] for row in rows] == [f"{at:%a} {at.day} {at:%b %Y %H:%M}" for at in mine]


AUTUMN, SPRING = datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2027, 3, 27, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("crontab", "start", "remark"),
    [
        ("30 2 * * *", AUTUMN, "clock goes back: once"),
        ("30 * * * *", AUTUMN, "clock goes back: a second time"),
        ("30 2 * * *", SPRING, "clock goes forward: at the end of the gap"),
        ("30 * * * *", SPRING, "clock goes forward: times left out"),
    ],
)
def test_changes_of_the_clock_are_said_in_words(crontab: str, start: datetime, remark: str) -> None:
    html = preview.runs(crontab, "Europe/Berlin", ZoneInfo("UTC"), None, start)
    calm = preview.runs(crontab, "Asia/Kathmandu", ZoneInfo("UTC"), None, start)

    assert html.count(remark) == 1
    assert "clock goes" not in calm


def test_a_change_shows_was_and_will_be_and_marks_the_first_difference() -> None:
    stored = entry(crontab="30 2 * * *")

    rows = shown(fragment("30 2 * * 1-5", stored=stored))
    html = fragment("30 2 * * 1-5", stored=stored)

    assert [row[0][:10] for row in rows[:3]] == ["Sun 25 Oct", "Mon 26 Oct", "Tue 27 Oct"]
    assert [row[1][:10] for row in rows[:3]] == ["Mon 26 Oct", "Tue 27 Oct", "Wed 28 Oct"]
    assert html.count("cq-first-difference") == 1
    assert "first difference" in rows[0][-1]
    assert "<th" in html
    assert "was <code>30 2 * * *</code>" in html


def test_the_first_difference_may_come_late() -> None:
    stored = entry(crontab="30 2 * * *")

    rows = shown(fragment("30 2 1-27 * *", stored=stored))

    assert [bool("first difference" in row[-1]) for row in rows].index(True) == 3


def test_another_spelling_of_the_same_times_is_no_difference() -> None:
    stored = entry(crontab="0 7 * * mon")

    html = fragment("00 7 * * 1", stored=stored)

    assert "It fires at the same times as before." in html
    assert "cq-first-difference" not in html


def test_an_entry_as_it_is_stored_has_no_was() -> None:
    stored = entry(crontab="0 7 * * mon")

    assert "cq-was" not in fragment("0 7 * * mon", stored=stored)


PIECES = [*"0123456789*/-,?LWHR# ", "mon", "jan", "60", "30 2", "@daily", "* * * * ", "<b>", "\x00"]


def test_whatever_is_refused_is_refused_in_the_preview_within_50_ms() -> None:
    chance = random.Random(20261124)
    texts = ["".join(chance.choices(PIECES, k=chance.randrange(2, 40))) for _ in range(300)]
    refused, slowest = 0, 0.0
    fragment("61 * * * *")

    for text in texts:
        began = process_time()
        html = fragment(text)
        if 'role="alert"' in html:
            refused += 1
            slowest = max(slowest, process_time() - began)

    assert refused > 200
    assert slowest < 0.05


def test_a_refused_entry_is_answered_at_once(operator: Client) -> None:
    operator.get(f"{URL}_preview/", {"crontab": "1 1 * * *", "timezone": "UTC"})
    began = perf_counter()
    for text in ("0 0 30 2 *", "9" * 4000, "*/" * 2000, "1," * 2000, "@never"):
        operator.get(f"{URL}_preview/", {"crontab": text, "timezone": "UTC"})

    # Five requests through the whole stack.
    assert perf_counter() - began < 5 * 0.3


# The list


def test_the_list_is_narrowed_by_function_state_and_failing(operator: Client) -> None:
    good, bad, broken = entry(name="good"), entry(name="bad"), entry(name="broken", error="gone")
    off = entry(name="off", func_name="mails.sent", args=["a"], enabled=False)
    for repeating, outcome in [(good, "failed"), (good, "succeeded"), (bad, "failed")]:
        RepeatingRun.objects.create(entry=repeating, outcome=outcome)
    RepeatingRun.objects.create(entry=bad, outcome="skipped")

    def names(query: str) -> set[str]:
        found = operator.get(f"{URL}?{query}").context["cl"].result_list
        return {row.name for row in found}

    assert names("state=failing") == {bad.name, broken.name}
    assert names("function=mails.sent") == {off.name}
    assert names("enabled__exact=1") == {"good", "bad", "broken"}


def test_the_next_run_is_relative_and_exact_in_both_zones_on_hover(operator: Client) -> None:
    repeating = entry(timezone="Europe/Berlin")
    RepeatingTask.objects.filter(pk=repeating.pk).update(
        next_run=datetime(2099, 1, 1, 1, 30, tzinfo=UTC)
    )
    operator.cookies["cq_tz"] = "Asia/Kathmandu"

    html = operator.get(URL).content.decode()

    assert re.search(r">in \d+ d</time>", html)
    assert "Thu 1 Jan 2099 02:30 Europe/Berlin · Thu 1 Jan 2099 07:15 Asia/Kathmandu" in html


def test_a_running_task_is_called_running(operator: Client) -> None:
    repeating = entry()
    operator.post(f"{URL}{repeating.pk}/run/")
    Task.objects.update(status="R", ready=None)

    assert ">running</span>" in operator.get(URL).content.decode()


def test_what_is_hostile_in_an_entry_is_text(operator: Client) -> None:
    repeating = entry(name="<script>alert(1)</script>", pause_reason="<b>", enabled=False)
    RepeatingRun.objects.create(entry=repeating, reason="<img src=x>", outcome="skipped")

    pages = [URL, f"{URL}{repeating.pk}/change/", f"{URL}{repeating.pk}/runs/"]

    for url in pages:
        html = operator.get(url).content.decode()
        assert "<script>alert" not in html
        assert "<img src=x>" not in html


@pytest.mark.parametrize(
    "address", ["", "add/", "{pk}/change/", "{pk}/runs/", "{pk}/run-with/", "{pk}/history/"]
)
def test_no_page_needs_a_style_attribute(operator: Client, address: str) -> None:
    repeating = entry()
    RepeatingRun.objects.create(entry=repeating, tick=NOW)

    response = operator.get(URL + address.format(pk=repeating.pk))

    content = response.content.decode()
    content = content[content.index('id="cq"') :]
    assert " style=" not in content
    assert "unsafe" not in response.headers["Content-Security-Policy"]


def test_activity_tells_who_did_what_in_the_admin_and_elsewhere(operator: Client) -> None:
    repeating, other = entry(name="Nightly"), entry(name="Other")
    operator.post(f"{URL}{repeating.pk}/switch/", {"to": "off", "reason": "stocktaking"})
    operations.resume_repeating(repeating, reason="counted", way="shell")
    operations.pause_repeating(other, reason="of another one")

    html = operator.get(f"{URL}{repeating.pk}/history/").content.decode()

    rows = re.findall(r"<tr><td>.*?</tr>", html, re.DOTALL)
    assert len(rows) == 2
    assert "resume" in rows[0]
    assert "counted" in rows[0]
    assert "shell" in rows[0]
    assert "Disabled. stocktaking" in rows[1]
    assert "olga" in rows[1]
    assert "of another one" not in html


def test_activity_of_no_entry_is_not_found(operator: Client) -> None:
    assert operator.get(f"{URL}99999/history/").status_code == 404


def test_activity_needs_the_permission_to_look(staff: Staff) -> None:
    repeating = entry()

    assert staff("view_task").get(f"{URL}{repeating.pk}/history/").status_code == 403


# The history and the load of the day


def test_the_history_goes_back_page_by_page_without_its_tasks(operator: Client) -> None:
    repeating, other = entry(), entry()
    for n in range(60):
        RepeatingRun.objects.create(
            entry=repeating, tick=NOW + timedelta(hours=n), outcome="failed", reason=f"reason {n}."
        )
    RepeatingRun.objects.create(entry=other, reason="of another one")

    first = operator.get(f"{URL}{repeating.pk}/runs/").content.decode()
    older = re.search(r"\?before=\d+", first)
    assert older is not None
    second = operator.get(f"{URL}{repeating.pk}/runs/{older[0]}").content.decode()

    assert "reason 59." in first
    assert "reason 10." in first
    assert "reason 9." not in first
    assert "reason 9." in second
    assert "reason 0." in second
    assert "of another one" not in first + second


@pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "٣"])
def test_a_wrong_page_of_the_history_is_the_newest(operator: Client, before: str) -> None:
    repeating = entry()

    assert operator.get(f"{URL}{repeating.pk}/runs/", {"before": before}).status_code == 200


def test_the_load_of_the_day_shows_clashes() -> None:
    known = [("0 2 * * *", "Europe/Berlin")] * 3 + [("10 1 * * *", "UTC"), ("61 * * * *", "UTC")]
    start = datetime(2026, 11, 23, 10, 40, tzinfo=UTC)

    found = load.of_day(known, start, ZoneInfo("UTC"), own=("5 1 * * *", "UTC"))

    assert [(bar.at, bar.count, bar.is_own) for bar in found.bars] == [("01:00", 4, True)]
    assert found.bars[0].x == (15 * 4) * 6
    assert found.clash == found.bars[0]
    assert found.hours[0] == (0, "10:00")


def test_the_load_of_the_day_is_what_fires() -> None:
    start = datetime(2026, 11, 23, 10, tzinfo=UTC)
    for crontab in ("*/20 * * * *", "7,50 8-18 * * 1-5", "0 0 1 * *", "0 12 24 * *"):
        for zone in ("Asia/Kathmandu", "America/New_York", "UTC"):
            fires = {
                int(moment.timestamp()) // 900
                for moment in parse(crontab, zone).upcoming(200, start - timedelta(seconds=1))
                if moment < start + timedelta(days=1)
            }

            found = load.of_day([(crontab, zone)], start, ZoneInfo("UTC"))

            assert {int(start.timestamp()) // 900 + bar.x // 6 for bar in found.bars} == fires


def test_the_load_of_very_many_entries_is_looked_at_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "SECONDS", -1)

    found = load.of_day([("0 2 * * *", "UTC")] * 7, NOW, ZoneInfo("UTC"))

    assert (found.entries, found.left_out, found.bars) == (0, 7, ())
