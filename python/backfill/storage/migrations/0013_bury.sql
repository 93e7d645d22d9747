-- does: Makes the function by which a dead letter holds any payload. The one that buries a job among them, which began here,
--   is made by 0020: its form here was changed when there were databases that had it.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A payload as jsonb, or null where jsonb cannot hold it: NUL in a text, a number out of its range, too deep a nest.
create or replace function :"schema".backfill_jsonb(payload json) returns jsonb
language plpgsql immutable strict parallel restricted
set search_path = pg_catalog
as $$
begin
  return payload::jsonb;
exception
  when others then
    return null;
end;
$$;
