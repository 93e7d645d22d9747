-- does: Says what became of a transaction: 'in progress', 'committed' or 'aborted'; null where the server does not know, since it
--   was too long ago, or since the server writes another history of the database by now, in which the id may stand for another
--   transaction. An id that was not given out yet is one that a crash of the server took back.
-- locks: none
-- index: none: it reads no table
-- params: $1 transaction text, $2 timeline text
select
  case
    when :"schema".backfill_timeline() is distinct from $2::text then null
    when $1::xid8 >= pg_current_xact_id() then 'aborted'
    else pg_xact_status($1::xid8)
  end as fate
