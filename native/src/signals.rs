//! Signals counted by a thread of their own, which ends the process at the last: also while Python's loop hangs, or a C
//! call holds the interpreter's lock, so that no handler of Python's would run.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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

struct Shared {
    count: AtomicU32,
    news: Wake,
}

/// Counts signals of this process, and ends it at once when so many have come.
///
/// What handled them before is called as well. There is no way back: it counts until the process ends, so make one
/// only.
#[pyclass(frozen, module = "backfill._native")]
pub struct SignalCounter(Arc<Shared>);

#[pymethods]
impl SignalCounter {
    /// Begin to count `signals`; those within `gap` seconds of a counted one are part of it. The process ends with
    /// `status` when `limit` are counted. An OSError where that cannot be done.
    #[new]
    fn new(signals: Vec<c_int>, gap: f64, limit: u32, status: c_int) -> PyResult<Self> {
        let gap = Duration::try_from_secs_f64(gap).map_err(|error| io::Error::other(format!("gap: {error}")))?;
        let shared = Arc::new(Shared { count: AtomicU32::new(0), news: Wake::new()? });
        listen(&signals, Tally::new(gap), limit, status, Arc::clone(&shared))?;
        Ok(Self(shared))
    }

    /// What becomes readable when the count has changed.
    fn fileno(&self) -> c_int {
        self.0.news.descriptor()
    }

    /// How many are counted. The descriptor is not readable afterwards, until another is.
    fn count(&self) -> u32 {
        self.0.news.clear();
        self.0.count.load(Ordering::Acquire)
    }
}

#[cfg(unix)]
fn listen(signals: &[c_int], mut tally: Tally, limit: u32, status: c_int, shared: Arc<Shared>) -> io::Result<()> {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    let (mut reading, writing) = UnixStream::pair()?;
    let work = move || {
        let mut bytes = [0; 64];
        loop {
            match reading.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let count = tally.note(Instant::now());
                    if count >= limit {
                        signal_hook::low_level::exit(status);
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
fn listen(_: &[c_int], _: Tally, _: u32, _: c_int, _: Arc<Shared>) -> io::Result<()> {
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
