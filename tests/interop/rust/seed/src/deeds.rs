//! What the crate's client does to jobs, dead letters and locks that are there.

use std::time::Duration;

use backfill::{BackfillClient, DlqFilter, EnqueueOutcome};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::enqueueing::{Given, spec};
use crate::{Answer, tell};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Deed {
    InitDlq,
    List {
        task: Option<String>,
    },
    Get {
        id: i64,
    },
    Requeue {
        id: i64,
        notes: Option<String>,
    },
    Delete {
        id: i64,
    },
    DeleteByKey {
        job_key: String,
    },
    Stats,
    ProcessFailed,
    /// Enqueues a job and adds it to the dead letters at once; its own row stays.
    Bury {
        task: String,
        payload: Value,
        spec: Given,
        reason: String,
    },
    RemoveJob {
        job_key: String,
    },
    FailJobs {
        ids: Vec<i64>,
        reason: String,
    },
    ReleaseQueues {
        seconds: u64,
    },
    ReleaseJobs {
        seconds: u64,
    },
    DeleteFailed,
    StartupCleanup,
}

/// Does one thing after the other, and tells how each ended.
pub async fn carry_out(client: &BackfillClient, deeds: Vec<Deed>) -> Answer {
    for deed in deeds {
        tell(&one(client, deed).await?);
    }
    Ok(())
}

async fn one(client: &BackfillClient, deed: Deed) -> Answer<Value> {
    Ok(match deed {
        Deed::InitDlq => {
            client.init_dlq().await?;
            json!("made")
        }
        Deed::List { task } => {
            let filter = DlqFilter { task_identifier: task, limit: Some(50), ..Default::default() };
            let found = client.list_dlq_jobs(filter).await?;
            json!({ "jobs": serde_json::to_value(&found.jobs)?, "total": found.total })
        }
        Deed::Get { id } => serde_json::to_value(client.get_dlq_job(id).await?)?,
        Deed::Requeue { id, notes } => {
            let job = client.requeue_dlq_job(id, notes).await?;
            json!({ "id": job.id(), "key": job.key(), "payload": job.payload(), "max_attempts": job.max_attempts() })
        }
        Deed::Delete { id } => json!(client.delete_dlq_job(id).await?),
        Deed::DeleteByKey { job_key } => json!(client.delete_dlq_by_job_key(&job_key).await?),
        Deed::Stats => {
            let found = client.dlq_stats().await?;
            json!({ "total": found.total_jobs, "tasks": found.unique_tasks, "requeued": found.total_requeued })
        }
        Deed::ProcessFailed => json!(client.process_failed_jobs().await?),
        Deed::Bury { task, payload, spec: given, reason } => {
            let EnqueueOutcome::Enqueued(job) = client.enqueue(&task, &payload, spec(given)?).await? else {
                return Err("the job was not enqueued".into());
            };
            serde_json::to_value(client.add_to_dlq(&job, &reason, Some(json!("as told"))).await?)?
        }
        Deed::RemoveJob { job_key } => {
            client.remove_job(&job_key).await?;
            json!("removed")
        }
        Deed::FailJobs { ids, reason } => {
            client.fail_jobs(&ids, &reason).await?;
            json!("failed")
        }
        Deed::ReleaseQueues { seconds } => {
            json!(client.release_stale_queue_locks(Duration::from_secs(seconds)).await?)
        }
        Deed::ReleaseJobs { seconds } => json!(client.release_stale_job_locks(Duration::from_secs(seconds)).await?),
        Deed::DeleteFailed => json!(client.cleanup_permanently_failed_jobs().await?),
        Deed::StartupCleanup => json!(client.startup_cleanup().await?),
    })
}
