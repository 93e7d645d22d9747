-- A job from SQL alone, as any program or trigger may add it: psql "$DATABASE_URL" -f enqueue.sql
select
  id,
  task_id,
  priority
from graphile_worker.add_job(
  'send_email',
  '{"recipient": "grace@example.com", "subject": "Hello", "body": "From SQL."}'::json,
  priority => -10
);
