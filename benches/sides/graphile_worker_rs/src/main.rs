//! Runs no-op jobs with the crate graphile_worker: two local queues of 2,500, 500 jobs at once, and completions in
//! batches of 5 ms. Called as `graphile-worker-side JOBS WARMING`; the variable DATABASE_URL names the database. It
//! prints how many seconds it took from the first job's begin until the table was empty. WARMING jobs more are there,
//! which run before the clock starts.

use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use graphile_worker::{IntoTaskHandlerResult, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::{Notify, oneshot};

const BATCHING: Duration = Duration::from_millis(5);

static FIRST: OnceLock<Instant> = OnceLock::new();
static JOBS: AtomicU64 = AtomicU64::new(0);
static LEFT: AtomicU64 = AtomicU64::new(0);
static ALL_STARTED: Notify = Notify::const_new();

#[derive(Serialize, Deserialize)]
struct Noop {
    user: u64,
}

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, _context: WorkerContext) -> impl IntoTaskHandlerResult {
        let left = LEFT.fetch_sub(1, Ordering::Relaxed);
        if left == JOBS.load(Ordering::Relaxed) {
            FIRST.get_or_init(Instant::now);
        }
        if left == 1 {
            ALL_STARTED.notify_one();
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let counts: Vec<u64> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [jobs, warming] = counts[..] else {
        return Err("expected two numbers of jobs: those that are measured, and those before them".into());
    };
    JOBS.store(jobs, Ordering::Relaxed);
    LEFT.store(jobs + warming, Ordering::Relaxed);
    let pool = PgPoolOptions::new().max_connections(20).connect(&std::env::var("DATABASE_URL")?).await?;
    let newest: i64 = sqlx::query_scalar("select coalesce(max(id), 0) - 10000 from graphile_worker._private_jobs")
        .fetch_one(&pool)
        .await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = WorkerOptions::default()
        .pg_pool(pool.clone())
        .schema("graphile_worker")
        .concurrency(500)
        .poll_interval(BATCHING)
        .local_queue(LocalQueueConfig::default().with_size(2_500).with_queue_count(2))
        .complete_job_batch_delay(BATCHING)
        .fail_job_batch_delay(BATCHING)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(async { drop(stopped.await) })
        .define_job::<Noop>()
        .init()
        .await?;
    let running = tokio::spawn(async move { worker.run().await });
    ALL_STARTED.notified().await;
    let mut last = Instant::now();
    while any_above(&pool, newest).await? || any_above(&pool, 0).await? {
        last = Instant::now();
    }
    let seconds = last.duration_since(*FIRST.get().ok_or("no job has started")?).as_secs_f64();
    let _ = stop.send(());
    running.await??;
    println!("{}", json!({ "seconds": seconds }));
    Ok(())
}

/// Whether a job is left. The newest are looked at first, since a look at all reads what remains of those deleted.
async fn any_above(pool: &PgPool, id: i64) -> sqlx::Result<bool> {
    let query = "select 1 from graphile_worker._private_jobs where id > $1 order by id desc limit 1";
    Ok(sqlx::query(query).bind(id).fetch_optional(pool).await?.is_some())
}
