//! The heartbeat as Python sees it: a thin wrapper round `beat_loop.rs`, inert in a forked child.

use std::ffi::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::beat::{BeatError, Settings, Shared, parameters, seconds, text};
use crate::beat_loop::spawn;
use crate::libpq_connection::usable;

/// How long the object's own end waits for its thread.
const FAREWELL: Duration = Duration::from_secs(1);
const LONGEST_STOP: f64 = 86400.0;

/// What a heartbeat knows of itself at a moment.
#[pyclass(frozen, get_all, module = "backfill._native")]
pub struct HeartbeatReport {
    /// How many beats found their row.
    beats: u64,
    /// How many seconds ago the last of them was sent, or None before the first.
    last_success: Option<f64>,
    /// The columns, as text, of the row that the newest beat gave, or None before the first.
    answer: Option<Py<PyTuple>>,
    /// Whether the statement gave no row: the worker was given up. No beat follows until `resume`.
    missing: bool,
    /// What went wrong last, on one line without a password; None after a success.
    failure: Option<String>,
    /// Whether a connection was refused since the last connection string came.
    wants_conninfo: bool,
    /// Whether the loop lags more than `stuck_after`: no beat follows until it turns again.
    stuck: bool,
    /// Whether a connection stands.
    connected: bool,
    /// For how many seconds beats have succeeded on this connection, or None.
    unbroken: Option<f64>,
}

#[pymethods]
impl HeartbeatReport {
    #[new]
    #[pyo3(signature = (*, beats=0, last_success=None, answer=None, missing=false, failure=None, wants_conninfo=false,
                        stuck=false, connected=false, unbroken=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        beats: u64,
        last_success: Option<f64>,
        answer: Option<Py<PyTuple>>,
        missing: bool,
        failure: Option<String>,
        wants_conninfo: bool,
        stuck: bool,
        connected: bool,
        unbroken: Option<f64>,
    ) -> Self {
        Self { beats, last_success, answer, missing, failure, wants_conninfo, stuck, connected, unbroken }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let shown = |flag: bool| if flag { "True" } else { "False" };
        let failure = self.failure.as_deref().into_pyobject(py)?.repr()?;
        Ok(format!(
            "HeartbeatReport(beats={}, missing={}, failure={failure}, wants_conninfo={}, stuck={}, connected={})",
            self.beats,
            shown(self.missing),
            shown(self.wants_conninfo),
            shown(self.stuck),
            shown(self.connected)
        ))
    }
}

enum Phase {
    New,
    Running(JoinHandle<()>),
    Ended,
}

/// A thread that writes a heartbeat on a connection of its own, whatever the interpreter does meanwhile.
///
/// It calls nothing of Python, and waits for nothing without a time limit; but libpq looks up a host's name for as long
/// as the system takes for it (`hostaddr` in the connection string avoids that). Of several hosts another is tried
/// first after each failure.
///
/// Args: `conninfo`, where to connect; `setup`, commands for each new connection; `statement`, the beat, which gives a
/// row or, where this worker was given up, none; `parameters`, its parameters in text format, to which the thread
/// appends the loop's lag in seconds; `interval`, seconds from the begin of one beat to that of the next (0.01 to
/// 3600); `timeout`, the seconds that connecting, and a beat, may take (0.01 to 3600); `stuck_after`, the loop's lag in
/// seconds over which there is no beat (0.01 to 86400), or None; `begin`, a command that opens a transaction for each
/// beat, which is committed then, or None where a beat is a transaction by itself. In a forked child the object does
/// nothing.
///
/// Raises ConfigurationError for what cannot be used, or where libpq was not reached.
#[pyclass(frozen, weakref, module = "backfill._native")]
pub struct HeartbeatThread {
    shared: Arc<Shared>,
    phase: Mutex<Phase>,
    process: u32,
}

impl HeartbeatThread {
    /// Whether this is a child of the process that made it: the thread is not there, its locks may be held for ever.
    fn is_inherited(&self) -> bool {
        std::process::id() != self.process
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl HeartbeatThread {
    #[new]
    #[pyo3(signature = (conninfo, setup, statement, parameters, interval, timeout, stuck_after=None, begin=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        conninfo: String,
        setup: Vec<String>,
        statement: String,
        parameters: Vec<Option<String>>,
        interval: f64,
        timeout: f64,
        stuck_after: Option<f64>,
        begin: Option<String>,
    ) -> PyResult<Self> {
        let settings = Settings::new(setup, statement, interval, timeout, stuck_after, begin)?;
        let (conninfo, parameters) = (text("conninfo", conninfo)?, self::parameters(parameters)?);
        if !usable() {
            return Err(BeatError::unreached().into());
        }
        let shared = Arc::new(Shared::new(settings, conninfo, parameters)?);
        Ok(Self { shared, phase: Mutex::new(Phase::New), process: std::process::id() })
    }

    /// Start the thread, once; the first beat is at once.
    ///
    /// Raises ConfigurationError after `stop`, and in a forked child.
    fn start(&self) -> PyResult<()> {
        if self.is_inherited() {
            return Err(BeatError::inherited().into());
        }
        let mut phase = self.phase();
        match *phase {
            Phase::Running(_) => Ok(()),
            Phase::Ended => Err(BeatError::ended().into()),
            Phase::New => {
                self.shared.alive();
                *phase = Phase::Running(spawn(&self.shared)?);
                Ok(())
            }
        }
    }

    /// The loop says that it turns.
    fn alive(&self) {
        self.shared.alive();
    }

    /// Where to connect from now on; a connection that stands is kept.
    ///
    /// Raises ConfigurationError for a text with NUL.
    fn set_conninfo(&self, conninfo: String) -> PyResult<()> {
        let conninfo = text("conninfo", conninfo)?;
        if !self.is_inherited() {
            let mut state = self.shared.state();
            state.conninfo = conninfo;
            state.wants_conninfo = false;
            state.hurry |= !state.connected;
            drop(state);
            self.shared.orders.wake();
        }
        Ok(())
    }

    /// Beat now rather than at the next time.
    fn beat_now(&self) {
        if !self.is_inherited() {
            self.shared.state().hurry = true;
            self.shared.orders.wake();
        }
    }

    /// Beat by these parameters from now on, also after the row was missing.
    ///
    /// Raises ConfigurationError for a text with NUL, and for more than 1000 parameters.
    fn resume(&self, parameters: Vec<Option<String>>) -> PyResult<()> {
        let parameters = self::parameters(parameters)?;
        if !self.is_inherited() {
            let mut state = self.shared.state();
            state.parameters = parameters;
            state.version += 1;
            state.missing = false;
            state.hurry = true;
            drop(state);
            self.shared.orders.wake();
        }
        Ok(())
    }

    /// A descriptor that becomes readable when `report` has news; -1 in a forked child.
    ///
    /// News is an answer whose columns changed, a row that is missing, a connection that is refused, lost or restored.
    fn fileno(&self) -> c_int {
        if self.is_inherited() { -1 } else { self.shared.news.descriptor() }
    }

    /// What is known now; the descriptor is unreadable until there is more.
    fn report(&self, py: Python<'_>) -> PyResult<HeartbeatReport> {
        if self.is_inherited() {
            return Ok(HeartbeatReport::new(0, None, None, false, None, false, false, false, None));
        }
        self.shared.news.clear();
        let (mut report, answer) = {
            let state = self.shared.state();
            let report = HeartbeatReport {
                beats: state.beats,
                last_success: state.last_success.map(|at| at.elapsed().as_secs_f64()),
                answer: None,
                missing: state.missing,
                failure: state.failure.clone(),
                wants_conninfo: state.wants_conninfo,
                stuck: state.stuck,
                connected: state.connected,
                unbroken: state.unbroken.map(|at| at.elapsed().as_secs_f64()),
            };
            (report, state.answer.clone())
        };
        // Only now, without the lock: making objects of Python may run anything.
        report.answer = answer.map(|row| PyTuple::new(py, row)).transpose()?.map(Bound::unbind);
        Ok(report)
    }

    /// Ask the thread to end, and wait for it up to `timeout` seconds (0 to 86400); whether it has ended.
    ///
    /// To be called again as often as one likes.
    ///
    /// Raises ConfigurationError for a timeout out of its range.
    fn stop(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds("timeout", timeout, 0.0, LONGEST_STOP, "seconds from 0 to 86400")?;
        if self.is_inherited() {
            return Ok(true);
        }
        self.shared.stop();
        {
            let mut phase = self.phase();
            if !matches!(*phase, Phase::Running(_)) {
                *phase = Phase::Ended;
                return Ok(true);
            }
        }
        Ok(py.detach(|| {
            let ended = self.shared.wait_for_end(timeout);
            if ended {
                let phase = std::mem::replace(&mut *self.phase(), Phase::Ended);
                if let Phase::Running(thread) = phase {
                    let _ = thread.join();
                }
            }
            ended
        }))
    }
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        let inherited = self.is_inherited();
        let phase = self.phase.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Phase::Running(thread) = std::mem::replace(phase, Phase::Ended) else {
            return;
        };
        if inherited {
            // The thread is the parent's: there is none here to be let go of.
            std::mem::forget(thread);
            return;
        }
        self.shared.stop();
        if self.shared.wait_for_end(FAREWELL) {
            let _ = thread.join();
        }
    }
}
