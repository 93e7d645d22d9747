//! The native module's cores at their usual work, so many times: what `tools/gate_native.py` runs under callgrind.
//!
//! `counted SCENARIO TIMES`. The input is made once, whatever the number of times, and is the same in every run; the
//! difference between two numbers of times is the work alone.

use std::error::Error;
use std::hint::black_box;

use _native::backoff::Timing;
use _native::copy::{Rows, Shape};
use _native::rows::{Table, read_all};
use _native::{arrays, claim};

/// Jobs of a claim, and of a settlement.
const BATCH: usize = 500;
/// Jobs of a chunk of COPY.
const CHUNK: usize = 1_000;
/// Delays drawn.
const DELAYS: u32 = 10_000;
const TEMPLATE: &str = concat!(
    include_str!("../../python/backfill/storage/sql/parts/queue_heads.sql"),
    include_str!("../../python/backfill/storage/sql/claim.sql"),
);
type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().unwrap_or_default();
    let times: usize = arguments.next().unwrap_or_default().parse()?;
    match scenario.as_str() {
        "rows" => rows(times),
        "array" => array(times),
        "copy" => copy(times),
        "backoff" => backoff(times),
        "claim" => claims(times),
        _ => Err(format!("scenario {scenario:?}: expected rows, array, copy, backoff or claim").into()),
    }
}

/// Claimed jobs as they come back: small payloads, no key, no error, priorities and times out of order.
struct Claimed(Vec<(&'static str, Vec<Option<Vec<u8>>>)>);

impl Claimed {
    fn new() -> Self {
        let number = |row: usize| i64::try_from(row * 7919 % BATCH).unwrap_or_default();
        let column = |value: &dyn Fn(i64) -> Option<Vec<u8>>| (0..BATCH).map(|row| value(number(row))).collect();
        let int2 = |value: i16| value.to_be_bytes().to_vec();
        let time = |at: i64| Some((800_000_000_000_000 + at).to_be_bytes().to_vec());
        Self(vec![
            ("id", column(&|at| Some(at.to_be_bytes().to_vec()))),
            ("job_queue_id", column(&|_| None)),
            ("task_id", column(&|_| Some(1_i32.to_be_bytes().to_vec()))),
            ("payload", column(&|at| Some(format!("{{\"user\": {at}}}").into_bytes()))),
            ("priority", column(&|at| Some(int2(if at % 5 == 0 { -10 } else { 0 })))),
            ("run_at", column(&time)),
            ("attempts", column(&|_| Some(int2(1)))),
            ("max_attempts", column(&|_| Some(int2(8)))),
            ("last_error", column(&|_| None)),
            ("created_at", column(&time)),
            ("updated_at", column(&time)),
            ("key", column(&|_| None)),
            ("locked_at", column(&time)),
            ("locked_by", column(&|_| Some(b"worker-0123456789abcdef".to_vec()))),
            ("revision", column(&|_| Some(0_i32.to_be_bytes().to_vec()))),
            ("flags", column(&|_| None)),
        ])
    }
}

impl Table for Claimed {
    fn rows(&self) -> usize {
        BATCH
    }
    fn columns(&self) -> usize {
        self.0.len()
    }
    fn name(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column).map(|(name, _)| name.as_bytes())
    }
    fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        self.0.get(column)?.1.get(row)?.as_deref()
    }
}

/// What a claim brings back, read and put in order.
fn rows(times: usize) -> Done {
    let table = Claimed::new();
    for _ in 0..times {
        black_box(read_all(black_box(&table), true)?);
    }
    Ok(())
}

/// The ids of a settlement.
fn array(times: usize) -> Done {
    let ids: Vec<Option<i64>> = (0..BATCH).map(|id| i64::try_from(id).ok()).collect();
    for _ in 0..times {
        black_box(arrays::pack(black_box(&ids), "int8")?);
    }
    Ok(())
}

/// A chunk of COPY: jobs of one shape, as most are.
fn copy(times: usize) -> Done {
    let shape = Shape {
        task_id: 1,
        job_queue_id: None,
        priority: 0,
        run_at: 800_000_000_000_000,
        max_attempts: 8,
        flags: None,
    };
    let prefix = shape.pack()?;
    let payloads: Vec<Vec<u8>> = (0..CHUNK).map(|user| format!("{{\"user\": {user}}}").into_bytes()).collect();
    for _ in 0..times {
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let rows = Rows::new(vec![prefix.as_slice(); CHUNK], payloads, None, true, true)?;
        let mut buffer = vec![0; rows.size()];
        rows.pack(&mut buffer)?;
        black_box(buffer);
    }
    Ok(())
}

/// Delays after failures, the first 25 attempts over and over.
fn backoff(times: usize) -> Done {
    let timing = Timing::new(1.0, 300.0, 2.0, 0.1)?;
    for _ in 0..times {
        for number in 0..DELAYS {
            black_box(timing.delay(black_box(number % 25 + 1), black_box(f64::from(number) / f64::from(DELAYS))));
        }
    }
    Ok(())
}

/// The statement of the third of three lanes.
fn claims(times: usize) -> Done {
    let lanes = [(true, false, false), (true, true, true), (false, false, false)];
    for _ in 0..times {
        black_box(claim::build(black_box(TEMPLATE), "graphile_worker", &lanes, 7)?);
    }
    Ok(())
}
