-- does: Finds the ids of tasks by their identifiers.
-- locks: none
-- index: tasks_identifier_key
-- params: $1 identifiers text[]
select id, identifier
from :"schema"._private_tasks
where identifier = any ($1::text[])
