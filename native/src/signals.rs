//! Signals counted by a thread of their own, which ends the process at the last: also while Python's loop hangs, or a C
//! call holds the interpreter's lock, so that no handler of Python's would run.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

#[cfg(unix)]
use crate::libpq_connection::without_signals;
use crate::wake::Wake;

/// A count in which signals that come soon after a counted one are part of it: process groups, shells and supervisors
/// often send two for one.
#[derive(Debug)]
pub struct Tally {
    gap: Duration,
    last: Option<Instant>,
    count: u32,
}

impl Tally {
    /// None counted yet; signals within `gap` of a counted one do not count.
    pub fn new(gap: Duration) -> Self {
        Self { gap, last: None, count: 0 }
    }

    /// A signal came now: how many count.
    pub fn note(&mut self, now: Instant) -> u32 {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.gap) {
            self.last = Some(now);
            self.count = self.count.saturating_add(1);
        }
        self.count
    }
}

/// When the process is ended, and with which status.
#[cfg_attr(not(unix), allow(dead_code))]
struct End {
    limit: u32,
    status: c_int,
    patience: Duration,
    deaf: Duration,
    late_status: c_int,
}

struct Shared {
    count: AtomicU32,
    heard: AtomicBool,
    news: Wake,
}

/// Counts signals of this process, and ends it at once when so many have come, or when its time is over.
///
/// What handled them before is called as well. There is no way back: it counts until the process ends, so make one
/// only.
#[pyclass(frozen, module = "backfill._native")]
pub struct SignalCounter(Arc<Shared>);

#[pymethods]
impl SignalCounter {
    /// Begin to count `signals`; those within `gap` seconds of a counted one are part of it. The process ends with
    /// `status` when `limit` are counted, and with `late_status` when it still runs `patience` seconds after the first,
    /// or `deaf` seconds after it where nobody has asked for the count since. An OSError where that cannot be done.
    #[new]
    fn new(
        signals: Vec<c_int>,
        gap: f64,
        limit: u32,
        status: c_int,
        patience: f64,
        deaf: f64,
        late_status: c_int,
    ) -> PyResult<Self> {
        let span = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds).map_err(|error| io::Error::other(format!("{name}: {error}")))
        };
        let end = End { limit, status, patience: span("patience", patience)?, deaf: span("deaf", deaf)?, late_status };
        let shared = Arc::new(Shared { count: AtomicU32::new(0), heard: AtomicBool::new(false), news: Wake::new()? });
        listen(&signals, Tally::new(span("gap", gap)?), end, Arc::clone(&shared))?;
        Ok(Self(shared))
    }

    /// What becomes readable when the count has changed.
    fn fileno(&self) -> c_int {
        self.0.news.descriptor()
    }

    /// How many are counted. The descriptor is not readable afterwards, until another is.
    fn count(&self) -> u32 {
        self.0.news.clear();
        let count = self.0.count.load(Ordering::Acquire);
        if count > 0 {
            self.0.heard.store(true, Ordering::Release);
        }
        count
    }
}

#[cfg(unix)]
fn listen(signals: &[c_int], mut tally: Tally, end: End, shared: Arc<Shared>) -> io::Result<()> {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    let (mut reading, writing) = UnixStream::pair()?;
    let work = move || {
        let mut bytes = [0; 64];
        let mut first: Option<Instant> = None;
        loop {
            if let Some(first) = first {
                let patience = if shared.heard.load(Ordering::Acquire) { end.patience } else { end.deaf };
                let left = patience.saturating_sub(first.elapsed());
                if left.is_zero() {
                    signal_hook::low_level::exit(end.late_status);
                }
                // Where no limit can be set, only a signal ends the process.
                let _ = reading.set_read_timeout(Some(left));
            }
            match reading.read(&mut bytes) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let now = Instant::now();
                    first = first.or(Some(now));
                    let count = tally.note(now);
                    if count >= end.limit {
                        signal_hook::low_level::exit(end.status);
                    }
                    if shared.count.swap(count, Ordering::AcqRel) != count {
                        shared.news.wake();
                    }
                }
            }
        }
    };
    // It gets none of the signals itself: they are to break into what the main thread waits for.
    without_signals(|| std::thread::Builder::new().name("backfill-signals".to_owned()).spawn(work))?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, writing.try_clone()?)?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn listen(_: &[c_int], _: Tally, _: End, _: Arc<Shared>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_near_a_counted_one_are_part_of_it() {
        let mut tally = Tally::new(Duration::from_millis(250));
        let start = Instant::now();
        let counts: Vec<u32> =
            [0, 0, 100, 249, 250, 400, 499, 500, 5000].map(|ms| tally.note(start + Duration::from_millis(ms))).to_vec();
        assert_eq!(counts, [1, 1, 1, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn a_clock_that_stands_still_counts_one() {
        let mut tally = Tally::new(Duration::from_millis(1));
        let now = Instant::now();
        assert!((0..1000).all(|_| tally.note(now) == 1));
    }
}
