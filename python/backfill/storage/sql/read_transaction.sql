-- does: Gives the id of this transaction, by which it can be asked later whether it was committed, and the history of the
--   database in which that id stands for it; null where the server does not say which one that is. Says too whether it is
--   deferrable: the transaction of a block is begun so, which changes nothing else, and one that its handler has begun in its
--   stead is not. And says its isolation level.
-- locks: none
-- index: none: it reads no table
-- params: none
select
  pg_current_xact_id()::text as transaction,
  :"schema".backfill_timeline() as timeline,
  current_setting('transaction_deferrable') as deferrable,
  current_setting('transaction_isolation') as isolation
