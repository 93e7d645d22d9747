//! The worker of the crate: until nothing is due, or until the standard input ends. It knows the tasks `theirs` and
//! `both`; a payload of `{"fail": "why"}` fails, and all others complete.

use std::time::Duration;

use backfill::{IntoTaskHandlerResult, TaskHandler, WorkerConfig, WorkerContext, WorkerRunner};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::{Answer, tell};

macro_rules! task {
    ($name:ident, $identifier:literal) => {
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct $name(Value);

        impl TaskHandler for $name {
            const IDENTIFIER: &'static str = $identifier;

            async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
                let job = context.job();
                tell(&json!({ "ran": {
                    "id": job.id(), "payload": job.payload(), "attempts": job.attempts(), "key": job.key(),
                    "max_attempts": job.max_attempts(), "priority": job.priority(),
                    "is_serial": job.job_queue_id().is_some(),
                }}));
                match self.0["fail"].as_str() {
                    Some(why) => Err(why.to_string()),
                    None => Ok(()),
                }
            }
        }
    };
}

task!(Theirs, "theirs");
task!(Both, "both");

/// How a worker is to be set up.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    concurrency: usize,
    /// How often it moves dead jobs and releases locks.
    every_ms: u64,
}

async fn runner(config: WorkerConfig) -> Answer<WorkerRunner> {
    Ok(WorkerRunner::builder(config).await?.define_job::<Theirs>().define_job::<Both>().build().await?)
}

/// Runs what is due.
pub async fn until_idle(url: &str) -> Answer {
    runner(WorkerConfig::new(url)).await?.process_available_jobs().await?;
    Ok(())
}

/// Runs jobs until the standard input ends, with the crate's dead letters and clean-up.
pub async fn until_told(url: &str, plan: Plan) -> Answer {
    let every = Duration::from_millis(plan.every_ms);
    let config = WorkerConfig::new(url)
        .with_concurrency(plan.concurrency)
        .with_poll_interval(Duration::from_millis(100))
        .with_dlq_processor_interval(Some(every))
        .with_stale_lock_cleanup_interval(Some(every));
    let token = CancellationToken::new();
    let running = runner(config).await?.spawn_background(token.clone());
    tell(&json!("ready"));
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    token.cancel();
    running.await??;
    Ok(())
}
