//! Rows of new jobs in PostgreSQL's COPY BINARY format.
//!
//! Jobs of one shape share every column but the payload (and the id, where ids were drawn before): those columns are
//! packed once, as a prefix, and each row is the prefix with its payload behind it. `json`'s binary form is its text.

use std::fmt;
use std::io::Write;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyInt};

/// The signature, no flags, and the length of a header extension that is not there.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
const JSONB_VERSION: u8 = 1;
/// How many columns a row has: those of its prefix, the payload, and maybe the id.
const COLUMNS: i16 = 7;
/// The columns of a prefix, each by its width (flags have any) and by whether it may be null.
const WIDTHS: [(Option<usize>, bool); 6] =
    [(Some(4), false), (Some(4), true), (Some(2), false), (Some(8), false), (Some(2), false), (None, true)];
/// What a row's prefix and payload may have together: PostgreSQL forms no row of 1 GiB, and its own words need some.
pub const ROW_LIMIT: usize = (1 << 30) - 1024;

/// Why jobs cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyError {
    /// A number that its column cannot hold: whose, the number in words, the column's bits.
    Range(String, String, u32),
    /// A list that has not one item for each row: which, its length, the number of rows.
    Count(&'static str, usize, usize),
    /// Bytes that are no prefix, and the row that has them.
    Prefix(usize),
    /// A row beyond PostgreSQL's limit: which, and the size of its payload.
    Oversized(usize, usize),
    /// Flags beyond PostgreSQL's limit: their size.
    Flags(usize),
    /// A buffer that is not as long as the rows.
    Buffer,
}

impl fmt::Display for CopyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(field, value, bits) => write!(out, "{field} = {value}: expected an integer of {bits} bits"),
            Self::Count(field, given, rows) => {
                write!(out, "{field} (of length {given}): expected one for each of {rows} rows")
            }
            Self::Prefix(row) => write!(out, "prefixes[{row}]: expected what copy_prefix gives"),
            Self::Oversized(row, size) => {
                write!(out, "payloads[{row}] (of {size} bytes): expected at most {ROW_LIMIT} bytes with the row's rest")
            }
            Self::Flags(size) => write!(out, "flags (of {size} bytes): expected at most {ROW_LIMIT} bytes"),
            Self::Buffer => write!(out, "buffer: expected one as long as the rows"),
        }
    }
}

impl std::error::Error for CopyError {}

impl From<std::io::Error> for CopyError {
    fn from(_: std::io::Error) -> Self {
        Self::Buffer // writing to memory fails in no other way
    }
}

/// What jobs of one shape share.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// The task's number.
    pub task_id: i32,
    /// The serial queue's number, or none.
    pub job_queue_id: Option<i32>,
    /// Lower runs first.
    pub priority: i16,
    /// Microseconds since 2000-01-01 UTC.
    pub run_at: i64,
    /// All runs.
    pub max_attempts: i16,
    /// A JSON object, or none.
    pub flags: Option<&'a [u8]>,
}

impl Shape<'_> {
    /// The columns in the order of `WIDTHS`, each behind its length.
    pub fn pack(&self) -> Result<Vec<u8>, CopyError> {
        let flags = self.flags.map_or(0, <[u8]>::len);
        if flags > ROW_LIMIT {
            return Err(CopyError::Flags(flags));
        }
        let mut packed = Vec::with_capacity(64 + flags);
        put(&mut packed, &[&self.task_id.to_be_bytes()])?;
        match self.job_queue_id {
            Some(id) => put(&mut packed, &[&id.to_be_bytes()])?,
            None => packed.write_all(&NULL)?,
        }
        put(&mut packed, &[&self.priority.to_be_bytes()])?;
        put(&mut packed, &[&self.run_at.to_be_bytes()])?;
        put(&mut packed, &[&self.max_attempts.to_be_bytes()])?;
        match self.flags {
            Some(text) => put(&mut packed, &[&[JSONB_VERSION], text])?,
            None => packed.write_all(&NULL)?,
        }
        Ok(packed)
    }
}

/// One column: its length, then its bytes.
fn put(out: &mut impl Write, parts: &[&[u8]]) -> Result<(), CopyError> {
    let size: usize = parts.iter().map(|part| part.len()).sum();
    out.write_all(&i32::try_from(size).map_err(|_| CopyError::Buffer)?.to_be_bytes())?;
    parts.iter().try_for_each(|part| Ok(out.write_all(part)?))
}

/// Whether bytes are columns as `WIDTHS` has them, and nothing behind them.
fn is_prefix(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    for (width, nullable) in WIDTHS {
        let Some((length, behind)) = rest.split_first_chunk::<4>() else { return false };
        rest = behind;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            if nullable && *length == NULL {
                continue;
            }
            return false;
        };
        if width.is_some_and(|width| width != length) {
            return false;
        }
        let Some((_, behind)) = rest.split_at_checked(length) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// Rows that can be packed: their number, their prefixes and their sizes were checked.
pub struct Rows<T> {
    prefixes: Vec<T>,
    payloads: Vec<T>,
    ids: Option<Vec<i64>>,
    begin: bool,
    end: bool,
    size: usize,
}

impl<T: AsRef<[u8]>> Rows<T> {
    /// Checks rows: a prefix and a payload for each, and an id for each or for none. `begin` puts the stream's header
    /// before them, `end` its trailer behind.
    pub fn new(
        prefixes: Vec<T>,
        payloads: Vec<T>,
        ids: Option<Vec<i64>>,
        begin: bool,
        end: bool,
    ) -> Result<Self, CopyError> {
        let rows = payloads.len();
        let counts = [("prefixes", prefixes.len()), ("ids", ids.as_ref().map_or(rows, Vec::len))];
        if let Some(&(field, given)) = counts.iter().find(|(_, given)| *given != rows) {
            return Err(CopyError::Count(field, given, rows));
        }
        let row_words = if ids.is_some() { 2 + 12 + 4 } else { 2 + 4 };
        let mut size = if begin { HEADER.len() } else { 0 } + if end { TRAILER.len() } else { 0 };
        let mut last: Option<&[u8]> = None;
        for (row, (prefix, payload)) in prefixes.iter().zip(&payloads).enumerate() {
            let (prefix, payload) = (prefix.as_ref(), payload.as_ref());
            // Rows of one shape have the very same bytes, which need one look.
            if !last.is_some_and(|last| std::ptr::eq(prefix, last)) && !is_prefix(prefix) {
                return Err(CopyError::Prefix(row));
            }
            last = Some(prefix);
            let used = prefix.len().saturating_add(payload.len());
            if used > ROW_LIMIT {
                return Err(CopyError::Oversized(row, payload.len()));
            }
            size = size.saturating_add(used + row_words);
        }
        Ok(Self { prefixes, payloads, ids, begin, end, size })
    }

    /// How many bytes they take.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Packs them into a buffer of exactly that size.
    pub fn pack(&self, buffer: &mut [u8]) -> Result<(), CopyError> {
        let mut out = buffer;
        if self.begin {
            out.write_all(HEADER)?;
        }
        let rows = self.prefixes.iter().zip(&self.payloads);
        if let Some(ids) = &self.ids {
            for ((prefix, payload), id) in rows.zip(ids) {
                out.write_all(&(COLUMNS + 1).to_be_bytes())?;
                put(&mut out, &[&id.to_be_bytes()])?;
                out.write_all(prefix.as_ref())?;
                put(&mut out, &[payload.as_ref()])?;
            }
        } else {
            for (prefix, payload) in rows {
                out.write_all(&COLUMNS.to_be_bytes())?;
                out.write_all(prefix.as_ref())?;
                put(&mut out, &[payload.as_ref()])?;
            }
        }
        if self.end {
            out.write_all(&TRAILER)?;
        }
        if out.is_empty() { Ok(()) } else { Err(CopyError::Buffer) }
    }
}

/// An integer of its column's width.
fn ranged<T: TryFrom<i64>>(field: impl FnOnce() -> String, value: &Bound<'_, PyInt>) -> Result<T, CopyError> {
    let narrow = value.extract::<i64>().ok().and_then(|wide| T::try_from(wide).ok());
    narrow.ok_or_else(|| {
        let value = value.str().map_or_else(|_| "(a number too long to be shown)".to_owned(), |text| text.to_string());
        let bits = 8 * u32::try_from(size_of::<T>()).unwrap_or(0);
        CopyError::Range(field(), value, bits)
    })
}

/// What jobs of one shape share, packed for `copy_rows`.
///
/// The columns task_id, job_queue_id, priority, run_at (microseconds since 2000-01-01 UTC), max_attempts, and flags
/// (the text of a JSON object), in that order, as COPY BINARY takes them.
///
/// Raises ConfigurationError for a number that its column cannot hold, and for flags of a gigabyte.
#[pyfunction]
#[pyo3(signature = (task_id, job_queue_id, priority, run_at, max_attempts, flags))]
pub fn copy_prefix<'py>(
    py: Python<'py>,
    task_id: &Bound<'py, PyInt>,
    job_queue_id: Option<&Bound<'py, PyInt>>,
    priority: &Bound<'py, PyInt>,
    run_at: &Bound<'py, PyInt>,
    max_attempts: &Bound<'py, PyInt>,
    flags: Option<&[u8]>,
) -> Result<Bound<'py, PyBytes>, CopyError> {
    let shape = Shape {
        task_id: ranged(|| "task_id".to_owned(), task_id)?,
        job_queue_id: job_queue_id.map(|id| ranged(|| "job_queue_id".to_owned(), id)).transpose()?,
        priority: ranged(|| "priority".to_owned(), priority)?,
        run_at: ranged(|| "run_at".to_owned(), run_at)?,
        max_attempts: ranged(|| "max_attempts".to_owned(), max_attempts)?,
        flags,
    };
    Ok(PyBytes::new(py, &shape.pack()?))
}

/// Rows of jobs as a part of one COPY BINARY stream, packed while other threads run.
///
/// For each row `prefixes` has what `copy_prefix` gave for its shape, `payloads` its JSON text, and `ids`, if they are
/// given, its id, which then is the first column. The stream's first part has its header (`begin`), its last one the
/// trailer (`end`).
///
/// Raises ConfigurationError for lists of different lengths, for bytes that are no prefix, for an id beyond 64 bits,
/// and for a row that PostgreSQL could not hold, which is named.
#[pyfunction]
#[pyo3(signature = (prefixes, payloads, ids=None, *, begin=false, end=false))]
pub fn copy_rows<'py>(
    py: Python<'py>,
    prefixes: Vec<PyBackedBytes>,
    payloads: Vec<PyBackedBytes>,
    ids: Option<Vec<Bound<'py, PyInt>>>,
    begin: bool,
    end: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let ids = ids
        .map(|ids| {
            let narrow = |(row, id)| ranged(|| format!("ids[{row}]"), id);
            ids.iter().enumerate().map(narrow).collect::<Result<Vec<i64>, _>>()
        })
        .transpose()?;
    let rows = py.detach(|| Rows::new(prefixes, payloads, ids, begin, end))?;
    PyBytes::new_with(py, rows.size(), |buffer| Ok(py.detach(|| rows.pack(buffer))?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHAPE: Shape<'_> =
        Shape { task_id: 1, job_queue_id: None, priority: -2, run_at: 3, max_attempts: 8, flags: None };

    fn packed(rows: &Rows<Vec<u8>>) -> Vec<u8> {
        let mut buffer = vec![0; rows.size()];
        rows.pack(&mut buffer).unwrap();
        buffer
    }

    #[test]
    fn a_row_is_its_columns_behind_their_lengths() {
        let prefix = SHAPE.pack().unwrap();
        let columns = b"\0\0\0\x04\0\0\0\x01\xff\xff\xff\xff\0\0\0\x02\xff\xfe\0\0\0\x08\0\0\0\0\0\0\0\x03\
            \0\0\0\x02\0\x08\xff\xff\xff\xff";
        assert_eq!(prefix, columns);
        let rows = Rows::new(vec![prefix.clone()], vec![b"{}".to_vec()], None, true, true).unwrap();
        let expected = [HEADER, b"\0\x07", columns, b"\0\0\0\x02{}", b"\xff\xff"].concat();
        assert_eq!(packed(&rows), expected);
        let rows = Rows::new(vec![prefix], vec![b"{}".to_vec()], Some(vec![-2]), false, false).unwrap();
        let id = b"\0\x08\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xfe";
        assert_eq!(packed(&rows), [id, columns.as_slice(), b"\0\0\0\x02{}"].concat());
    }

    #[test]
    fn flags_have_their_version() {
        let packed = Shape { job_queue_id: Some(7), flags: Some(b"{\"a\": true}"), ..SHAPE }.pack().unwrap();
        assert!(packed.ends_with(b"\0\0\0\x0c\x01{\"a\": true}"));
        assert!(is_prefix(&packed));
    }

    #[test]
    fn only_whole_prefixes_are_taken() {
        let prefix = Shape { job_queue_id: Some(7), flags: Some(b"{}"), ..SHAPE }.pack().unwrap();
        for length in 0..prefix.len() {
            let cut = prefix.iter().copied().take(length).collect();
            assert_eq!(Rows::new(vec![cut], vec![vec![]], None, false, false).err(), Some(CopyError::Prefix(0)));
        }
        let longer = [prefix.as_slice(), b"\0"].concat();
        assert_eq!(Rows::new(vec![longer], vec![vec![]], None, false, false).err(), Some(CopyError::Prefix(0)));
    }

    #[test]
    fn lists_have_one_length_and_rows_a_limit() {
        let prefix = SHAPE.pack().unwrap();
        let short = Rows::new(vec![prefix.clone()], vec![], None, false, false).err();
        assert_eq!(short, Some(CopyError::Count("prefixes", 1, 0)));
        let without = Rows::new(vec![prefix.clone()], vec![vec![]], Some(vec![]), false, false).err();
        assert_eq!(without, Some(CopyError::Count("ids", 0, 1)));
        let large = vec![0; ROW_LIMIT]; // never touched, so it takes no memory
        let refused = Rows::new(vec![prefix], vec![large], None, false, false).err();
        assert_eq!(refused, Some(CopyError::Oversized(0, ROW_LIMIT)));
        let flags = vec![0; ROW_LIMIT + 1];
        assert_eq!(Shape { flags: Some(&flags), ..SHAPE }.pack(), Err(CopyError::Flags(ROW_LIMIT + 1)));
    }

    #[test]
    fn a_buffer_of_another_size_is_refused() {
        let rows = Rows::new(vec![SHAPE.pack().unwrap()], vec![b"{}".to_vec()], None, false, true).unwrap();
        assert_eq!(rows.pack(&mut vec![0; rows.size() - 1]), Err(CopyError::Buffer));
        assert_eq!(rows.pack(&mut vec![0; rows.size() + 1]), Err(CopyError::Buffer));
    }
}
