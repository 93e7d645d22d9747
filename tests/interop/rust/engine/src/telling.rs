//! A line of JSON for each thing that is told.

use std::io::Write;

use graphile_worker::Job;
use serde_json::{Value, json};

/// Writes one line; whole lines only, since handlers tell from several threads.
pub fn tell(thing: &Value) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{thing}");
    let _ = output.flush();
}

/// A job as the tests want to see it.
pub fn told_job(job: &Job) -> Value {
    json!({
        "id": job.id(), "task": job.task_identifier(), "payload": job.payload(), "priority": job.priority(),
        "run_at": job.run_at(), "attempts": job.attempts(), "max_attempts": job.max_attempts(), "key": job.key(),
        "revision": job.revision(), "flags": job.flags(), "is_serial": job.job_queue_id().is_some(),
    })
}
