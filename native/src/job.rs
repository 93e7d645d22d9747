//! The `Job` class: a row of the queue as Python sees it.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

/// Python's years 1 to 9999 in PostgreSQL's microseconds since 2000.
const FIRST_MICROS: i64 = -63_082_281_600_000_000;
const LAST_MICROS: i64 = 252_455_615_999_999_999;

/// A function of `backfill.records`, looked up at its first use.
fn helper<'py>(py: Python<'py>, cell: &'static PyOnceLock<Py<PyAny>>, name: &str) -> PyResult<&'py Bound<'py, PyAny>> {
    cell.get_or_try_init(py, || Ok(py.import("backfill.records")?.getattr(name)?.unbind())).map(|found| found.bind(py))
}

static PAYLOAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static MOMENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static FLAGS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static REBUILD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static UNSAMPLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The flags of a job whose trace is not sampled, as jsonb's binary form has them: most jobs of a traced queue.
const UNSAMPLED_ROW: &[u8] = b"\x01{\"traceparent:unsampled\": true}";

/// The flags of a row, as a job keeps them until somebody asks: jsonb's bytes, or a tuple that many jobs share.
pub(crate) fn flags(py: Python<'_>, raw: &[u8]) -> PyResult<Py<PyAny>> {
    if raw == UNSAMPLED_ROW {
        return Ok(helper(py, &UNSAMPLED, "UNSAMPLED")?.clone().unbind());
    }
    Ok(PyBytes::new(py, raw).into_any().unbind())
}

/// One row of the queue, as it was when it was read.
///
/// Times are decoded when asked for: PostgreSQL holds some that Python cannot (infinity, years past 9999), and asking
/// for one of those raises `PayloadDecodeError`; `readable` says beforehand. The payload stays bytes until asked for.
#[pyclass(module = "backfill._native", weakref)]
pub struct Job {
    /// The job's number.
    #[pyo3(get)]
    pub(crate) id: i64,
    /// The number of its task.
    #[pyo3(get)]
    pub(crate) task_id: i32,
    /// The number of its serial queue, or None.
    #[pyo3(get)]
    pub(crate) job_queue_id: Option<i32>,
    /// Lower runs first.
    #[pyo3(get)]
    pub(crate) priority: i16,
    /// How many runs were begun.
    #[pyo3(get)]
    pub(crate) attempts: i16,
    /// How many runs there may be, the first included.
    #[pyo3(get)]
    pub(crate) max_attempts: i16,
    /// How often it was replaced or kept by its key.
    #[pyo3(get)]
    pub(crate) revision: i32,
    /// `run_at` as PostgreSQL holds it: microseconds since 2000-01-01 UTC.
    #[pyo3(get)]
    pub(crate) run_at_micros: i64,
    /// `created_at` in microseconds since 2000-01-01 UTC.
    #[pyo3(get)]
    pub(crate) created_at_micros: i64,
    /// `updated_at` in microseconds since 2000-01-01 UTC.
    #[pyo3(get)]
    pub(crate) updated_at_micros: i64,
    /// `locked_at` in microseconds since 2000-01-01 UTC, or None.
    #[pyo3(get)]
    pub(crate) locked_at_micros: Option<i64>,
    /// The task's name.
    #[pyo3(get, set)]
    pub(crate) task_identifier: Py<PyString>,
    /// The serial queue's name, or None.
    #[pyo3(get, set)]
    pub(crate) queue_name: Option<Py<PyString>>,
    /// The payload's JSON text, as it was written.
    #[pyo3(get)]
    pub(crate) payload_bytes: Py<PyBytes>,
    /// What the last failed attempt left, or None.
    #[pyo3(get)]
    pub(crate) last_error: Option<Py<PyString>>,
    /// The job key, or None.
    #[pyo3(get)]
    pub(crate) key: Option<Py<PyString>>,
    /// The worker that holds it, or None.
    #[pyo3(get)]
    pub(crate) locked_by: Option<Py<PyString>>,
    /// A tuple of names, or jsonb's bytes until somebody asks for it.
    pub(crate) flags: Py<PyAny>,
}

impl Job {
    fn moment<'py>(slf: &Bound<'py, Self>, column: &str, micros: i64) -> PyResult<Bound<'py, PyAny>> {
        helper(slf.py(), &MOMENT, "moment_of")?.call1((slf, column, micros))
    }
}

#[pymethods]
impl Job {
    #[new]
    #[pyo3(signature = (*, id, task_identifier, payload_bytes=None, queue_name=None, priority=0, attempts=0,
        max_attempts=25, last_error=None, key=None, revision=0, flags=None, locked_by=None, task_id=0,
        job_queue_id=None, run_at_micros=0, created_at_micros=0, updated_at_micros=0, locked_at_micros=None))]
    #[allow(clippy::too_many_arguments)] // as many as a row has columns
    fn new(
        py: Python<'_>,
        id: i64,
        task_identifier: Py<PyString>,
        payload_bytes: Option<Py<PyBytes>>,
        queue_name: Option<Py<PyString>>,
        priority: i16,
        attempts: i16,
        max_attempts: i16,
        last_error: Option<Py<PyString>>,
        key: Option<Py<PyString>>,
        revision: i32,
        flags: Option<Bound<'_, PyTuple>>,
        locked_by: Option<Py<PyString>>,
        task_id: i32,
        job_queue_id: Option<i32>,
        run_at_micros: i64,
        created_at_micros: i64,
        updated_at_micros: i64,
        locked_at_micros: Option<i64>,
    ) -> Self {
        let payload_bytes = payload_bytes.unwrap_or_else(|| PyBytes::new(py, b"{}").unbind());
        let flags = flags.unwrap_or_else(|| PyTuple::empty(py)).into_any().unbind();
        Self {
            id,
            task_id,
            job_queue_id,
            priority,
            attempts,
            max_attempts,
            revision,
            run_at_micros,
            created_at_micros,
            updated_at_micros,
            locked_at_micros,
            task_identifier,
            queue_name,
            payload_bytes,
            last_error,
            key,
            locked_by,
            flags,
        }
    }

    /// The payload as plain JSON values.
    ///
    /// Raises PayloadDecodeError: PostgreSQL's json holds texts that Python's decoder refuses (lone surrogates,
    /// 1e999999).
    #[getter]
    fn payload<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        helper(slf.py(), &PAYLOAD, "payload_of")?.call1((slf,))
    }

    /// Not before this time.
    #[getter]
    fn run_at<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::moment(slf, "run_at", slf.borrow().run_at_micros)
    }

    /// When the row was made.
    #[getter]
    fn created_at<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::moment(slf, "created_at", slf.borrow().created_at_micros)
    }

    /// When a producer or a settlement last changed the row.
    #[getter]
    fn updated_at<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::moment(slf, "updated_at", slf.borrow().updated_at_micros)
    }

    /// Since when a worker holds the job, or None.
    #[getter]
    fn locked_at<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let micros = slf.borrow().locked_at_micros;
        micros.map(|micros| Self::moment(slf, "locked_at", micros)).transpose()
    }

    /// The flags' names.
    #[getter]
    fn flags(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if self.flags.bind(py).is_instance_of::<PyBytes>() {
            self.flags = helper(py, &FLAGS, "flags_from_jsonb")?.call1((&self.flags,))?.unbind();
        }
        Ok(self.flags.clone_ref(py))
    }

    /// Whether it has flags at all.
    #[getter]
    fn has_flags(&self, py: Python<'_>) -> PyResult<bool> {
        self.flags.bind(py).is_truthy()
    }

    /// Whether it has a flag that may tell a worker something: any but the one that says that its trace is not sampled.
    #[getter]
    fn has_orders(&self, py: Python<'_>) -> PyResult<bool> {
        let flags = self.flags.bind(py);
        Ok(flags.is_truthy()? && !flags.is(helper(py, &UNSAMPLED, "UNSAMPLED")?))
    }

    /// Whether all its times are within Python's years 1 to 9999.
    #[getter]
    fn readable(&self) -> bool {
        let times = [
            Some(self.run_at_micros),
            Some(self.created_at_micros),
            Some(self.updated_at_micros),
            self.locked_at_micros,
        ];
        times.into_iter().flatten().all(|micros| (FIRST_MICROS..=LAST_MICROS).contains(&micros))
    }

    /// The same job with an empty payload, for whoever needs to know which job it was and not what it was about.
    fn without_payload(&self, py: Python<'_>) -> Self {
        Self {
            id: self.id,
            task_id: self.task_id,
            job_queue_id: self.job_queue_id,
            priority: self.priority,
            attempts: self.attempts,
            max_attempts: self.max_attempts,
            revision: self.revision,
            run_at_micros: self.run_at_micros,
            created_at_micros: self.created_at_micros,
            updated_at_micros: self.updated_at_micros,
            locked_at_micros: self.locked_at_micros,
            task_identifier: self.task_identifier.clone_ref(py),
            queue_name: self.queue_name.as_ref().map(|name| name.clone_ref(py)),
            payload_bytes: PyBytes::new(py, b"{}").unbind(),
            last_error: self.last_error.as_ref().map(|error| error.clone_ref(py)),
            key: self.key.as_ref().map(|key| key.clone_ref(py)),
            locked_by: self.locked_by.as_ref().map(|worker| worker.clone_ref(py)),
            flags: self.flags.clone_ref(py),
        }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyDict>,))> {
        let py = slf.py();
        let fields = PyDict::new(py);
        for name in [
            "id",
            "task_identifier",
            "payload_bytes",
            "queue_name",
            "priority",
            "attempts",
            "max_attempts",
            "last_error",
            "key",
            "revision",
            "flags",
            "locked_by",
            "task_id",
            "job_queue_id",
            "run_at_micros",
            "created_at_micros",
            "updated_at_micros",
            "locked_at_micros",
        ] {
            fields.set_item(name, slf.getattr(name)?)?;
        }
        Ok((helper(py, &REBUILD, "rebuild_job")?.clone(), (fields,)))
    }

    /// What identifies the job; never its payload.
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let task = self.task_identifier.bind(py).repr()?;
        Ok(format!("Job(id={}, task={task}, attempts={}/{})", self.id, self.attempts, self.max_attempts))
    }
}
