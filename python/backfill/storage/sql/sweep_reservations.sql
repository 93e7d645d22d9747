-- does: Deletes reservations of keys whose time is over, so many at most, in the order of these times, from a time on. Says how
--   many, and the time of the last (null: there was none). Those that another transaction holds are left: another job is
--   taking the key.
-- locks: backfill_reservations rows (delete, skip locked)
-- index: backfill_reservations_reserved_until_idx, backfill_reservations_pkey
-- params: $1 since timestamptz (null: from the first), $2 wanted integer
with over as materialized (
  select reservations.job_key, reservations.reserved_until
  from :"schema".backfill_reservations as reservations
  where reservations.reserved_until >= coalesce($1::timestamptz, '-infinity')
    and reservations.reserved_until <= now()
  order by reservations.reserved_until
  limit $2::integer
  for update skip locked
),
gone as (
  delete from :"schema".backfill_reservations as reservations
  where reservations.job_key = any (array(select over.job_key from over))
  returning reservations.job_id
)
select
  (select count(*) from gone) as deleted,
  (select max(over.reserved_until) from over) as place
