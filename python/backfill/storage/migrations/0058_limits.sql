-- does: Makes the tables of limits that hold for the whole fleet: what holds for each task, what each limit has reached, and
--   its slots. A worker's row can say which limits its tasks declare. Makes the function that tells what a rate has room for.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Null in the row of a worker of a version before, which declares nothing and says nothing about it either.
alter table :"schema".backfill_workers add column limits jsonb;

comment on column :"schema".backfill_workers.limits is
  'Limits that its tasks declare: {task: {"most", "by", "rate": {"count", "per", "burst"}}}; null where it cannot say.';

create table :"schema".backfill_limits (
  task text not null constraint backfill_limits_pkey primary key,
  most integer,
  by_path text,
  rate_count integer,
  rate_micros bigint,
  burst integer not null default 1,
  closed_until timestamptz,
  probing boolean not null default false,
  source text not null
);

comment on table :"schema".backfill_limits is
  'The limit that holds for each task now, as worked out from backfill_control and backfill_workers.';

-- A row for each task, or for each value of the field by which its limit goes. It tells how many slots were made, and when
-- the next job may start where there is a rate. There is no primary key of task and value, on purpose: while somebody holds
-- an old snapshot, the versions of a row cannot be cleared away, and the check of such a key would read all of them. The
-- index has next_at last, which only grows: from its end the newest version is found at once. Rows are made under a lock.
create table :"schema".backfill_limit_states (
  task text not null,
  value text not null,
  next_at timestamptz not null,
  slots integer not null default 0
) with (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0
);

create index backfill_limit_states_newest on :"schema".backfill_limit_states (task, value collate "C", next_at);

comment on table :"schema".backfill_limit_states is 'What the limit of a task, or of one of its values, has reached.';

-- A row for each slot. It names the job that had the slot last. That job has it still if that worker has the job locked.
-- Each change raises the turn, so that the newest version of a slot is found at once, for the reason given above.
create table :"schema".backfill_shares (
  task text not null,
  value text not null,
  slot integer not null,
  turn bigint not null,
  job_id bigint not null,
  worker text not null,
  attempt integer not null,
  locked_at timestamptz
) with (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0
);

create unique index backfill_shares_newest on :"schema".backfill_shares (task, value collate "C", slot, turn);
create index backfill_shares_job on :"schema".backfill_shares (job_id);

comment on table :"schema".backfill_shares is
  'The slots of limits. A slot is taken while its job is locked by its worker, and free otherwise.';

alter table :"schema".backfill_limits enable row level security;
alter table :"schema".backfill_limit_states enable row level security;
alter table :"schema".backfill_shares enable row level security;

-- How many jobs may start within the next tenth of a second, when the first of them may, in microseconds from the given time,
-- and how many microseconds lie between two starts. Where there is room for none, it can be asked for again so long after
-- that time as the first start is later than a tenth of a second.
--
-- `clock` is when the next job may start (the rule is GCRA, the generic cell rate algorithm). It may lag behind for as long as
-- the burst takes but for one start, and no further. By this rate it can never have come to more than one start after what was
-- given once. Where it is later, it is of a slower rate, or the server's clock went back, and the first may start now.
create function :"schema".backfill_rate_room(
  clock timestamptz, at timestamptz, rate_count integer, rate_micros bigint, burst integer,
  out room integer, out first double precision, out step double precision
)
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
begin
  step := rate_micros::double precision / rate_count;
  first := extract(epoch from clock - at) * 1000000;
  first := case when first > 101000 + step then 0 else greatest(first, (1 - burst) * step) end;
  room := greatest(0, floor(least((100000 - first) / step, 1000000)) + 1);
end;
$body$;

revoke execute
on function :"schema".backfill_rate_room(timestamptz, timestamptz, integer, bigint, integer)
from public;
