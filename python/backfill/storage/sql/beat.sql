-- does: Writes a worker's heartbeat and its loop's lag; gives the newest version of what operators say, how many workers are
--   alive that know a task of its, and a number that is another one after each change of what operators say. No row: the
--   worker was given up. The Rust engine's table of workers is told, where it is.
-- locks: its backfill_workers row (update)
-- index: backfill_workers_pkey
-- params: $1 id text, $2 lag double precision (seconds)
update :"schema".backfill_workers as own
set heartbeat_at = now(), lag = $2::double precision
where own.id = $1::text
  and own.given_up_at is null
returning
  (select coalesce(max(version), 0) from :"schema".backfill_control) as version,
  (
    select count(*)::integer
    from :"schema".backfill_workers as others
    where others.id = own.id
      or (others.heartbeat_at > now() - others.dead_after and others.tasks && own.tasks)
  ) as fleet,
  :"schema".backfill_tell_engine(own.id, true),
  -- part: said
  as said
