//! Adding jobs, one by one or in one call.

use chrono::{DateTime, Utc};
use graphile_worker::{JobKeyMode, JobSpec, RawJobSpec, WorkerUtils};
use serde::Deserialize;
use serde_json::Value;

use crate::Answer;
use crate::telling::{tell, told_job};

/// How a job is to be added; what is left out is the crate's default.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    queue: Option<String>,
    run_at: Option<DateTime<Utc>>,
    max_attempts: Option<i16>,
    job_key: Option<String>,
    job_key_mode: Option<String>,
    priority: Option<i16>,
    flags: Option<Vec<String>>,
}

/// A job's task, payload and spec.
pub type Given = (String, Value, Spec);

fn spec(given: Spec) -> Answer<JobSpec> {
    let mode = match given.job_key_mode.as_deref() {
        None => None,
        Some("replace") => Some(JobKeyMode::Replace),
        Some("preserve_run_at") => Some(JobKeyMode::PreserveRunAt),
        Some("unsafe_dedupe") => Some(JobKeyMode::UnsafeDedupe),
        Some(other) => return Err(format!("unknown job_key_mode: {other}").into()),
    };
    Ok(JobSpec {
        queue_name: given.queue,
        run_at: given.run_at,
        max_attempts: given.max_attempts,
        job_key: given.job_key,
        job_key_mode: mode,
        priority: given.priority,
        flags: given.flags,
    })
}

/// Adds each by add_raw_job, and tells its row.
pub async fn one_by_one(utils: &WorkerUtils, jobs: Vec<Given>) -> Answer {
    for (task, payload, given) in jobs {
        let job = utils.add_raw_job(&task, payload, spec(given)?).await?;
        tell(&told_job(&job));
    }
    Ok(())
}

/// Adds all by one call of add_raw_jobs, and tells their rows.
pub async fn together(utils: &WorkerUtils, jobs: Vec<Given>) -> Answer {
    let mut specs = Vec::new();
    for (identifier, payload, given) in jobs {
        specs.push(RawJobSpec { identifier, payload, spec: spec(given)? });
    }
    for job in utils.add_raw_jobs(&specs).await? {
        tell(&told_job(&job));
    }
    Ok(())
}
