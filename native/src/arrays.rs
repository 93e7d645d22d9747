//! Arrays of numbers in PostgreSQL's binary format: what settlements send by the hundred.

use std::fmt;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// An element type that can be packed: its name, its number in pg_type, its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind(&'static str, u32, usize);

const KINDS: [Kind; 5] =
    [Kind("int2", 21, 2), Kind("int4", 23, 4), Kind("int8", 20, 8), Kind("timestamptz", 1184, 8), Kind("bool", 16, 1)];

/// Why an array cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArrayError {
    /// Not one of the kinds.
    Kind(String),
    /// A number that the kind cannot hold.
    Range(&'static str, i64),
    /// More elements than an array can have.
    Length(usize),
}

impl fmt::Display for ArrayError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(name) => write!(out, "kind = {name:?}: expected int2, int4, int8, timestamptz or bool"),
            Self::Range(kind, value) => write!(out, "values: {value} is no {kind}"),
            Self::Length(count) => write!(out, "values: {count} of them are more than an array can have"),
        }
    }
}

impl std::error::Error for ArrayError {}

/// Packs an array of one dimension: its header, then each element with its length, or -1 for null.
pub fn pack(values: &[Option<i64>], kind: &str) -> Result<Vec<u8>, ArrayError> {
    let Kind(name, oid, size) =
        KINDS.into_iter().find(|known| known.0 == kind).ok_or_else(|| ArrayError::Kind(kind.to_owned()))?;
    let count = i32::try_from(values.len()).map_err(|_| ArrayError::Length(values.len()))?;
    let mut packed = Vec::with_capacity(20 + values.len() * (4 + size));
    packed.extend_from_slice(&i32::from(count > 0).to_be_bytes());
    packed.extend_from_slice(&i32::from(values.iter().any(Option::is_none)).to_be_bytes());
    packed.extend_from_slice(&oid.to_be_bytes());
    if count > 0 {
        packed.extend_from_slice(&count.to_be_bytes());
        packed.extend_from_slice(&1_i32.to_be_bytes());
    }
    for value in values {
        let Some(value) = *value else {
            packed.extend_from_slice(&(-1_i32).to_be_bytes());
            continue;
        };
        let range = |_| ArrayError::Range(name, value);
        match size {
            1 => {
                let bit = u8::try_from(value).ok().filter(|&bit| bit < 2).ok_or(ArrayError::Range(name, value))?;
                packed.extend_from_slice(&[0, 0, 0, 1, bit]);
            }
            2 => {
                packed.extend_from_slice(&2_i32.to_be_bytes());
                packed.extend_from_slice(&i16::try_from(value).map_err(range)?.to_be_bytes());
            }
            4 => {
                packed.extend_from_slice(&4_i32.to_be_bytes());
                packed.extend_from_slice(&i32::try_from(value).map_err(range)?.to_be_bytes());
            }
            _ => {
                packed.extend_from_slice(&8_i32.to_be_bytes());
                packed.extend_from_slice(&value.to_be_bytes());
            }
        }
    }
    Ok(packed)
}

/// An array of numbers in PostgreSQL's binary format; None is null.
///
/// `kind` is `int2`, `int4`, `int8`, `timestamptz` (microseconds since 2000-01-01 UTC) or `bool` (0 or 1).
///
/// Raises ConfigurationError for another kind, or a number that the kind cannot hold.
#[pyfunction]
pub fn pack_array<'py>(
    py: Python<'py>,
    values: Vec<Option<i64>>,
    kind: &str,
) -> Result<Bound<'py, PyBytes>, ArrayError> {
    Ok(PyBytes::new(py, &pack(&values, kind)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_array_has_no_dimension() {
        assert_eq!(pack(&[], "int4").unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23]);
    }

    #[test]
    fn elements_have_their_lengths() {
        let packed = pack(&[Some(1), None], "int2").unwrap();
        let header = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 21, 0, 0, 0, 2, 0, 0, 0, 1];
        assert_eq!(packed, [&header[..], &[0, 0, 0, 2, 0, 1], &[255, 255, 255, 255]].concat());
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        assert_eq!(pack(&[Some(1 << 15)], "int2"), Err(ArrayError::Range("int2", 1 << 15)));
        assert_eq!(pack(&[Some(-1 << 40)], "int4"), Err(ArrayError::Range("int4", -1 << 40)));
        assert_eq!(pack(&[Some(2)], "bool"), Err(ArrayError::Range("bool", 2)));
        assert_eq!(pack(&[], "text"), Err(ArrayError::Kind("text".to_owned())));
        assert!(pack(&[Some(i64::MIN), Some(i64::MAX)], "int8").is_ok());
    }
}
