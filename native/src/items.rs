//! The items of a bulk call as rows: what each needs in the common case, without the interpreter between its steps.
//!
//! Anything out of the common is handed back to Python, which decides and raises: no rule is written down twice.

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyTuple, PyType};

use crate::limited::value_at;

/// Texts up to this length are searched here, and copied.
const SMALL: usize = 512;

/// Whether a JSON text may hide what must be looked for: a null that was no number, or NUL.
pub fn is_suspicious(text: &[u8]) -> bool {
    text.windows(4).any(|part| part == b"null") || text.windows(6).any(|part| part == b"\\u0000")
}

/// What a NewJob says beside its payload, and the shape that was found for it.
struct Last<'py> {
    said: [Bound<'py, PyAny>; 5],
    shape: Shape<'py>,
}

/// The shape of a job, what encodes its payload, where its task knows the payload's type, and the path of the value for
/// which it counts in a limit, with the shapes that jobs of known values have.
#[derive(Clone)]
struct Shape<'py> {
    shape: Bound<'py, PyAny>,
    encode: Option<Bound<'py, PyAny>>,
    limit: Option<(String, Bound<'py, PyDict>)>,
}

impl<'py> Shape<'py> {
    fn of(shape: Bound<'py, PyAny>) -> PyResult<Self> {
        let py = shape.py();
        let encode = shape.getattr(intern!(py, "encode"))?;
        let path: Option<String> = shape.getattr(intern!(py, "limit_by"))?.extract()?;
        let limit = match path {
            Some(path) => Some((path, shape.getattr(intern!(py, "by_value"))?.cast_into()?)),
            None => None,
        };
        Ok(Self { encode: (!encode.is_none()).then_some(encode), shape, limit })
    }

    /// The shape of a job with this payload: one for each value that its limit tells apart.
    fn limited(self, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Some((path, known)) = self.limit else { return Ok(self.shape) };
        let bytes: &[u8] = text.extract()?;
        let Some(value) = value_at(bytes, &path) else { return Ok(self.shape) };
        match known.get_item(&value)? {
            Some(shape) => Ok(shape),
            None => self.shape.call_method1(intern!(text.py(), "for_value"), (value,)),
        }
    }
}

/// Python's part of the work.
struct Calls<'a, 'py> {
    new_job: &'a Bound<'py, PyType>,
    shape: Option<Shape<'py>>,
    accept: Option<&'a Bound<'py, PyAny>>,
    shape_of: &'a Bound<'py, PyAny>,
    dumps: &'a Bound<'py, PyAny>,
    other: &'a Bound<'py, PyAny>,
    option: &'a Bound<'py, PyAny>,
    keep: &'a Bound<'py, PyAny>,
}

impl<'py> Calls<'_, 'py> {
    fn row(&self, item: Bound<'py, PyAny>, last: &mut Option<Last<'py>>) -> PyResult<Bound<'py, PyTuple>> {
        let py = item.py();
        let (shape, payload) = if item.is_instance(self.new_job)? {
            (self.shape_of(&item, last)?, item.getattr(intern!(py, "payload"))?)
        } else {
            if let Some(accept) = self.accept {
                accept.call1((&item,))?;
            }
            match &self.shape {
                Some(shape) => (shape.clone(), item),
                None => (Shape::of(self.shape_of.call1((&item,))?)?, item), // which refuses it
            }
        };
        let text = match &shape.encode {
            Some(encode) => compact(encode.call1((payload,))?),
            None => self.text(payload)?,
        };
        PyTuple::new(py, [shape.limited(&text)?, text])
    }

    fn shape_of(&self, job: &Bound<'py, PyAny>, last: &mut Option<Last<'py>>) -> PyResult<Shape<'py>> {
        let py = job.py();
        let said = [
            job.getattr(intern!(py, "spec"))?,
            job.getattr(intern!(py, "task"))?,
            job.getattr(intern!(py, "default_max_attempts"))?,
            job.getattr(intern!(py, "source"))?,
            job.getattr(intern!(py, "defaults"))?,
        ];
        if let Some(last) = last.as_ref().filter(|last| last.said.iter().zip(&said).all(|(one, other)| one.is(other))) {
            return Ok(last.shape.clone());
        }
        let shape = Shape::of(self.shape_of.call1((job,))?)?;
        *last = Some(Last { said, shape: shape.clone() });
        Ok(shape)
    }

    fn text(&self, payload: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = payload.py();
        let dumped = if payload.is_none() { None } else { self.dumped(&payload)? };
        match dumped.as_ref().map(|text| text.as_bytes()) {
            // The encoder begins with a kilobyte and shrinks it: small texts, kept as they are, scatter over fresh
            // memory, which costs ten times what a copy does.
            Some(text) if text.len() <= SMALL && !is_suspicious(text) => Ok(PyBytes::new(py, text).into_any()),
            _ => self.keep.call1((payload, dumped)),
        }
    }

    /// Its JSON, or none where the encoder refused it or gave something else.
    fn dumped(&self, payload: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        match self.dumps.call1((payload, self.other, self.option)) {
            Ok(text) => Ok(text.cast_into::<PyBytes>().ok()),
            Err(error) if error.is_instance_of::<PyException>(payload.py()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A small text anew, as `Calls::text` keeps it, and anything else as it is.
fn compact(text: Bound<'_, PyAny>) -> Bound<'_, PyAny> {
    match text.cast::<PyBytes>() {
        Ok(bytes) if bytes.as_bytes().len() <= SMALL => PyBytes::new(text.py(), bytes.as_bytes()).into_any(),
        _ => text,
    }
}

/// Adds the items that an iterator gives to `rows`, each as its shape and its payload's JSON; those before one that is
/// refused stay.
///
/// An item that is a `new_job` has the shape that `shape_of(item)` gives; jobs that say the very same share it. Any
/// other is a payload, of `shape`, that `accept(item)` did not refuse by raising; without a shape, `shape_of(item)`
/// must refuse it. Where a shape's `encode` is not None, `encode(payload)` makes the text, or raises. Else
/// `dumps(payload, other, option)` makes it. `keep(payload, text or None)` decides what is kept of it where there is
/// more to look at: it is long, it is None or was refused, or NaN or NUL may hide in it. Where a shape's `limit_by` is
/// not None, it is a path in the payload, and the row has the shape in `by_value` for what stands there, or else the
/// one that `for_value(value)` makes.
///
/// Raises whatever the iterator and these functions raise.
#[pyfunction]
#[pyo3(signature = (items, rows, new_job, shape, accept, shape_of, dumps, other, option, keep))]
#[allow(clippy::too_many_arguments)] // as many as what an item may need
pub fn encode_items<'py>(
    items: &Bound<'py, PyIterator>,
    rows: &Bound<'py, PyList>,
    new_job: &Bound<'py, PyType>,
    shape: Option<&Bound<'py, PyAny>>,
    accept: Option<&Bound<'py, PyAny>>,
    shape_of: &Bound<'py, PyAny>,
    dumps: &Bound<'py, PyAny>,
    other: &Bound<'py, PyAny>,
    option: &Bound<'py, PyAny>,
    keep: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let shape = shape.cloned().map(Shape::of).transpose()?;
    let calls = Calls { new_job, shape, accept, shape_of, dumps, other, option, keep };
    let mut last = None;
    for item in items {
        rows.append(calls.row(item?, &mut last)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_nul_are_suspicious_wherever_they_stand() {
        for text in ["null", "[1,null]", "{\"a\":null}", "\"null\"", "\"\\u0000\"", "{\"\\u0000\":1}", "\"\\\\u0000\""]
        {
            assert!(is_suspicious(text.as_bytes()), "{text}");
        }
        for text in ["", "{}", "nul", "\"\\u0001\"", "\"u0000\"", "{\"user\":12}", "\"nu ll\""] {
            assert!(!is_suspicious(text.as_bytes()), "{text}");
        }
    }
}
