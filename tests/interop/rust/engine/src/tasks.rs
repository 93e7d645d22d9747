//! The tasks of the tests. A payload says what becomes of its job: `{"fail": "why"}` fails, and one with `"wait": true`
//! ends only when a line has come on the standard input; all others complete. Of a batch, each item with `fail` fails.

use std::sync::LazyLock;

use graphile_worker::{BatchTaskHandler, IntoBatchTaskHandlerResult, IntoTaskHandlerResult};
use graphile_worker::{JobDefinition, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::telling::{tell, told_job};

/// A permit for each line that has come: a waiting handler takes one and ends.
pub static LINES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(0));

/// Runs a job as its payload says.
async fn handle(payload: Value, context: WorkerContext) -> Result<(), String> {
    let job = told_job(context.job());
    if payload["wait"] == true {
        tell(&json!({ "began": job, "worker": context.worker_id() }));
        LINES.acquire().await.map_err(|error| error.to_string())?.forget();
    }
    tell(&json!({ "ran": job, "worker": context.worker_id() }));
    match payload["fail"].as_str() {
        Some(why) => Err(why.to_string()),
        None => Ok(()),
    }
}

macro_rules! task {
    ($name:ident, $identifier:literal) => {
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct $name(Value);

        impl TaskHandler for $name {
            const IDENTIFIER: &'static str = $identifier;

            async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
                handle(self.0, context).await
            }
        }
    };
}

task!(Theirs, "theirs");
task!(Both, "both");

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Batch(Value);

impl BatchTaskHandler for Batch {
    const IDENTIFIER: &'static str = "batch";

    async fn run_batch(items: Vec<Self>, context: WorkerContext) -> impl IntoBatchTaskHandlerResult {
        tell(&json!({ "ran": told_job(context.job()), "worker": context.worker_id() }));
        let ended: Vec<Result<(), String>> = items
            .iter()
            .map(|item| match item.0["fail"].as_str() {
                Some(why) => Err(why.to_string()),
                None => Ok(()),
            })
            .collect();
        ended
    }
}

/// The definition of a task by its name.
pub fn definition(name: &str) -> Option<JobDefinition> {
    match name {
        Theirs::IDENTIFIER => Some(Theirs::definition()),
        Both::IDENTIFIER => Some(Both::definition()),
        Batch::IDENTIFIER => Some(Batch::definition()),
        _ => None,
    }
}
