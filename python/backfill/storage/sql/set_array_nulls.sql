-- does: Has the session read NULL within the text of an array as null, whatever the default of its role or database is.
-- locks: none
-- index: none: it reads no table
-- params: none
select set_config('array_nulls', 'on', false)
