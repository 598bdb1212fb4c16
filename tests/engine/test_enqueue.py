"""What does delay() store, what does it refuse, and what does a rollback leave of it?"""

from __future__ import annotations

import math
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import translation
from django.utils.translation import gettext_lazy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cq
from cq import Discard, bulk, conf, enqueue, registry, task
from cq.context import Context
from cq.exceptions import (
    DuplicateSubmitError,
    DuplicateTaskName,
    InvalidArguments,
    InvalidOption,
    NotEncodable,
    TaskNotRegistered,
)
from cq.models import Task
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = pytest.mark.django_db


@task
def send(cqt: Context, addr: str, subject: str = "hello") -> str:
    return f"{subject}, {addr}"


@task(coalesce=lambda addr, subject: addr)
def mail(cqt: Context, addr: str, subject: str) -> None: ...


def nested(levels: int) -> Any:
    """A list in a list, so many of them."""
    value: list[Any] = []
    for _level in range(levels - 1):
        value = [value]
    return value


def endless() -> Any:
    """A list that contains itself, twice."""
    value: list[Any] = []
    value += [value, value]
    return value


class TestDeclaring:
    def test_a_task_is_named_by_its_import_path(self) -> None:
        assert send.name == f"{__name__}.send"

    def test_a_task_may_have_a_name_of_its_own(self) -> None:
        @task("mail.send")
        def named(cqt: Context) -> None: ...

        assert named.delay().func_name == "mail.send"

    def test_two_functions_may_not_share_a_name(self) -> None:
        @task("mail.shared")
        def first(cqt: Context) -> None: ...

        with pytest.raises(DuplicateTaskName, match=r"mail\.shared.*first.*second"):

            @task("mail.shared")
            def second(cqt: Context) -> None: ...

    def test_every_option_reaches_the_row_or_the_definition(self) -> None:
        @task(
            atomic=False,
            queue="mail",
            priority=5,
            retries=3,
            timeout=timedelta(seconds=30),
            result_ttl=3600,
            failure_ttl=timedelta(days=2),
            expires=600,
        )
        def tuned(cqt: Context) -> None: ...

        stored = tuned.delay()

        assert (stored.queue, stored.priority, stored.expires) == ("mail", 5, 600)
        options = tuned.definition.options
        assert not tuned.definition.atomic
        assert (options.retries, options.timeout) == (3, 30)
        assert (options.result_ttl, options.failure_ttl) == (3600, 172_800)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"que": "mail"}, r"'que' is not an option here\. Did you mean 'queue'\?"),
            ({"queue": "no spaces"}, "queue must be a name"),
            ({"queue": "q" * 81}, "at most 80"),
            ({"priority": 101}, "from -100 to 100"),
            ({"priority": True}, "whole number"),
            ({"retries": -1}, "whole number from 0"),
            ({"retries": 2**31}, "whole number from 0"),
            ({"expires": 10**10}, "68 years"),
            ({"timeout": math.inf}, "68 years"),
            ({"result_ttl": math.inf}, "68 years"),
            ({"timeout": 0}, "above 0"),
            ({"result_ttl": "soon"}, "seconds or a timedelta"),
            ({"backoff": "fast"}, "backoff must be"),
            ({"retry_exceptions": ["ValueError"]}, "exception classes"),
            ({"coalesce": 3}, "coalesce must be"),
            ({"run_at": datetime(2030, 1, 1, tzinfo=UTC)}, "not an option here"),
        ],
    )
    def test_a_bad_option_is_refused_at_import(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidOption, match=message):

            @task(**options)  # type: ignore[untyped-decorator]
            def bad(cqt: Context) -> None: ...

    def test_an_async_task_cannot_be_atomic(self) -> None:
        with pytest.raises(InvalidOption, match="async"):

            @task(atomic=True)
            async def fetch(cqt: Context) -> None: ...

    def test_a_task_must_take_a_context(self) -> None:
        with pytest.raises(InvalidArguments, match="takes no context"):

            @task
            def lonely() -> None: ...


class TestUsing:
    def test_using_gives_the_same_task_with_other_options(self) -> None:
        at = datetime(2031, 5, 6, 7, 8, tzinfo=UTC)

        stored = send.using(
            queue="bulk", priority=-7, run_at=at, retries=4, timeout=9, result_ttl=60
        ).delay("a@b.example")

        stored.refresh_from_db()
        assert (stored.queue, stored.priority, stored.run_at) == ("bulk", -7, at)
        assert (stored.retries, stored.timeout, stored.result_ttl) == (4, 9, 60)
        assert send.delay("a@b.example").queue == "default"

    def test_a_part_of_a_second_is_not_rounded_to_nothing(self) -> None:
        stored = send.using(expires=0.2, result_ttl=timedelta(milliseconds=1)).delay("a@b.example")

        assert (stored.expires, stored.result_ttl) == (1, 1)

    def test_using_adds_up(self) -> None:
        stored = send.using(queue="bulk").using(priority=3).delay("a@b.example")

        assert (stored.queue, stored.priority) == ("bulk", 3)

    def test_run_after_counts_from_the_database_clock(self) -> None:
        stored = send.using(run_after=timedelta(minutes=10)).delay("a@b.example")

        now = Task.objects.values_list(Now(), flat=True).get()
        assert timedelta(minutes=9, seconds=55) < stored.run_at - now <= timedelta(minutes=10)
        assert stored.is_scheduled

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"atomic": False}, "'atomic' is not an option here"),
            ({"run_after": timedelta.max}, "68 years"),
            ({"run_at": datetime(2030, 1, 1)}, "aware datetime"),  # noqa: DTZ001
            ({"run_at": datetime(2030, 1, 1, tzinfo=UTC), "run_after": 5}, "not both"),
        ],
    )
    def test_a_bad_option_of_using_is_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidOption, match=message):
            send.using(**options)

    def test_run_at_and_run_after_are_not_mixed_over_two_calls(self) -> None:
        first = send.using(run_at=datetime(2030, 1, 1, tzinfo=UTC))

        stored = first.using(run_after=60).delay("a@b.example")

        assert stored.run_at.year != 2030


class TestDelay:
    def test_delay_stores_a_queued_task_with_its_arguments(self) -> None:
        stored = send.delay("a@b.example", subject="news")

        row = Task.objects.get(pk=stored.pk)
        assert row.status == Status.QUEUED
        assert (row.args, row.kwargs) == (["a@b.example"], {"subject": "news"})
        assert row.named == {"addr": "a@b.example", "subject": "news"}
        assert row.root_id == row.id
        assert row.is_root

    def test_arguments_are_stored_as_djangos_encoder_writes_them(self) -> None:
        @task
        def keep(cqt: Context, *values: Any) -> list[Any]:
            return list(values)

        some_id = uuid.uuid4()
        stored = keep.delay(
            datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), date(2026, 1, 2), some_id, Decimal("1.50")
        )
        run_pending()

        stored.refresh_from_db()
        assert stored.result == ["2026-01-02T03:04:05Z", "2026-01-02", str(some_id), "1.50"]

    @pytest.mark.parametrize(
        ("args", "kwargs"), [((), {}), (("a", "b", "c"), {}), (("a",), {"sujbect": "x"})]
    )
    def test_arguments_that_do_not_fit_are_refused(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidArguments, match=r"do not fit .*send\(addr"):
            send.delay(*args, **kwargs)

        assert not Task.objects.exists()

    @pytest.mark.parametrize(
        ("value", "path", "problem"),
        [
            ({"when": [1, object()]}, "args[0].when[1]", "object is not a JSON value"),
            ([0, math.nan], "args[0][1]", "nan is not a JSON number"),
            ({"a": math.inf}, "args[0].a", "inf is not a JSON number"),
            ({"deep": ["a\x00b"]}, "args[0].deep[0]", "NUL"),
            (["\ud800"], "args[0][0]", "surrogate"),
            ({(1, 2): 3}, "args[0]", "key"),
            ({"a\x00": 1}, "args[0]", "NUL"),
            ([10**5_000], "args[0][0]", "more digits"),
            (nested(conf.deepest()), "args", "levels deep"),
            (nested(100_000), "args", "levels deep"),
            (endless(), "args", "levels deep"),
        ],
    )
    def test_what_cannot_be_stored_is_refused_with_its_path(
        self, value: Any, path: str, problem: str
    ) -> None:
        with pytest.raises(NotEncodable, match=problem) as caught:
            send.delay(value)

        assert caught.value.path == path
        assert not Task.objects.exists()

    def test_huge_numbers_and_deep_values_are_stored_unchanged(self) -> None:
        value = [10**4_000, nested(conf.deepest() - 2)]

        stored = send.delay(value)

        assert Task.objects.get(pk=stored.pk).args == [value]

    def test_a_keyword_argument_that_cannot_be_stored_is_named(self) -> None:
        with pytest.raises(NotEncodable) as caught:
            send.delay("a@b.example", subject={"x": {1}})

        assert caught.value.path == "kwargs.subject.x"

    def test_a_backslash_before_u0000_is_no_nul(self) -> None:
        stored = send.delay("\\u0000")

        stored.refresh_from_db()
        assert stored.args == ["\\u0000"]

    def test_text_of_every_plane_is_stored_unchanged(self) -> None:
        stored = send.delay("naïve 雪 🦊 \u2028 \x7f \x01")

        stored.refresh_from_db()
        assert stored.args == ["naïve 雪 🦊 \u2028 \x7f \x01"]

    def test_further_secret_words_of_the_setting_hide_arguments_from_the_search(
        self, settings: Any
    ) -> None:
        settings.CQ_REDACT = ["iban"]

        @task
        def pay(cqt: Context, order_id: int, iban: str) -> None:
            cqt.log(f"iban={iban}")

        stored = pay.delay(7, "DE02 1203")
        run_pending()

        stored.refresh_from_db()
        assert stored.named == {"order_id": 7}
        assert stored.args == [7, "DE02 1203"]
        assert "DE02" not in stored.format_logs()

    def test_an_unknown_name_is_refused_with_the_one_that_was_meant(self) -> None:
        stored = send.delay("a@b.example")

        with pytest.raises(TaskNotRegistered, match=r"Did you mean '.*\.send'\?"):
            stored.chain(f"{__name__}.sned", ("x",))

    def test_a_plain_function_is_refused_where_a_task_is_wanted(self) -> None:
        def plain(cqt: Context) -> None: ...

        stored = send.delay("a@b.example")

        with pytest.raises(TaskNotRegistered, match="plain"):
            stored.chain(plain)

    def test_ids_grow_in_the_order_of_the_calls(self) -> None:
        stored = [send.delay(f"{number}@b.example") for number in range(20)]

        assert [row.pk for row in stored] == sorted(row.pk for row in stored)


class TestDelayArgs:
    def test_delay_args_takes_explicit_arguments(self) -> None:
        stored = send.delay_args(("a@b.example",), {"subject": "news"})

        run_pending()

        assert status_of(stored) == Status.SUCCESS
        assert stored.result == "news, a@b.example"

    def test_without_submit_it_waits_for_its_first_arguments(self) -> None:
        stored = send.delay_args(("news",), submit=False)
        assert status_of(stored) == Status.PENDING
        assert run_pending() == 0

        stored.submit("a@b.example")
        run_pending()

        assert status_of(stored) == Status.SUCCESS
        assert stored.args == ["a@b.example", "news"]
        assert stored.result == "news, a@b.example"
        assert stored.named == {"addr": "a@b.example", "subject": "news"}

    def test_submit_checks_the_arguments(self) -> None:
        stored = send.delay_args(("news",), submit=False)

        with pytest.raises(InvalidArguments, match="do not fit"):
            stored.submit("a@b.example", "one too many")
        with pytest.raises(NotEncodable):
            stored.submit(math.nan)

        assert status_of(stored) == Status.PENDING

    def test_a_task_is_submitted_once(self) -> None:
        stored = send.delay_args(submit=False)
        stored.submit("a@b.example")

        with pytest.raises(DuplicateSubmitError, match="queued"):
            stored.submit("b@b.example")

        stored.refresh_from_db()
        assert stored.args == ["a@b.example"]

    def test_one_that_was_submitted_says_so_whatever_the_arguments(self) -> None:
        stored = send.delay_args(("news",), submit=False)
        stored.submit("a@b.example")
        run_pending()

        with pytest.raises(DuplicateSubmitError):
            stored.submit("b@b.example", "one too many")

    def test_a_coalesce_key_comes_with_the_arguments_that_submit_brings(self) -> None:
        first = mail.delay_args(("news",), submit=False)
        second = mail.delay_args(("news",), submit=False)
        third = mail.delay_args(("news",), submit=False)
        assert len({first.pk, second.pk, third.pk}) == 3

        first.submit("a@b.example")
        second.submit("b@b.example")
        third.submit("a@b.example")

        assert [one.status for one in (first, second, third)] == [
            Status.QUEUED,
            Status.QUEUED,
            Status.REVOKED,
        ]
        assert (third.cause, third.reason) == (Cause.COALESCED, f"coalesced into {first.pk}")
        assert mail.delay("a@b.example", "other").pk == first.pk
        assert run_pending() == 2

    def test_a_follower_runs_though_another_instance_waits_at_the_submit(self) -> None:
        other = mail.delay("a@b.example", "news")
        stored = mail.delay_args(("news",), submit=False)
        follower = stored.chain(send, ("c@d.example", "sent"))

        stored.submit("a@b.example")

        assert run_pending() == 3
        assert [status_of(one) for one in (other, stored, follower)] == [Status.SUCCESS] * 3

    def test_of_one_text_as_key_one_instance_waits_for_its_submit(self) -> None:
        nightly = send.using(coalesce="nightly")

        stored = nightly.delay_args(submit=False)

        assert nightly.delay("a@b.example").pk == stored.pk

    def test_one_with_a_follower_has_the_key_if_it_is_free(self) -> None:
        by_text = send.using(coalesce="nightly").delay_args(("news",), submit=False)
        by_arguments = mail.delay_args(("news",), submit=False)
        for one in (by_text, by_arguments):
            one.chain(send, ("c@d.example", "sent"))
            one.submit("a@b.example")

        assert send.using(coalesce="nightly").delay("a@b.example", "more").pk == by_text.pk
        assert mail.delay("a@b.example", "more").pk == by_arguments.pk

    def test_a_key_of_arguments_that_are_to_come_is_for_the_declaration(self) -> None:
        with pytest.raises(InvalidOption, match="Declare it by"):
            send.using(coalesce=True).delay_args(submit=False)
        assert mail.using(coalesce=False).delay_args(submit=False).coalesce_key is None

    def test_a_task_that_was_queued_by_delay_cannot_be_submitted(self) -> None:
        with pytest.raises(DuplicateSubmitError):
            send.delay("a@b.example").submit()

    def test_submit_of_a_revoked_task_does_nothing(self) -> None:
        stored = send.delay_args(submit=False)
        stored.cancel()

        stored.submit("a@b.example")

        assert status_of(stored) == Status.REVOKED
        assert stored.args == []

    def test_submit_keeps_a_start_in_the_future(self) -> None:
        at = datetime(2035, 1, 1, tzinfo=UTC)
        stored = send.using(run_at=at).delay_args(submit=False)

        stored.submit("a@b.example")

        assert run_pending() == 0
        assert status_of(stored) == Status.QUEUED
        assert stored.run_at == at


class TestDelayMany:
    def test_a_link_or_an_option_that_only_some_have_is_stored_for_these(self) -> None:
        rows = [
            enqueue.build(registry.call(some, ("a@b.example",), {}))
            for some in (send, send.using(expires=60), send.using(retries=0), send)
        ]
        rows[2].replaces_id = rows[0].pk
        rows[3].replaces_id = rows[1].pk

        with transaction.atomic():
            enqueue.store(rows)

        columns = ("pk", "replaces_id", "retries", "expires")
        assert list(Task.objects.order_by("pk").values_list(*columns)) == [
            (rows[0].pk, None, None, None),
            (rows[1].pk, None, None, 60),
            (rows[2].pk, rows[0].pk, 0, None),
            (rows[3].pk, rows[1].pk, None, None),
        ]

    def test_what_the_database_refuses_amidst_many_leaves_none_and_the_block_whole(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [uuid.uuid4() for _ in range(1_202)]
        taken = iter([*ids, ids[700]])
        with transaction.atomic():
            kept = send.delay("kept@b.example", "n")
            with monkeypatch.context() as patched:
                patched.setattr(bulk, "uuid7", lambda: next(taken))
                with pytest.raises(IntegrityError):
                    send.delay_many([("a@b.example", "n")] * 1_203)
            assert list(Task.objects.values_list("pk", flat=True)) == [kept.pk]

        assert len(send.delay_many([("a@b.example", "n")] * 501)) == 501
        assert Task.objects.count() == 502

    def test_delay_many_stores_the_calls_in_order(self) -> None:
        stored = send.delay_many((f"{number}@b.example", "n") for number in range(1203))

        assert len(stored) == Task.objects.count() == 1203
        in_order = Task.objects.order_by("id").values_list("args", flat=True)
        assert list(in_order) == [[f"{number}@b.example", "n"] for number in range(1203)]

    def test_very_many_are_stored_in_order_with_all_that_they_say(self) -> None:
        given = [
            ("a@example.org", f"\\u001f tab\t no. {number} \U0001f600") for number in range(1_501)
        ]

        tasks = send.delay_many(given)

        stored = Task.objects.in_bulk([one.pk for one in tasks])
        assert [tuple(stored[one.pk].args) for one in tasks] == given
        assert [stored[one.pk].named["subject"] for one in tasks] == [text for _a, text in given]

    def test_a_bad_call_at_the_end_of_very_many_stores_none(self) -> None:
        with pytest.raises(InvalidArguments):
            send.delay_many([("a",)] * 1_501 + [()])

        assert not Task.objects.exists()

    def test_texts_of_very_many_are_translated_for_the_caller(self) -> None:
        with translation.override("de"):
            tasks = send.delay_many([("a", gettext_lazy("Monday"))] * 1_501)

        stored = Task.objects.filter(pk__in=[one.pk for one in tasks])
        assert {one.args[1] for one in stored} == {"Montag"}

    def test_one_bad_call_of_many_stores_none(self) -> None:
        with pytest.raises(NotEncodable):
            send.delay_many([("a@b.example",), (object(),)])

        assert not Task.objects.exists()

    @pytest.mark.parametrize("given", ["a", b"a", {"addr": 1}, 7])
    def test_what_is_no_list_of_arguments_is_refused(self, given: Any) -> None:
        with pytest.raises(InvalidArguments, match="go into a list or tuple"):
            send.delay_many([given])
        with pytest.raises(InvalidArguments, match="go into a list or tuple"):
            send.delay_args(given)
        with pytest.raises(InvalidArguments, match="go into a list or tuple"):
            send.delay("a@b.example").chain(send, given)

        assert Task.objects.count() == 1

    def test_none_at_all_is_fine(self) -> None:
        assert send.delay_many([]) == []


@pytest.mark.django_db(transaction=True)
async def test_adelay_stores_as_delay_does() -> None:
    stored = await send.adelay("a@b.example", subject="news")

    row = await Task.objects.aget(pk=stored.pk)
    assert (row.args, row.kwargs) == (["a@b.example"], {"subject": "news"})


class TestDirectCall:
    def test_a_call_runs_here_and_now_without_a_row(self) -> None:
        assert send("a@b.example", subject="news") == "news, a@b.example"
        assert not Task.objects.exists()

    def test_what_a_direct_call_makes_runs_in_it(self) -> None:
        ran: list[Any] = []

        @task
        def child(cqt: Context, name: str) -> str:
            ran.append(name)
            return name.upper()

        @task
        def parent(cqt: Context) -> Any:
            cqt.chain(child, ("follower",))
            first = cqt.subtask(child, "subtask")
            cqt.log("between")
            ran.append(first.result)
            return first

        assert parent() == "SUBTASK"
        assert ran == ["subtask", "SUBTASK", "follower"]
        assert not Task.objects.exists()

    def test_what_is_chained_in_a_direct_call_reads_from_left_to_right(self) -> None:
        seen: list[Any] = []

        @task
        def note(cqt: Context, name: str, before: Any = None) -> str:
            seen.append((cqt.id, name, before))
            return name

        @task
        def head(cqt: Context) -> str:
            first = cqt.chain(note, ("first", cq.PREVIOUS))
            first.chain(note, ("second",), {"before": [cq.PREVIOUS]}).errorback(note, ("never",))
            cqt.errorback(note, ("never",)).chain(note, ("blocked",))
            seen.append(first.id)
            return "head"

        assert head() == "head"

        first_id, first, second = seen
        assert first == (first_id, "first", "head")
        assert second[1:] == ("second", ["first"])
        assert not Task.objects.exists()

    def test_a_direct_call_raises_the_exception_of_the_function(self) -> None:
        @task
        def broken(cqt: Context) -> None:
            raise LookupError("no such thing")

        with pytest.raises(LookupError, match="no such thing"):
            broken()

    def test_a_delay_in_a_direct_call_stores_as_usual(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            send.delay("a@b.example")

        parent()

        assert Task.objects.get().func_name == send.name

    @pytest.mark.django_db(transaction=True)
    def test_a_direct_call_opens_no_transaction(self) -> None:
        @task
        def look(cqt: Context) -> bool:
            return bool(transaction.get_connection().in_atomic_block)

        assert look() is False

    def test_an_async_task_runs_when_called(self) -> None:
        @task
        async def fetch(cqt: Context, number: int) -> int:
            return number * 2

        assert fetch(21) == 42

    @pytest.mark.django_db(transaction=True)
    def test_an_async_task_makes_subtasks_of_both_kinds_when_called(self) -> None:
        @task
        async def double(cqt: Context, number: int) -> int:
            return number * 2

        @task
        def count(cqt: Context) -> int:
            return Task.objects.count()

        @task
        async def parent(cqt: Context) -> list[Any]:
            cqt.chain(count)
            return [cqt.subtask(double, 21).result, cqt.subtask(count).result]

        assert parent() == [42, 0]

    async def test_a_task_may_be_called_from_async_code(self) -> None:
        @task
        async def fetch(cqt: Context, number: int) -> int:
            return number * 2

        @task
        def plain(cqt: Context, number: int) -> int:
            return number + 1

        assert [fetch(21), plain(1)] == [42, 2]

    def test_a_direct_call_with_bad_arguments_is_refused(self) -> None:
        with pytest.raises(TypeError):
            send()


class TestSerial:
    @pytest.fixture(autouse=True)
    def _serial(self, settings: Any) -> None:
        settings.CQ_SERIAL = True

    def test_delay_returns_a_finished_task(self) -> None:
        done = send.delay("a@b.example")

        assert done.status == Task.STATUS_COMPLETE
        assert done.wait().result == "hello, a@b.example"
        assert not Task.objects.exists()

    def test_exceptions_propagate(self) -> None:
        @task
        def broken(cqt: Context) -> None:
            raise LookupError("no such thing")

        with pytest.raises(LookupError):
            broken.delay()

    def test_what_discards_itself_ends_revoked_and_harms_nobody(self) -> None:
        @task
        def discard(cqt: Context) -> None:
            raise Discard("not worth it")

        @task
        def parent(cqt: Context) -> str:
            cqt.subtask(discard)
            return "done"

        done = discard.delay()

        assert (done.status, done.reason) == (Status.REVOKED, "discarded: not worth it")
        assert done.is_finished
        followers = [
            done.chain(send, ("a@b.example",)),
            done.chain(send, ("a@b.example",), force_chain=True),
            done.errorback(send, ("a@b.example",)),
        ]
        assert [one.status for one in followers] == [
            Status.PENDING,
            Status.SUCCESS,
            Status.REVOKED,
        ]
        assert parent.delay().result == parent() == "done"
        with pytest.raises(Discard):
            discard()

    def test_what_was_revoked_before_its_submit_never_runs(self) -> None:
        waiting = send.delay_args(submit=False)

        waiting.revoke()
        waiting.submit("a@b.example")

        assert (waiting.status, waiting.result) == (Status.REVOKED, None)

    def test_followers_run_at_once_with_the_result(self) -> None:
        done = send.delay("a@b.example").chain(send, ("c@d.example",))

        assert done.status == Task.STATUS_COMPLETE
        assert done.previous is not None
        assert done.previous.result == "hello, a@b.example"

    def test_what_waits_for_submit_runs_then_and_once(self) -> None:
        waiting = send.delay_args(submit=False)
        assert waiting.status == Status.PENDING
        with pytest.raises(InvalidArguments):
            waiting.submit()

        waiting.submit("a@b.example")

        assert (waiting.status, waiting.args) == (Status.SUCCESS, ["a@b.example"])
        assert waiting.result == "hello, a@b.example"
        assert not Task.objects.exists()
        with pytest.raises(DuplicateSubmitError):
            waiting.submit("a@b.example")

    def test_delay_refuses_what_it_refuses_otherwise(self) -> None:
        with pytest.raises(NotEncodable):
            send.delay(object())
        with pytest.raises(InvalidArguments):
            send.delay()


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_a_rolled_back_delay_leaves_nothing(self) -> None:
        class Undo(Exception): ...

        with pytest.raises(Undo), transaction.atomic():  # noqa: PT012
            send.delay("a@b.example")
            raise Undo

        assert not Task.objects.exists()

    def test_the_id_is_usable_before_the_commit(self) -> None:
        with transaction.atomic():
            stored = send.delay("a@b.example")
            Group.objects.create(name=stored.id.hex)

        assert Task.objects.get(pk=uuid.UUID(Group.objects.get().name)).status == Status.QUEUED

    def test_a_rolled_back_savepoint_takes_only_its_own_calls_along(self) -> None:
        class Undo(Exception): ...

        with transaction.atomic():
            kept = send.delay("kept@b.example")
            with pytest.raises(Undo), transaction.atomic():  # noqa: PT012
                send.delay("lost@b.example")
                raise Undo
            send.delay("also@b.example")

        assert list(Task.objects.order_by("id").values_list("args", flat=True)) == [
            ["kept@b.example"],
            ["also@b.example"],
        ]
        assert kept.pk is not None

    @settings(
        max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
    )
    @given(
        block=st.recursive(
            st.just("call"),
            lambda inner: st.tuples(st.booleans(), st.lists(inner, max_size=4)),
            max_leaves=8,
        )
    )
    def test_the_rows_are_those_of_the_committed_calls(self, block: Any) -> None:
        """A block is a call, or (commits, blocks) in an ``atomic()`` of its own."""

        class Undo(Exception): ...

        Task.objects.all().delete()

        def walk(item: Any) -> set[uuid.UUID]:
            if item == "call":
                return {send.delay("a@b.example").pk}
            commits, inner = item
            made: set[uuid.UUID] = set()
            try:
                with transaction.atomic():
                    for one in inner:
                        made |= walk(one)
                    if not commits:
                        raise Undo  # noqa: TRY301
            except Undo:
                return set()
            return made

        expected = walk(block)

        assert set(Task.objects.values_list("id", flat=True)) == expected
