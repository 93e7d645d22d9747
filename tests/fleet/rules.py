"""What must hold of a fleet's books once it has drained: a query a rule, which gives the rows that break it.

`%(excused)s` says whether an attempt may overlap with one before it whose worker's recovery was recorded before it
began. That its own worker was given up excuses nothing: nobody begins what it had claimed before others may have given
it up. Nor is a rule broken by the jobs of a window that was lost, which run again: while their first attempts are being
ended, for a second from when the process noticed, and where it began them in the second before it noticed, when others
may have begun them already. `%(express)s` says whether a kill may not count that met a job in its
first attempt. Times that may be infinite are given as text, since Python has no such time.
"""

from __future__ import annotations

from typing import Final, LiteralString

_OVERLAP: Final[LiteralString] = """
select
  a.job_id, b.job_id as other_job, a.queue, a.number, a.attempt, a.worker, a.process, a.began, a.until::text as until,
  a.good, a.recovered_at,
  b.attempt as next_attempt, b.worker as next_worker, b.process as next_process, b.began as next_began
from stints as a
join stints as b on a.token <> b.token and (b.began, b.token) > (a.began, a.token) and b.began < a.until
"""
_NOT_EXCUSED: Final[LiteralString] = """
  and not (%(excused)s and coalesce(a.recovered_at < b.began, false))
"""
_NOT_OF_A_LOST_WINDOW: Final[LiteralString] = """
  and not coalesce(b.began < a.lost_at + interval '1 second', false)
  and not coalesce(b.lost_at < b.began + interval '1 second', false)
"""

RULES: Final[dict[str, LiteralString]] = {
    "jobs left": """
        select id, attempts, max_attempts, run_at::text as run_at, key, locked_by, left(last_error, 80) as last_error
        from graphile_worker._private_jobs""",
    "locks left": """
        select 'job' as what, id::text as name, locked_by from graphile_worker._private_jobs where locked_at is not null
        union all
        select 'queue', queue_name, locked_by
        from graphile_worker._private_job_queues where locked_at is not null or locked_by is not null""",
    # A job with a key may be replaced or removed by what was asked for after it, whether or not that was acknowledged.
    "acknowledged, and neither done nor a dead letter": """
        select asked.number, asked.job_key, (select count(*) from attempts where number = asked.number) as attempts
        from asked
        where asked.kind = 'add'
          and asked.acknowledged
          and not exists (
            select from attempts where attempts.number = asked.number and attempts.ended is not null and attempts.good
          )
          and not exists (select from dead where dead.number = asked.number)
          and not exists (select from asked as later where later.job_key = asked.job_key and later.seq > asked.seq)""",
    "done, and a dead letter too": """
        select dead.number, dead.job_id, done.worker, done.process, done.ended
        from dead
        join stints as done on done.number = dead.number and done.good
        where done.killed_at is null
          and done.recovered_at is null""",
    "more dead letters than one": """
        select job_id, count(*) as entries, sum(failure_count) as failures
        from dead
        group by job_id
        having count(*) > 1 or (bool_and(job_key is null) and sum(failure_count) > 1)""",
    "a dead letter with attempts left": """
        select job_id, number, attempts, max_attempts, failure_reason
        from dead
        where attempts < max_attempts""",
    # What fails as often as it may be run can become one. So can what was replaced or removed while it ran.
    "a dead letter of what could be done": """
        select dead.job_id, dead.number, dead.fails, dead.attempts, dead.max_attempts, dead.failure_reason
        from dead
        where dead.fails < dead.max_attempts
          and not exists (
            select
            from asked
            join asked as later on later.job_key = asked.job_key and later.seq > asked.seq
            where asked.number = dead.number
          )""",
    # A waiting job that was replaced does not run any more. One that was claimed, but had not begun, does so once.
    "replaced, and run all the same": """
        select asked.number, asked.job_key, later.number as later_number, later.returned, later.replaced,
          count(*) as attempts, max(attempts.began) as began
        from asked
        join lateral (
          select * from asked as one
          where one.job_key = asked.job_key and one.seq > asked.seq and one.acknowledged
          order by one.seq
          limit 1
        ) as later on true
        join attempts on attempts.number = asked.number and attempts.began > later.returned
        where asked.kind = 'add'
        group by asked.seq, later.seq, later.number, later.returned, later.replaced
        having count(*) > case
          when later.replaced and not exists (
            select
            from asked as unknown
            where unknown.job_key = asked.job_key and unknown.seq > asked.seq and unknown.seq < later.seq
          ) then 0
          else 1
        end""",
    # A worker that was paused may have given its job back before it was killed, so this is for others only.
    "run again after a kill that did not count": """
        select a.job_id, a.number, a.attempt, a.process, a.killed_at, b.attempt as next_attempt
        from stints as a
        join stints as b on b.job_id = a.job_id and b.number = a.number and b.began > a.began
        where a.ended is null
          and a.killed_at is not null
          and b.attempt <= a.attempt
          and not (%(express)s and a.attempt = 1)
          and not %(excused)s""",
    "attempts of one job at once": (
        _OVERLAP + " and b.job_id = a.job_id" + _NOT_EXCUSED + _NOT_OF_A_LOST_WINDOW + "order by b.began"
    ),
    # These are in no window.
    "jobs of one serial queue at once": (
        _OVERLAP + " and b.queue = a.queue and b.job_id <> a.job_id" + _NOT_EXCUSED + "order by b.began"
    ),
    "done again, though nobody died": """
        select a.job_id, a.number, a.worker, a.process, a.began, a.ended, b.worker as next_worker, b.began as next_began
        from stints as a
        join stints as b on b.job_id = a.job_id and b.began > a.began
        where a.good
          and a.killed_at is null
          and a.lost_at is null
          and not coalesce(b.lost_at < b.began + interval '1 second', false)
          and not coalesce(a.recovered_at < b.began, false)""",
    "attempts without an end": """
        select job_id, number, attempt, worker, process, began
        from stints
        where until = 'infinity'
          and not (%(excused)s and recovered_at is not null)""",
    "one asking, several jobs": """
        select number, array_agg(distinct job_id) as jobs
        from attempts
        group by number
        having count(distinct job_id) > 1""",
    "attempts of what nobody asked for": """
        select attempts.number, attempts.job_id, attempts.worker
        from attempts
        where not exists (select from asked where asked.number = attempts.number)""",
}
"""By name; each gives nothing where the books balance."""
