-- does: Says one thing of a recurring item (add, change, pause, resume, remove or reset), and gives its row as find_said_schedules
--   does; for reset, the row as it stood. No row where there is nothing to do, and none for wait, which only takes the turn.
-- locks: the turn at schedules until the transaction ends; the item's _private_known_crontabs row for key share, its
--   backfill_schedules row (insert, update)
-- index: none: its work is done in a function
-- params: $1 identifier text, $2 doing text, $3 line text, $4 author text (null for the session's role), $5 at timestamptz
select
-- part: said_schedule
from :"schema".backfill_say_schedule($1::text, $2::text, $3::text, $4::text, $5::timestamptz) as schedules
