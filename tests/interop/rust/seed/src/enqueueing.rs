//! Enqueueing jobs.

use backfill::{BackfillClient, EnqueueOutcome, JobKeyMode, JobSpec, Priority, Queue};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Answer, tell};

/// How a job is to be enqueued; what is left out is the crate's default.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Given {
    queue: Option<String>,
    run_at: Option<DateTime<Utc>>,
    max_attempts: Option<i32>,
    job_key: Option<String>,
    job_key_mode: Option<String>,
    priority: Option<i16>,
}

pub fn spec(given: Given) -> Answer<JobSpec> {
    let default = JobSpec::default();
    let mode = match given.job_key_mode.as_deref() {
        None | Some("replace") => JobKeyMode::Replace,
        Some("preserve_run_at") => JobKeyMode::PreserveRunAt,
        Some("unsafe_dedupe") => JobKeyMode::UnsafeDedupe,
        Some(other) => return Err(format!("unknown job_key_mode: {other}").into()),
    };
    Ok(JobSpec {
        run_at: given.run_at,
        priority: given.priority.map_or(default.priority, Priority),
        queue: given.queue.map_or(Queue::Parallel, Queue::serial),
        max_attempts: given.max_attempts.or(default.max_attempts),
        retry_policy: None,
        job_key: given.job_key,
        job_key_mode: mode,
    })
}

/// Enqueues each task with its payload and spec, and tells the job.
pub async fn enqueue(client: &BackfillClient, jobs: Vec<(String, Value, Given)>) -> Answer {
    for (task, payload, given) in jobs {
        let told = match client.enqueue(&task, &payload, spec(given)?).await? {
            EnqueueOutcome::Enqueued(job) => json!({
                "id": job.id(), "key": job.key(), "revision": job.revision(), "attempts": job.attempts(),
                "max_attempts": job.max_attempts(), "priority": job.priority(), "payload": job.payload(),
            }),
            EnqueueOutcome::AlreadyInProgress { job_key } => json!({ "in_progress": job_key }),
        };
        tell(&told);
    }
    Ok(())
}
