-- does: Gives the table of control a row for each thing that an operator says to the fleet, beside the rows that only tell
--   workers to look at something. Makes the function that checks what is said.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A row with a kind stands until it is undone, or until the same is said again of the same subject, which gives it a new
-- version. A row without a kind is one of the function that tells workers to look, and is nothing that an operator said.
alter table :"schema".backfill_control
  add column kind text,
  add column subject text,
  add column reason text;

create unique index backfill_control_kind_subject_key on :"schema".backfill_control (kind, subject) where kind is not null;

comment on column :"schema".backfill_control.kind is
  'pause, concurrency, limit or breaker; null for a row that only tells workers to look at something.';
comment on column :"schema".backfill_control.subject is
  'What it is about: task:NAME, queue:NAME, lane:NAME or everything.';
comment on column :"schema".backfill_control.reason is 'Why it was said; an empty text where no reason was given.';

-- Whether a value of JSON is a whole number within bounds.
create function :"schema".backfill_is_whole(value jsonb, lowest numeric, highest numeric) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
  select case
    when jsonb_typeof(value) = 'number' then value::numeric between lowest and highest and trunc(value::numeric) = value::numeric
    else false
  end
$body$;

-- Refuses what is not a control. Workers read controls and the owner's functions work with them, so none may stand in the
-- table whose values have another form than its kind has.
create function :"schema".backfill_check_control(kind text, subject text, said jsonb, author text, reason text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
  rate jsonb := nullif(said -> 'rate', 'null');
  word text := split_part(subject, ':', 1);
  subject_name text := substr(subject, length(word) + 2);
  good boolean;
begin
  good := case kind
    when 'pause' then subject = 'everything' or word in ('task', 'queue') and length(subject_name) between 1 and 128
    when 'concurrency' then word = 'lane' and length(subject_name) between 1 and 512
    when 'limit' then word = 'task' and length(subject_name) between 1 and 128
    when 'breaker' then word = 'task' and length(subject_name) between 1 and 128
  end;
  if good is null then
    raise exception 'kind = %: expected pause, concurrency, limit or breaker, and a subject', kind
      using errcode = 'invalid_parameter_value';
  elsif not good then
    raise exception 'subject = %: a control of the kind % is about something else', subject, kind
      using errcode = 'invalid_parameter_value';
  end if;
  good := case kind
    when 'pause' then said = '{}'
    when 'concurrency' then :"schema".backfill_is_whole(said -> 'concurrency', 1, 10000)
    when 'limit' then
      (coalesce(said -> 'most', 'null') = 'null' or :"schema".backfill_is_whole(said -> 'most', 1, 1000000))
      and jsonb_typeof(coalesce(said -> 'by', 'null')) in ('null', 'string')
      and coalesce(length(said ->> 'by') between 1 and 128, true)
      and (
        rate is null
        or :"schema".backfill_is_whole(rate -> 'count', 1, 1000000)
        and :"schema".backfill_is_whole(coalesce(rate -> 'burst', '1'), 1, 1000000)
        and jsonb_typeof(rate -> 'per') = 'number'
        and (rate ->> 'per')::numeric between (rate ->> 'count')::numeric / 1000000 and 31622400
      )
    when 'breaker' then
      :"schema".backfill_is_whole(said -> 'trips', 1, 2147483647) and (said ->> 'until')::timestamptz is not null
  end;
  if jsonb_typeof(said) is distinct from 'object' or good is not true then
    raise exception 'said = %: values that a control of the kind % does not have', left(said::text, 200), kind
      using errcode = 'invalid_parameter_value';
  end if;
  if length(author) not between 1 and 200 then
    raise exception 'author: one of % characters, expected 1 to 200', length(author) using errcode = 'invalid_parameter_value';
  end if;
  if length(reason) > 1000 then
    raise exception 'reason: one of % characters, expected at most 1000', length(reason)
      using errcode = 'invalid_parameter_value';
  end if;
end;
$body$;

revoke execute
on function
  :"schema".backfill_is_whole(jsonb, numeric, numeric),
  :"schema".backfill_check_control(text, text, jsonb, text, text)
from public;
