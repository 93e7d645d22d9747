      -- The job for whose retry the queue is held; null where it is free or locked by a worker.
      case when queues.locked_by ~ '^backfill:retry:[0-9]{1,18}$' then substr(queues.locked_by, 16)::bigint end
