//! What the tests have the crate backfill do on a database: `seed-partner COMMAND JSON`. The variable DATABASE_URL
//! names the database. It tells each thing as a line of JSON.

mod deeds;
mod enqueueing;
mod working;

use std::error::Error;
use std::io::Write;

use backfill::BackfillClient;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub type Answer<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Answer {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [command, given] = words.as_slice() else {
        return Err("expected a command and its JSON".into());
    };
    let url = std::env::var("DATABASE_URL")?;
    match command.as_str() {
        "enqueue" => enqueueing::enqueue(&BackfillClient::new(&url).await?, read(given)?).await,
        "do" => deeds::carry_out(&BackfillClient::new(&url).await?, read(given)?).await,
        "work" => working::until_idle(&url).await,
        "run" => working::until_told(&url, read(given)?).await,
        other => Err(format!("unknown command: {other}").into()),
    }
}

fn read<T: DeserializeOwned>(given: &str) -> Answer<T> {
    Ok(serde_json::from_str(given)?)
}

/// Writes one line of JSON; whole lines only, since handlers tell from several threads.
pub fn tell(thing: &Value) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{thing}");
    let _ = output.flush();
}
