  schedules.identifier, schedules.line, schedules.is_added, schedules.paused_by, schedules.said_by, schedules.revision,
  (extract(epoch from schedules.paused_at) * 1000000)::bigint as paused_at,
  (extract(epoch from schedules.removed_at) * 1000000)::bigint as removed_at,
  (extract(epoch from schedules.since) * 1000000)::bigint as since,
  (extract(epoch from schedules.said_at) * 1000000)::bigint as said_at
