"""Create every table of the engine."""

import cq.ids
import cq.models.indexes
import cq.models.repeating
import django.core.serializers.json
import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


def index_arguments(apps, schema_editor):
    """Let PostgreSQL find a task by an argument's value; the others search by ranges of ids."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "CREATE INDEX cq_task_by_argument ON cq_task USING gin (named jsonb_path_ops)"
        )


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='HeldFunction',
            fields=[
                ('func_name', models.CharField(max_length=255, primary_key=True, serialize=False)),
                ('held', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('held_by', models.CharField(blank=True, default='', max_length=150)),
                ('reason', models.TextField(blank=True, default='')),
            ],
            options={
                'verbose_name': 'held function',
                'verbose_name_plural': 'held functions',
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='Queue',
            fields=[
                ('name', models.CharField(max_length=80, primary_key=True, serialize=False)),
                ('paused', models.DateTimeField(blank=True, null=True)),
                ('paused_by', models.CharField(blank=True, default='', max_length=150)),
                ('reason', models.TextField(blank=True, default='')),
            ],
            options={
                'verbose_name': 'queue',
                'verbose_name_plural': 'queues',
                'permissions': [('pause_queue', 'Can pause and resume queues and hold functions')],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='Act',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('by_name', models.CharField(blank=True, default='', max_length=150)),
                ('way', models.CharField(blank=True, default='', max_length=16)),
                ('verb', models.CharField(max_length=32)),
                ('predicate', models.TextField(blank=True, default='')),
                ('target', models.CharField(blank=True, default='', max_length=255)),
                ('done', models.PositiveIntegerField(default=0)),
                ('skipped', models.PositiveIntegerField(default=0)),
                ('reason', models.TextField(blank=True, default='')),
                ('by', models.ForeignKey(blank=True, db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'act',
                'verbose_name_plural': 'acts',
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='FailureGroup',
            fields=[
                ('fingerprint', models.CharField(max_length=16, primary_key=True, serialize=False)),
                ('exception', models.CharField(max_length=255)),
                ('message', models.TextField(blank=True, default='')),
                ('frame', models.CharField(blank=True, default='', max_length=500)),
                ('first_seen', models.DateTimeField()),
                ('last_seen', models.DateTimeField()),
            ],
            options={
                'verbose_name': 'failure',
                'verbose_name_plural': 'failures',
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['last_seen'], name='cq_failuregroup_by_last_seen')],
            },
        ),
        migrations.CreateModel(
            name='RepeatingTask',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('name', models.CharField(blank=True, default='', max_length=150)),
                ('crontab', models.CharField(max_length=150, verbose_name='CRON entry')),
                ('timezone', models.CharField(default=cq.models.repeating.current_timezone, max_length=64, validators=[cq.models.repeating.validate_timezone], verbose_name='time zone')),
                ('func_name', models.CharField(max_length=255, verbose_name='function')),
                ('args', models.JSONField(blank=True, default=list, encoder=django.core.serializers.json.DjangoJSONEncoder, verbose_name='arguments')),
                ('kwargs', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder, verbose_name='keyword arguments')),
                ('queue', models.CharField(blank=True, default='', max_length=80)),
                ('priority', models.SmallIntegerField(blank=True, null=True)),
                ('result_ttl', models.PositiveIntegerField(blank=True, null=True, verbose_name='result TTL (s)')),
                ('coalesce', models.BooleanField(default=True, help_text='A tick is skipped while the last one still waits to start.')),
                ('overlap', models.BooleanField(default=True, help_text='If off, a tick is skipped while the last one still runs.')),
                ('missed', models.CharField(choices=[('skip', 'skip: none of them runs'), ('latest', 'latest: the last one runs'), ('all', 'all: each one runs')], default='latest', max_length=8)),
                ('enabled', models.BooleanField(default=True)),
                ('pause_reason', models.CharField(blank=True, default='', max_length=255)),
                ('last_run', models.DateTimeField(blank=True, editable=False, null=True)),
                ('next_run', models.DateTimeField(blank=True, editable=False, null=True)),
                ('error', models.TextField(blank=True, default='', editable=False)),
            ],
            options={
                'verbose_name': 'repeating task',
                'verbose_name_plural': 'repeating tasks',
                'permissions': [('run_repeatingtask', 'Can run repeating tasks now')],
                'indexes': [models.Index(condition=models.Q(('enabled', True)), fields=['next_run'], name='cq_repeatingtask_for_tick')],
            },
        ),
        migrations.CreateModel(
            name='Statistic',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('bucket', models.DateTimeField()),
                ('length', models.PositiveSmallIntegerField(verbose_name='length (minutes)')),
                ('queue', models.CharField(max_length=80)),
                ('func_name', models.CharField(max_length=255)),
                ('worker', models.BigIntegerField(default=0)),
                ('started', models.PositiveIntegerField(default=0)),
                ('succeeded', models.PositiveIntegerField(default=0)),
                ('failed', models.PositiveIntegerField(default=0)),
                ('retried', models.PositiveIntegerField(default=0)),
                ('waits', models.JSONField(default=list)),
                ('runs', models.JSONField(default=list)),
            ],
            options={
                'verbose_name': 'statistic',
                'verbose_name_plural': 'statistics',
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('length', 'bucket', 'queue', 'func_name', 'worker'), name='cq_statistic_one_per_bucket')],
            },
        ),
        migrations.CreateModel(
            name='Worker',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('host', models.CharField(max_length=255)),
                ('pid', models.PositiveIntegerField()),
                ('boot_id', models.CharField(blank=True, default='', max_length=64)),
                ('pid_namespace', models.CharField(blank=True, default='', max_length=64)),
                ('pid_started', models.CharField(blank=True, default='', max_length=32)),
                ('supervisor', models.CharField(blank=True, default='', max_length=64)),
                ('queues', models.JSONField(blank=True, default=list)),
                ('threads', models.PositiveIntegerField(default=1)),
                ('is_embedded', models.BooleanField(default=False)),
                ('is_scheduler', models.BooleanField(default=False)),
                ('asked', models.CharField(blank=True, choices=[('quiet', 'quiet: claim nothing more'), ('stop', 'stop'), ('replace', 'replace its process')], default='', max_length=8)),
                ('started', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('heartbeat', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('lease_expires_at', models.DateTimeField()),
                ('stopped', models.DateTimeField(blank=True, null=True)),
                ('running', models.PositiveIntegerField(default=0)),
                ('memory', models.PositiveBigIntegerField(default=0, verbose_name='memory (bytes)')),
                ('sessions', models.JSONField(blank=True, default=list)),
            ],
            options={
                'verbose_name': 'worker',
                'verbose_name_plural': 'workers',
                'permissions': [('control_worker', 'Can quiet, resume and stop workers')],
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['stopped', 'lease_expires_at'], name='cq_worker_by_lease')],
            },
        ),
        migrations.CreateModel(
            name='Task',
            fields=[
                ('id', models.UUIDField(default=cq.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('status', models.CharField(choices=[('P', 'pending'), ('Q', 'queued'), ('R', 'running'), ('W', 'waiting'), ('Y', 'retrying'), ('S', 'succeeded'), ('F', 'failed'), ('I', 'incomplete'), ('L', 'lost'), ('E', 'revoked')], default='Q', max_length=1)),
                ('cause', models.CharField(blank=True, choices=[('cancelled', 'cancelled'), ('expired', 'expired'), ('discarded', 'discarded'), ('not needed', 'not needed'), ('coalesced', 'coalesced'), ('blocked', 'blocked')], db_default='', default='', max_length=12)),
                ('reason', models.TextField(blank=True, db_default='', default='')),
                ('func_name', models.CharField(max_length=255, verbose_name='function')),
                ('args', models.JSONField(blank=True, default=list, encoder=django.core.serializers.json.DjangoJSONEncoder, verbose_name='arguments')),
                ('kwargs', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder, verbose_name='keyword arguments')),
                ('named', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('queue', models.CharField(default='default', max_length=80)),
                ('priority', models.SmallIntegerField(default=0)),
                ('ready', models.BooleanField(default=None, editable=False, null=True)),
                ('run_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('depth', models.SmallIntegerField(db_default=0, default=0)),
                ('condition', models.CharField(blank=True, choices=[('success', 'on success'), ('always', 'always'), ('failure', 'on failure')], db_default='', default='', max_length=7)),
                ('has_followers', models.BooleanField(db_default=False, default=False, editable=False)),
                ('parent_claim', models.IntegerField(db_default=0, default=0)),
                ('open_children', models.IntegerField(db_default=0, default=0)),
                ('returned', models.BooleanField(db_default=False, default=False)),
                ('ends_as', models.CharField(blank=True, choices=[('P', 'pending'), ('Q', 'queued'), ('R', 'running'), ('W', 'waiting'), ('Y', 'retrying'), ('S', 'succeeded'), ('F', 'failed'), ('I', 'incomplete'), ('L', 'lost'), ('E', 'revoked')], db_default='', default='', max_length=1)),
                ('retries', models.IntegerField(blank=True, null=True)),
                ('timeout', models.FloatField(blank=True, null=True, verbose_name='timeout (s)')),
                ('result_ttl', models.IntegerField(blank=True, null=True, verbose_name='result TTL (s)')),
                ('expires', models.IntegerField(blank=True, null=True, verbose_name='expires (s)')),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('coalesce_key', models.CharField(blank=True, default=None, editable=False, max_length=64, null=True)),
                ('submitted', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('started', models.DateTimeField(blank=True, null=True)),
                ('finished', models.DateTimeField(blank=True, null=True)),
                ('keep_until', models.DateTimeField(blank=True, null=True)),
                ('claim', models.IntegerField(db_default=0, default=0)),
                ('attempts', models.IntegerField(db_default=0, default=0)),
                ('attempts_before', models.IntegerField(db_default=0, default=0)),
                ('deaths', models.SmallIntegerField(db_default=0, default=0)),
                ('suspect', models.BooleanField(db_default=False, default=False)),
                ('cancel_requested', models.DateTimeField(blank=True, null=True)),
                ('cancelled_by', models.CharField(blank=True, db_default='', default='', max_length=150)),
                ('result', models.JSONField(blank=True, default=None, encoder=django.core.serializers.json.DjangoJSONEncoder, null=True)),
                ('error', models.TextField(blank=True, db_default='', default='')),
                ('fingerprint', models.CharField(blank=True, db_default='', default='', max_length=16)),
                ('adopted', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='cq.task')),
                ('parent', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='subtasks', to='cq.task')),
                ('previous', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='next', to='cq.task')),
                ('replaces', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='cq.task')),
                ('root', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='family', to='cq.task')),
                ('worker', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='tasks', to='cq.worker')),
            ],
            options={
                'verbose_name': 'task',
                'verbose_name_plural': 'tasks',
                'permissions': [('retry_task', 'Can retry tasks'), ('cancel_task', 'Can cancel tasks'), ('coalesce_task', 'Can coalesce tasks'), ('keep_task', 'Can keep tasks beyond their time')],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='ActItem',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('task_id', models.UUIDField()),
                ('root_id', models.UUIDField(null=True)),
                ('skipped', models.CharField(blank=True, default='', max_length=200)),
                ('act', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='items', to='cq.act')),
            ],
            options={
                'verbose_name': 'item of an act',
                'verbose_name_plural': 'items of acts',
                'default_permissions': (),
                'indexes': [models.Index(fields=['task_id'], name='cq_actitem_by_task'), models.Index(fields=['root_id'], name='cq_actitem_by_root')],
            },
        ),
        migrations.CreateModel(
            name='RepeatingRun',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('tick', models.DateTimeField(null=True)),
                ('task_id', models.UUIDField(null=True)),
                ('outcome', models.CharField(choices=[('queued', 'queued'), ('skipped', 'skipped'), ('succeeded', 'succeeded'), ('failed', 'failed'), ('cancelled', 'cancelled'), ('refused', 'refused'), ('gone', 'not known')], default='queued', max_length=9)),
                ('reason', models.CharField(blank=True, default='', max_length=255)),
                ('created', models.DateTimeField(default=django.utils.timezone.now)),
                ('started', models.DateTimeField(null=True)),
                ('finished', models.DateTimeField(null=True)),
                ('entry', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='runs', to='cq.repeatingtask')),
            ],
            options={
                'verbose_name': 'run of a repeating task',
                'verbose_name_plural': 'runs of repeating tasks',
                'default_permissions': (),
                'indexes': [models.Index(fields=['entry', 'id'], name='cq_repeatingrun_by_entry'), models.Index(fields=['task_id'], name='cq_repeatingrun_by_task'), models.Index(condition=models.Q(('outcome', 'queued')), fields=['id'], name='cq_repeatingrun_open')],
                'constraints': [models.UniqueConstraint(fields=('entry', 'tick'), name='cq_repeatingrun_one_per_tick')],
            },
        ),
        migrations.CreateModel(
            name='Attempt',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('number', models.PositiveIntegerField()),
                ('outcome', models.CharField(choices=[('P', 'pending'), ('Q', 'queued'), ('R', 'running'), ('W', 'waiting'), ('Y', 'retrying'), ('S', 'succeeded'), ('F', 'failed'), ('I', 'incomplete'), ('L', 'lost'), ('E', 'revoked')], max_length=1)),
                ('worker_name', models.CharField(blank=True, default='', max_length=255)),
                ('started', models.DateTimeField(blank=True, null=True)),
                ('finished', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('exception', models.CharField(blank=True, default='', max_length=255)),
                ('error', models.TextField(blank=True, default='')),
                ('traceback', models.TextField(blank=True, default='')),
                ('frames', models.JSONField(blank=True, default=list)),
                ('task', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, to='cq.task')),
            ],
            options={
                'verbose_name': 'attempt',
                'verbose_name_plural': 'attempts',
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['task', 'number'], name='cq_attempt_by_task')],
            },
        ),
        migrations.CreateModel(
            name='TaskLog',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('created', models.DateTimeField()),
                ('level', models.PositiveSmallIntegerField(default=20)),
                ('message', models.TextField()),
                ('done', models.BigIntegerField(blank=True, null=True)),
                ('total', models.BigIntegerField(blank=True, null=True)),
                ('root', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='cq.task')),
                ('task', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='own_logs', to='cq.task')),
            ],
            options={
                'verbose_name': 'log line',
                'verbose_name_plural': 'log lines',
                'default_permissions': (),
                'indexes': [models.Index(fields=['root', 'id'], name='cq_log_by_root'), models.Index(fields=['task', 'id'], name='cq_log_by_task'), cq.models.indexes.PartialIndex(condition=models.Q(('level__gte', 30)), fields=['root', 'id'], name='cq_log_warnings_by_root')],
            },
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('ready', True)), fields=['queue', '-priority', 'run_at', 'id'], leading=['ready'], name='cq_task_for_claim'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('ready', True), ('suspect', True)), fields=['queue'], leading=['suspect', 'ready'], name='cq_task_suspects'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('ready__isnull', True), ('status__in', ['Q', 'Y'])), fields=['run_at'], leading=['ready', 'status'], name='cq_task_for_due'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('expires_at__isnull', False), ('started__isnull', True)), fields=['expires_at'], name='cq_task_for_expiry'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('status', 'R')), fields=['worker'], leading=['status'], name='cq_task_for_rescue'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['status', 'id'], name='cq_task_by_status'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['func_name', 'id'], name='cq_task_by_function'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['queue', 'status', 'id'], name='cq_task_by_queue'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('parent__isnull', False)), fields=['parent', 'id'], name='cq_task_by_parent'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('previous__isnull', False)), fields=['previous'], name='cq_task_by_previous'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['root', 'status', 'parent'], name='cq_task_by_root'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('finished__isnull', False)), fields=['finished', 'id'], name='cq_task_by_finished'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('status__in', ['F', 'I', 'L'])), fields=['parent', 'id'], leading=['status'], name='cq_task_failed_by_parent'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=cq.models.indexes.PartialIndex(condition=models.Q(('status__in', ['F', 'I', 'L'])), fields=['fingerprint', 'id'], name='cq_task_by_fingerprint'),
        ),
        migrations.AddConstraint(
            model_name='task',
            constraint=models.UniqueConstraint(fields=('coalesce_key',), name='cq_task_one_pending_per_key'),
        ),
        migrations.AddConstraint(
            model_name='task',
            constraint=models.CheckConstraint(condition=models.Q(('ready__isnull', True), ('status__in', ['Q', 'Y']), _connector='OR'), name='cq_task_ready_is_claimable'),
        ),
        migrations.RunPython(index_arguments, migrations.RunPython.noop),
    ]
