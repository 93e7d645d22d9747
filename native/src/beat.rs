//! The heartbeat's rules, without Python, threads or libpq: its settings, when the next beat is due, and what is known
//! of it.
//!
//! `beat_loop.rs` is the thread that goes by them, `heartbeat.rs` what Python sees of both.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::libpq_connection::Row;
use crate::wake::Wake;

const FIRST_PAUSE: f64 = 0.1;
const LONGEST_PAUSE: f64 = 1.0;
const MOST_PARAMETERS: usize = 1_000;

/// A setting that no heart can beat by. Texts are not shown: a connection string may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeatError {
    field: String,
    value: Option<String>,
    limit: &'static str,
}

impl fmt::Display for BeatError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(out, "{} = {value}: expected {}", self.field, self.limit),
            None => write!(out, "{}: expected {}", self.field, self.limit),
        }
    }
}

impl std::error::Error for BeatError {}

impl BeatError {
    fn plain(field: &str, limit: &'static str) -> Self {
        Self { field: field.to_owned(), value: None, limit }
    }

    /// libpq was not found, or must not be used by threads.
    pub fn unreached() -> Self {
        Self::plain("libpq", "psycopg's C part, found by reach_libpq")
    }

    /// A heartbeat that a forked child has from its parent.
    pub fn inherited() -> Self {
        Self::plain("start", "one of this process's own: after a fork, make another")
    }

    /// A heartbeat that was stopped.
    pub fn ended() -> Self {
        Self::plain("start", "one that was not stopped: make another")
    }
}

/// Seconds from `low` to `high`.
pub fn seconds(field: &str, value: f64, low: f64, high: f64, limit: &'static str) -> Result<Duration, BeatError> {
    // Written so that NaN, which compares as false, is refused.
    if value >= low && value <= high {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(BeatError { field: field.to_owned(), value: Some(format!("{value:?}")), limit })
    }
}

/// A text as C has it.
pub fn text(field: &str, value: String) -> Result<CString, BeatError> {
    CString::new(value).map_err(|_| BeatError::plain(field, "text without NUL"))
}

/// A statement's parameters as C has them; a null where one is none.
pub fn parameters(values: Vec<Option<String>>) -> Result<Vec<Option<CString>>, BeatError> {
    if values.len() > MOST_PARAMETERS {
        let (field, value) = ("parameters".to_owned(), Some(format!("{} values", values.len())));
        return Err(BeatError { field, value, limit: "at most 1000 values" });
    }
    let checked = |(place, value): (usize, Option<String>)| {
        value.map(|value| text(&format!("parameters[{place}]"), value)).transpose()
    };
    values.into_iter().enumerate().map(checked).collect()
}

/// What a heartbeat does, and how often.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Commands for each new connection.
    pub setup: Vec<CString>,
    /// The beat.
    pub statement: CString,
    /// What opens the transaction of each beat, which is committed then; else a beat is one by itself.
    pub begin: Option<CString>,
    /// From the begin of one beat to the begin of the next.
    pub interval: Duration,
    /// The longest for connecting, and for a beat.
    pub timeout: Duration,
    /// The loop's lag over which there is no beat.
    pub stuck_after: Option<Duration>,
}

impl Settings {
    /// Checks what was given: `interval` and `timeout` from 0.01 to 3600 seconds, `stuck_after` from 0.01 to 86400.
    pub fn new(
        setup: Vec<String>,
        statement: String,
        interval: f64,
        timeout: f64,
        stuck_after: Option<f64>,
        begin: Option<String>,
    ) -> Result<Self, BeatError> {
        const HOUR: &str = "seconds from 0.01 to 3600";
        const DAY: &str = "seconds from 0.01 to 86400, or None";
        let commands = setup.into_iter().enumerate();
        Ok(Self {
            setup: commands.map(|(place, each)| text(&format!("setup[{place}]"), each)).collect::<Result<_, _>>()?,
            statement: text("statement", statement)?,
            begin: begin.map(|given| text("begin", given)).transpose()?,
            interval: seconds("interval", interval, 0.01, 3600.0, HOUR)?,
            timeout: seconds("timeout", timeout, 0.01, 3600.0, HOUR)?,
            stuck_after: stuck_after.map(|given| seconds("stuck_after", given, 0.01, 86400.0, DAY)).transpose()?,
        })
    }
}

/// When the next beat is due.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    interval: Duration,
    due: Instant,
    failures: i32,
}

impl Plan {
    /// The first beat is due at once.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, due: now, failures: 0 }
    }

    /// When the next beat is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Not at its time, but now.
    pub fn hurry(&mut self, now: Instant) {
        self.due = now;
    }

    /// A beat begins.
    pub fn begin(&mut self, now: Instant) {
        self.due = now + self.interval;
    }

    /// It succeeded.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It failed. On a connection that had been good (`proven`) it is tried again at once; else after 0.1 to 1 seconds,
    /// more the more often it failed, drawn by `unit` (from 0 to 1), and never later than the next beat would be.
    pub fn failed(&mut self, now: Instant, proven: bool, unit: f64) {
        if proven {
            self.due = now;
            return;
        }
        self.failures = (self.failures + 1).min(16);
        let most = (FIRST_PAUSE * 2_f64.powi(self.failures)).min(LONGEST_PAUSE);
        let pause = Duration::from_secs_f64(FIRST_PAUSE + (most - FIRST_PAUSE) * unit.clamp(0.0, 1.0));
        self.due = now + pause.min(self.interval);
    }
}

/// What is known of a heartbeat: what Python asks of it, and what it found.
#[derive(Debug, Default)]
pub struct State {
    /// Where to connect.
    pub conninfo: CString,
    /// The statement's, without the lag.
    pub parameters: Vec<Option<CString>>,
    /// How often `parameters` changed: what a beat with older ones found is no longer so.
    pub version: u64,
    /// The next beat is wanted now.
    pub hurry: bool,
    /// Beats that found their row.
    pub beats: u64,
    /// When the last of them was sent.
    pub last_success: Option<Instant>,
    /// The row that the newest beat gave.
    pub answer: Option<Row>,
    /// It gave none.
    pub missing: bool,
    /// What went wrong last; none after a success.
    pub failure: Option<String>,
    /// A connection was refused since the last connection string came.
    pub wants_conninfo: bool,
    /// The loop lags too far.
    pub stuck: bool,
    /// A connection stands.
    pub connected: bool,
    /// Since when beats have succeeded on it.
    pub unbroken: Option<Instant>,
}

impl State {
    /// A beat gave a row, or none; whether that is news.
    pub fn answered(&mut self, row: Option<Row>, version: u64, sent: Instant) -> bool {
        let mut news = self.failure.take().is_some();
        self.wants_conninfo = false;
        self.unbroken.get_or_insert(sent);
        match row {
            Some(row) => {
                self.beats += 1;
                self.last_success = Some(sent);
                if self.answer.as_ref() != Some(&row) {
                    self.answer = Some(row);
                    news = true;
                }
            }
            None if version == self.version => {
                self.missing = true;
                news = true;
            }
            None => {}
        }
        news
    }

    /// A connection could not be had (`refused`), or was lost.
    pub fn failed(&mut self, failure: String, refused: bool) {
        self.failure = Some(failure);
        self.wants_conninfo |= refused;
        self.connected = false;
        self.unbroken = None;
    }
}

/// What Python's side and the thread share. Locks are held for moments, never while waiting or talking to a server.
#[derive(Debug)]
pub struct Shared {
    /// What to do.
    pub settings: Settings,
    /// Becomes readable when there is news.
    pub news: Wake,
    /// Becomes readable when the thread is asked for something.
    pub orders: Wake,
    made: Instant,
    alive: AtomicU64,
    stopping: AtomicBool,
    state: Mutex<State>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Shared {
    /// Nothing is known yet.
    pub fn new(settings: Settings, conninfo: CString, parameters: Vec<Option<CString>>) -> io::Result<Self> {
        Ok(Self {
            settings,
            news: Wake::new()?,
            orders: Wake::new()?,
            made: Instant::now(),
            alive: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            state: Mutex::new(State { conninfo, parameters, ..State::default() }),
            ended: Mutex::new(false),
            end: Condvar::new(),
        })
    }

    /// All that is known.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop turns.
    pub fn alive(&self) {
        let micros = u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.alive.store(micros, Ordering::Relaxed);
    }

    /// How long ago the loop last said that it turns.
    pub fn lag(&self) -> Duration {
        self.made.elapsed().saturating_sub(Duration::from_micros(self.alive.load(Ordering::Relaxed)))
    }

    /// Whether there is to be a beat when its time comes; notes whether the loop is stuck.
    pub fn may_beat(&self) -> bool {
        let lag = self.lag();
        let stuck = self.settings.stuck_after.is_some_and(|most| lag > most);
        let mut state = self.state();
        state.stuck = stuck;
        !stuck && !state.missing
    }

    /// Ask the thread to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.orders.wake();
    }

    /// Whether it was asked to.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The thread has ended.
    pub fn set_ended(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.end.notify_all();
    }

    /// Wait for its end, so long; whether it has ended.
    pub fn wait_for_end(&self, longest: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.end.wait_timeout_while(ended, longest, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
#[path = "beat_tests.rs"]
mod tests;
