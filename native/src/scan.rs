//! A look through plain JSON values for what is none: numbers that JSON has not, and objects of other types.
//!
//! An encoder writes null for NaN and infinity, so a text with a null in it may hide one. Walking through a large
//! payload in Python to find out takes seconds; here it takes milliseconds.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// How deep it looks; what lies deeper is given back as it is.
const DEEPEST: usize = 200;

/// Adds what is no plain JSON value to `odd`; false once a number was found that is not finite.
fn scan<'py>(value: &Bound<'py, PyAny>, depth: usize, odd: &mut Vec<Bound<'py, PyAny>>) -> bool {
    if value.is_none() || value.is_exact_instance_of::<PyString>() || value.is_exact_instance_of::<PyInt>() {
        return true;
    }
    if let Ok(number) = value.cast_exact::<PyFloat>() {
        return number.value().is_finite();
    }
    if value.is_exact_instance_of::<PyBool>() {
        return true;
    }
    if depth < DEEPEST {
        if let Ok(items) = value.cast_exact::<PyDict>() {
            return items.iter().all(|(key, item)| {
                if !key.is_exact_instance_of::<PyString>() {
                    odd.push(key);
                }
                scan(&item, depth + 1, odd)
            });
        }
        if let Ok(items) = value.cast_exact::<PyList>() {
            return items.iter().all(|item| scan(&item, depth + 1, odd));
        }
        if let Ok(items) = value.cast_exact::<PyTuple>() {
            return items.iter().all(|item| scan(&item, depth + 1, odd));
        }
    }
    odd.push(value.clone());
    true
}

/// Gives the parts of a value that are no plain JSON values: objects of other types, keys that are no text, and what
/// lies very deep. None where a number among the plain ones is not finite.
#[pyfunction]
pub fn odd_parts<'py>(value: &Bound<'py, PyAny>) -> Option<Vec<Bound<'py, PyAny>>> {
    let mut odd = Vec::new();
    scan(value, 0, &mut odd).then_some(odd)
}
