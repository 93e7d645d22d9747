//! What the crate's utilities do to jobs and workers that are there.

use std::time::Duration;

use graphile_worker::WorkerUtils;
use graphile_worker::worker_utils::types::{CleanupTask, RescheduleJobOptions};
use graphile_worker::{SweepStaleWorkersOptions, WorkerRecoveryConfig};
use serde::Deserialize;
use serde_json::json;

use crate::Answer;
use crate::telling::tell;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Deed {
    Remove { job_key: String },
    Complete { ids: Vec<i64> },
    Fail { ids: Vec<i64>, reason: String },
    Reschedule { ids: Vec<i64>, attempts: Option<i16> },
    Unlock { workers: Vec<String> },
    Collect,
    Sweep { threshold_ms: u64 },
    Active { threshold_ms: u64 },
}

/// Does one thing after the other, and tells how each ended.
pub async fn manage(utils: &WorkerUtils, deeds: Vec<Deed>) -> Answer {
    for deed in deeds {
        let told = match deed {
            Deed::Remove { job_key } => {
                utils.remove_job(&job_key).await?;
                json!({ "removed": job_key })
            }
            Deed::Complete { ids } => json!({ "completed": utils.complete_jobs(&ids).await?.len() }),
            Deed::Fail { ids, reason } => {
                json!({ "failed": utils.permanently_fail_jobs(&ids, &reason).await?.len() })
            }
            Deed::Reschedule { ids, attempts } => {
                let options = RescheduleJobOptions { run_at: Some(chrono::Utc::now()), attempts, ..Default::default() };
                json!({ "rescheduled": utils.reschedule_jobs(&ids, options).await?.len() })
            }
            Deed::Unlock { workers } => {
                let ids: Vec<&str> = workers.iter().map(String::as_str).collect();
                utils.force_unlock_workers(&ids).await?;
                json!({ "unlocked": workers })
            }
            Deed::Collect => {
                utils.cleanup(&[CleanupTask::GcTaskIdentifiers, CleanupTask::GcJobQueues]).await?;
                json!("collected")
            }
            Deed::Sweep { threshold_ms } => {
                let config = WorkerRecoveryConfig::default().recovery_delay(Duration::ZERO);
                let options = SweepStaleWorkersOptions {
                    sweep_threshold: Some(Duration::from_millis(threshold_ms)),
                    ..Default::default()
                };
                let found = utils.sweep_stale_workers_with_config(&config, options).await?;
                json!({ "dead": found.worker_ids, "recovered": found.recovered_count })
            }
            Deed::Active { threshold_ms } => {
                let found = utils.list_active_workers(Duration::from_millis(threshold_ms)).await?;
                json!({ "active": serde_json::to_value(&found)? })
            }
        };
        tell(&told);
    }
    Ok(())
}
