//! The crate's worker: until nothing is due, or until the standard input ends.

use std::time::Duration;

use graphile_worker::{Worker, WorkerOptions, WorkerRecoveryConfig};
use serde::Deserialize;
use serde_json::json;
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::oneshot;

use crate::Answer;
use crate::tasks::{LINES, definition};
use crate::telling::tell;

/// What a worker is to do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    tasks: Vec<String>,
    #[serde(default = "one")]
    concurrency: usize,
    #[serde(default)]
    forbidden: Vec<String>,
    #[serde(default)]
    accepted: Vec<String>,
    /// With it, recovery is on: workers are dead that have not beaten for so many milliseconds.
    threshold_ms: Option<u64>,
}

fn one() -> usize {
    1
}

fn options(pool: PgPool, plan: &Plan) -> Answer<WorkerOptions> {
    let mut options = WorkerOptions::default()
        .pg_pool(pool)
        .schema("graphile_worker")
        .concurrency(plan.concurrency)
        .poll_interval(Duration::from_millis(100))
        .listen_os_shutdown_signals(false);
    for name in &plan.tasks {
        options = options.define_jobs([definition(name).ok_or("unknown task")?]);
    }
    for flag in &plan.forbidden {
        options = options.add_forbidden_flag(flag);
    }
    for flag in &plan.accepted {
        options = options.add_accepted_flag(flag);
    }
    if let Some(threshold) = plan.threshold_ms {
        let threshold = Duration::from_millis(threshold);
        options = options.worker_recovery(
            WorkerRecoveryConfig::default()
                .heartbeat_interval(threshold / 4)
                .sweep_interval(threshold / 4)
                .sweep_threshold(threshold)
                .recovery_delay(Duration::ZERO),
        );
    }
    Ok(options)
}

/// Runs what is due.
pub async fn until_idle(pool: PgPool, plan: Plan) -> Answer {
    let worker: Worker = options(pool, &plan)?.init().await?;
    worker.run_once().await?;
    Ok(())
}

/// Runs jobs; each line of the standard input lets one waiting handler end, and its end stops the worker.
pub async fn until_told(pool: PgPool, plan: Plan) -> Answer {
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async {
        let _ = stopped.await;
    };
    let worker: Worker = options(pool, &plan)?.shutdown_signal(signal).init().await?;
    tell(&json!({ "ready": worker.worker_id() }));
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            LINES.add_permits(1);
        }
        let _ = stop.send(());
    });
    worker.run().await?;
    Ok(())
}
