//! Native errors to the package's exceptions, once: the classes of `backfill.errors` are looked up at first use.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::arrays::ArrayError;
use crate::backoff::BackoffError;
use crate::beat::BeatError;
use crate::claim::ClaimError;
use crate::copy::CopyError;
use crate::libpq::LibpqError;
use crate::rows::RowError;

static CONFIGURATION_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static PAYLOAD_DECODE_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// An exception of the package with this message; a plain `ValueError` where its errors cannot be imported, so that the
/// message is never lost.
fn raised(cell: &'static PyOnceLock<Py<PyType>>, name: &str, message: String) -> PyErr {
    Python::attach(|py| match cell.import(py, "backfill.errors", name) {
        Ok(class) => PyErr::from_type(class.clone(), message),
        Err(_) => PyValueError::new_err(message),
    })
}

/// A `ConfigurationError`, which is a `ValueError`.
fn configuration_error(message: String) -> PyErr {
    raised(&CONFIGURATION_ERROR, "ConfigurationError", message)
}

impl From<BackoffError> for PyErr {
    fn from(error: BackoffError) -> Self {
        configuration_error(error.to_string())
    }
}

impl From<BeatError> for PyErr {
    fn from(error: BeatError) -> Self {
        configuration_error(error.to_string())
    }
}

impl From<ClaimError> for PyErr {
    fn from(error: ClaimError) -> Self {
        configuration_error(error.to_string())
    }
}

impl From<ArrayError> for PyErr {
    fn from(error: ArrayError) -> Self {
        configuration_error(error.to_string())
    }
}

impl From<CopyError> for PyErr {
    fn from(error: CopyError) -> Self {
        configuration_error(error.to_string())
    }
}

impl From<LibpqError> for PyErr {
    fn from(error: LibpqError) -> Self {
        configuration_error(error.to_string())
    }
}

impl From<RowError> for PyErr {
    fn from(error: RowError) -> Self {
        raised(&PAYLOAD_DECODE_ERROR, "PayloadDecodeError", error.to_string())
    }
}
