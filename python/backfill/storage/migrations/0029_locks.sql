-- does: Makes the table whose rows are locked where one process at a time may do something, and the functions that do it.
--   Advisory locks were used for this before, but any role that may connect can take those.
-- foundation: no
-- transaction: yes
-- breaking: no

create table :"schema".backfill_locks (
  name text not null constraint backfill_locks_pkey primary key
);

alter table :"schema".backfill_locks enable row level security;

insert into :"schema".backfill_locks (name)
values ('cleanup'), ('ends'), ('keys'), ('recovery');

comment on table :"schema".backfill_locks is
  'A row for each thing that one process at a time may do. Roles lock them by functions only.';

-- Waits until this transaction may write jobs with keys, or make names, in several statements: alone, or beside others
-- that write keys in one statement each.
create function :"schema".backfill_lock_keys(alone boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  if alone then
    perform from :"schema".backfill_locks as locks where locks.name = 'keys' for update;
  else
    perform from :"schema".backfill_locks as locks where locks.name = 'keys' for share;
  end if;
end;
$body$;

-- Takes one of the locks until the transaction ends, if nobody has it; says whether it did. The server ends a
-- transaction that its program leaves idle for longer than `patience` milliseconds: a process that is stopped lets go.
create function :"schema".backfill_try_lock(name text, patience integer) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  perform set_config('idle_in_transaction_session_timeout', greatest(patience, 1)::text, true);
  perform from :"schema".backfill_locks as locks where locks.name = backfill_try_lock.name for update skip locked;
  return found;
end;
$body$;

revoke execute
on function :"schema".backfill_lock_keys(boolean), :"schema".backfill_try_lock(text, integer)
from public;
