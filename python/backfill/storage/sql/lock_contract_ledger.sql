-- does: Keeps other programs from migrating, and collectors of unused queues from deleting, until the transaction ends.
-- locks: the contract's ledger (share row exclusive)
-- index: none: it reads no table
-- params: none
lock table :"schema".migrations in share row exclusive mode
