//! Native errors to the package's exceptions, once: the classes of `backfill.errors` are looked up at first use.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::backoff::BackoffError;
use crate::claim::ClaimError;

static CONFIGURATION_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// A `ConfigurationError` (which is a `ValueError`) with this message; a plain `ValueError` where the package's errors
/// cannot be imported, so that the message is never lost.
fn configuration_error(message: String) -> PyErr {
    Python::attach(|py| match CONFIGURATION_ERROR.import(py, "backfill.errors", "ConfigurationError") {
        Ok(class) => PyErr::from_type(class.clone(), message),
        Err(_) => PyValueError::new_err(message),
    })
}

impl From<BackoffError> for PyErr {
    fn from(error: BackoffError) -> Self {
        configuration_error(error.to_string())
    }
}

impl From<ClaimError> for PyErr {
    fn from(error: ClaimError) -> Self {
        configuration_error(error.to_string())
    }
}
