//! The few public functions of libpq that reading results takes, found in the library that psycopg has loaded already.
//!
//! The only file in which unsafe is allowed. Nothing of libpq's private structs is touched: results are read by the
//! functions that libpq exports for it, through pointers that psycopg's own result objects give out.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::rows::Table;

type Handle = *const c_void;

/// The functions, as libpq-fe.h declares them.
struct Libpq {
    ntuples: unsafe extern "C" fn(Handle) -> c_int,
    nfields: unsafe extern "C" fn(Handle) -> c_int,
    fname: unsafe extern "C" fn(Handle, c_int) -> *const c_char,
    fformat: unsafe extern "C" fn(Handle, c_int) -> c_int,
    getisnull: unsafe extern "C" fn(Handle, c_int, c_int) -> c_int,
    getlength: unsafe extern "C" fn(Handle, c_int, c_int) -> c_int,
    getvalue: unsafe extern "C" fn(Handle, c_int, c_int) -> *const c_char,
}

static LIBPQ: OnceLock<Libpq> = OnceLock::new();
static RESULT_CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Why a result cannot be read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibpqError {
    /// `reach_libpq` was not called, or did not find the library.
    NotReached,
    /// Not one of psycopg's results.
    NotAResult(String),
    /// A result that was cleared.
    Cleared,
    /// A column in text format.
    TextFormat(String),
}

impl fmt::Display for LibpqError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReached => write!(out, "libpq: it was not reached; read the result by psycopg"),
            Self::NotAResult(kind) => write!(out, "result: {kind}: expected a PGresult of psycopg's C part"),
            Self::Cleared => write!(out, "result: it was cleared; nothing can be read from it"),
            Self::TextFormat(name) => write!(out, "column {name}: text format, expected binary"),
        }
    }
}

impl std::error::Error for LibpqError {}

#[cfg(unix)]
fn find(path: &CStr) -> Option<Libpq> {
    // SAFETY: dlopen is given a C string that outlives the call. RTLD_NOLOAD loads nothing: it gives a handle of a module
    // that is there, or null. The handle is never closed, so what is found in it stays.
    let module = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if module.is_null() {
        return None;
    }
    let symbol = |name: &CStr| -> Option<*mut c_void> {
        // SAFETY: the handle is open, the name a C string that outlives the call. dlsym looks into the module and all
        // that it was linked with, where libpq is.
        let found = unsafe { libc::dlsym(module, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    };
    // SAFETY: each symbol, found by its name in libpq, is the function that libpq-fe.h declares with this signature; a
    // pointer to a function has the size of a pointer to data on every system that has dlsym.
    unsafe {
        Some(Libpq {
            ntuples: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle) -> c_int>(symbol(c"PQntuples")?),
            nfields: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle) -> c_int>(symbol(c"PQnfields")?),
            fname: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int) -> *const c_char>(symbol(
                c"PQfname",
            )?),
            fformat: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int) -> c_int>(symbol(
                c"PQfformat",
            )?),
            getisnull: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int, c_int) -> c_int>(symbol(
                c"PQgetisnull",
            )?),
            getlength: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int, c_int) -> c_int>(symbol(
                c"PQgetlength",
            )?),
            getvalue: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int, c_int) -> *const c_char>(
                symbol(c"PQgetvalue")?,
            ),
        })
    }
}

#[cfg(not(unix))]
fn find(_: &CStr) -> Option<Libpq> {
    None
}

/// One of psycopg's results, for as long as the object that owns it is borrowed.
pub struct ResultTable<'a> {
    libpq: &'static Libpq,
    handle: Handle,
    rows: c_int,
    columns: c_int,
    owner: PhantomData<&'a ()>,
}

impl<'a> ResultTable<'a> {
    /// The result behind a psycopg `PGresult` whose columns are all in binary format.
    pub fn of(result: &'a Bound<'_, PyAny>) -> Result<Self, LibpqError> {
        let (Some(libpq), Some(class)) = (LIBPQ.get(), RESULT_CLASS.get(result.py())) else {
            return Err(LibpqError::NotReached);
        };
        let kind = || LibpqError::NotAResult(result.get_type().to_string());
        if !result.get_type().is(class.bind(result.py())) {
            return Err(kind());
        }
        let pointer: Option<usize> =
            result.getattr("pgresult_ptr").and_then(|found| found.extract()).map_err(|_| kind())?;
        let handle = pointer.filter(|&address| address != 0).ok_or(LibpqError::Cleared)? as Handle;
        // SAFETY: the handle is that of a live PGresult: psycopg's own class, compared above, gives it out while it owns
        // the result. It is freed by the object's end or by its clear(); the object is borrowed for 'a, and no Python code
        // can call clear() meanwhile, since the reader neither lets go of the interpreter nor runs any of the object's.
        let (rows, columns) = unsafe { ((libpq.ntuples)(handle), (libpq.nfields)(handle)) };
        let table = Self { libpq, handle, rows, columns, owner: PhantomData };
        for column in 0..columns {
            // SAFETY: as above; the column's number is below the result's own count.
            if unsafe { (libpq.fformat)(handle, column) } != 1 {
                let name = usize::try_from(column).ok().and_then(|column| table.name(column)).unwrap_or_default();
                return Err(LibpqError::TextFormat(String::from_utf8_lossy(name).into_owned()));
            }
        }
        Ok(table)
    }

    fn place(index: usize, count: c_int) -> Option<c_int> {
        c_int::try_from(index).ok().filter(|&index| index < count)
    }
}

impl Table for ResultTable<'_> {
    fn rows(&self) -> usize {
        usize::try_from(self.rows).unwrap_or(0)
    }

    fn columns(&self) -> usize {
        usize::try_from(self.columns).unwrap_or(0)
    }

    fn name(&self, column: usize) -> Option<&[u8]> {
        let column = Self::place(column, self.columns)?;
        // SAFETY: the handle lives as long as self, the column is in range; libpq gives null or a C string that it keeps
        // until the result is freed.
        unsafe {
            let name = (self.libpq.fname)(self.handle, column);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes())
        }
    }

    fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        let (row, column) = (Self::place(row, self.rows)?, Self::place(column, self.columns)?);
        // SAFETY: the handle lives as long as self; row and column are in range. A value that is not null is at least as
        // long as libpq says, and stays where it is until the result is freed.
        unsafe {
            if (self.libpq.getisnull)(self.handle, row, column) != 0 {
                return None;
            }
            let length = usize::try_from((self.libpq.getlength)(self.handle, row, column)).ok()?;
            let start = (self.libpq.getvalue)(self.handle, row, column);
            (!start.is_null()).then(|| std::slice::from_raw_parts(start.cast(), length))
        }
    }
}

/// Find libpq's functions in a module that is loaded already, and note the class of the results that may be read.
///
/// `path` is that of psycopg's C module, `result_class` its `PGresult`. Returns whether results can be read natively;
/// harmless when called again.
#[pyfunction]
pub fn reach_libpq(path: &str, result_class: Bound<'_, PyType>) -> bool {
    let Ok(name) = std::ffi::CString::new(path) else {
        return false;
    };
    if LIBPQ.get().is_none() {
        let Some(found) = find(&name) else {
            return false;
        };
        let _ = LIBPQ.set(found);
    }
    let class = RESULT_CLASS.get_or_init(result_class.py(), || result_class.clone().unbind());
    class.bind(result_class.py()).is(&result_class)
}
