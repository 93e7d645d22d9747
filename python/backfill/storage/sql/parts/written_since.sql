    -- Whether somebody may have replaced or removed the job since it was locked: it has neither a key nor attempts left, and
    -- its row was written by somebody else. Our claims and renewals make updated_at equal to locked_at, so any difference
    -- shows another's write, whichever of the two is later: transactions overlap. A row whose updated_at is still that of
    -- its insertion was never written by those who replace or remove.
    jobs.key is null
      and jobs.attempts >= jobs.max_attempts
      and jobs.updated_at is distinct from jobs.locked_at
      and jobs.updated_at <> jobs.created_at
