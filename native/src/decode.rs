//! Rows become jobs: out of a libpq result in place, or of values that were fetched already.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::job::{Job, flags};
use crate::libpq::ResultTable;
use crate::rows::{Row, Table, read_all};

/// Texts that come again and again (a worker's id, a task's name) are made once a result.
#[derive(Default)]
struct LastText<'a>(Option<(&'a [u8], Py<PyString>)>);

impl<'a> LastText<'a> {
    fn get(&mut self, py: Python<'_>, raw: &'a [u8]) -> Py<PyString> {
        match &self.0 {
            Some((last, text)) if *last == raw => text.clone_ref(py),
            _ => {
                let made = text(py, raw);
                self.0 = Some((raw, made.clone_ref(py)));
                made
            }
        }
    }
}

/// A database in SQL_ASCII may hold any bytes; a replaced character harms less than a lost batch.
fn text(py: Python<'_>, raw: &[u8]) -> Py<PyString> {
    PyString::new(py, &String::from_utf8_lossy(raw)).unbind()
}

fn jobs<'py>(
    py: Python<'py>,
    table: &impl Table,
    identifiers: Option<&Bound<'py, PyDict>>,
    ordered: bool,
) -> PyResult<Bound<'py, PyList>> {
    let rows = read_all(table, ordered)?;
    let (mut workers, mut tasks) = (LastText::default(), LastText::default());
    let (no_flags, no_payload, no_name) =
        (PyTuple::empty(py).into_any().unbind(), PyBytes::new(py, b"{}").unbind(), PyString::new(py, "").unbind());
    let mut named: Option<(i32, Py<PyString>)> = None;
    let found = PyList::empty(py);
    for row in rows {
        let task_identifier = match (row.task_identifier, identifiers, &named) {
            (Some(raw), _, _) => tasks.get(py, raw),
            (None, _, Some((id, name))) if *id == row.task_id => name.clone_ref(py),
            (None, Some(names), _) => {
                let name = match names.get_item(row.task_id)? {
                    Some(name) => name.cast_into::<PyString>()?.unbind(),
                    None => no_name.clone_ref(py),
                };
                named = Some((row.task_id, name.clone_ref(py)));
                name
            }
            (None, None, _) => no_name.clone_ref(py),
        };
        let Row { id, task_id, job_queue_id, priority, attempts, max_attempts, revision, .. } = row;
        found.append(Bound::new(
            py,
            Job {
                id,
                task_id,
                job_queue_id,
                priority,
                attempts,
                max_attempts,
                revision,
                run_at_micros: row.run_at,
                created_at_micros: row.created_at,
                updated_at_micros: row.updated_at,
                locked_at_micros: row.locked_at,
                task_identifier,
                queue_name: row.queue_name.map(|raw| text(py, raw)),
                payload_bytes: match row.payload {
                    Some(raw) => PyBytes::new(py, raw).unbind(),
                    None => no_payload.clone_ref(py),
                },
                last_error: row.last_error.map(|raw| text(py, raw)),
                key: row.key.map(|raw| text(py, raw)),
                locked_by: row.locked_by.map(|raw| workers.get(py, raw)),
                flags: match row.flags {
                    Some(raw) => flags(py, raw)?,
                    None => no_flags.clone_ref(py),
                },
            },
        )?)?;
    }
    Ok(found)
}

/// The jobs of a psycopg result in binary format, read in place, whatever the order of its columns.
///
/// `identifiers` gives tasks' names by their numbers, where the result has no column `task_identifier`. With `ordered`
/// they come in the contract's order: priority, run_at, id.
///
/// Raises ConfigurationError where the result is not one that can be read natively (see `reach_libpq`), and
/// PayloadDecodeError for a column that no job has or a value of an impossible length.
#[pyfunction]
#[pyo3(signature = (result, identifiers=None, ordered=false))]
pub fn decode_result<'py>(
    result: &Bound<'py, PyAny>,
    identifiers: Option<&Bound<'py, PyDict>>,
    ordered: bool,
) -> PyResult<Bound<'py, PyList>> {
    jobs(result.py(), &ResultTable::of(result)?, identifiers, ordered)
}

struct Values {
    names: Vec<Vec<u8>>,
    rows: Vec<Vec<Option<Vec<u8>>>>,
}

impl Table for Values {
    fn rows(&self) -> usize {
        self.rows.len()
    }
    fn columns(&self) -> usize {
        self.names.len()
    }
    fn name(&self, column: usize) -> Option<&[u8]> {
        self.names.get(column).map(Vec::as_slice)
    }
    fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        self.rows.get(row)?.get(column)?.as_deref()
    }
}

/// The jobs of rows whose values were fetched already: the way round where libpq cannot be reached.
///
/// `names` are the columns', `rows` their values in binary format, None for null. The rest is as in `decode_result`.
///
/// Raises PayloadDecodeError for a column that no job has or a value of an impossible length, ValueError for a row that
/// is shorter or longer than the names.
#[pyfunction]
#[pyo3(signature = (names, rows, identifiers=None, ordered=false))]
pub fn decode_rows<'py>(
    py: Python<'py>,
    names: Vec<Vec<u8>>,
    rows: Vec<Vec<Option<Vec<u8>>>>,
    identifiers: Option<&Bound<'py, PyDict>>,
    ordered: bool,
) -> PyResult<Bound<'py, PyList>> {
    if let Some(odd) = rows.iter().find(|row| row.len() != names.len()) {
        return Err(PyValueError::new_err(format!("row: {} values for {} columns", odd.len(), names.len())));
    }
    jobs(py, &Values { names, rows }, identifiers, ordered)
}

/// How many bytes the payloads of some jobs have, all together.
#[pyfunction]
pub fn payload_size(jobs: &Bound<'_, PyList>) -> PyResult<usize> {
    let mut size = 0;
    for job in jobs.iter() {
        size += job.cast::<Job>()?.borrow().payload_bytes.as_bytes(jobs.py()).len();
    }
    Ok(size)
}
