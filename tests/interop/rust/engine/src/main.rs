//! What the tests have the crate graphile_worker do on a database: `engine-partner COMMAND JSON`. The variable
//! DATABASE_URL names the database. It tells each thing as a line of JSON.

mod adding;
mod managing;
mod tasks;
mod telling;
mod working;

use std::error::Error;

use graphile_worker::WorkerUtils;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgPoolOptions;

pub type Answer<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Answer {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [command, given] = words.as_slice() else {
        return Err("expected a command and its JSON".into());
    };
    let pool = PgPoolOptions::new().max_connections(10).connect(&std::env::var("DATABASE_URL")?).await?;
    let utils = WorkerUtils::new(pool.clone(), "graphile_worker".to_string());
    match command.as_str() {
        "migrate" => utils.migrate().await?,
        "add" => adding::one_by_one(&utils, read(given)?).await?,
        "add_together" => adding::together(&utils, read(given)?).await?,
        "manage" => managing::manage(&utils, read(given)?).await?,
        "work" => working::until_idle(pool.clone(), read(given)?).await?,
        "run" => working::until_told(pool.clone(), read(given)?).await?,
        other => return Err(format!("unknown command: {other}").into()),
    }
    pool.close().await;
    Ok(())
}

fn read<T: DeserializeOwned>(given: &str) -> Answer<T> {
    Ok(serde_json::from_str(given)?)
}
