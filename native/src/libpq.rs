//! The public functions of libpq that reading results and beating take, found in the library that psycopg has loaded.
//!
//! This file and `libpq_connection.rs` are the only ones in which unsafe is allowed. Nothing of libpq's private structs
//! is touched: results and connections are handled by the functions that libpq exports for it; results that are read in
//! place come through pointers that psycopg's own result objects give out.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::rows::Table;

/// A result of libpq's.
pub(crate) type Handle = *const c_void;
/// A connection of libpq's.
pub(crate) type Conn = *mut c_void;
/// What libpq hands notices to.
pub(crate) type NoticeProcessor = extern "C" fn(*mut c_void, *const c_char);

/// One setting of a connection string, as libpq-fe.h declares it; an array of them ends with a keyword that is null.
#[repr(C)]
pub(crate) struct ConninfoOption {
    keyword: *const c_char,
    envvar: *const c_char,
    compiled: *const c_char,
    value: *const c_char,
    label: *const c_char,
    dispchar: *const c_char,
    dispsize: c_int,
}

/// A struct of pointers to functions, each with the name that libpq exports it by, and how to find them all.
macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, as libpq-fe.h declares them.
        pub(crate) struct Libpq { $(pub(crate) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)* }

        impl Libpq {
            /// # Safety
            /// `symbol` gives the address of the function that libpq exports by a name, or none.
            #[cfg(unix)]
            unsafe fn of(symbol: impl Fn(&CStr) -> Option<*mut c_void>) -> Option<Self> {
                // SAFETY: each symbol is the function that libpq-fe.h declares with this signature, says the caller; a
                // pointer to a function has the size of a pointer to data on every system that has dlsym.
                unsafe {
                    Some(Self { $($field: std::mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn($($argument),*) $(-> $result)?,
                    >(symbol($symbol)?),)* })
                }
            }
        }
    };
}

functions! {
    ntuples = c"PQntuples" (Handle) -> c_int;
    nfields = c"PQnfields" (Handle) -> c_int;
    fname = c"PQfname" (Handle, c_int) -> *const c_char;
    fformat = c"PQfformat" (Handle, c_int) -> c_int;
    getisnull = c"PQgetisnull" (Handle, c_int, c_int) -> c_int;
    getlength = c"PQgetlength" (Handle, c_int, c_int) -> c_int;
    getvalue = c"PQgetvalue" (Handle, c_int, c_int) -> *const c_char;
    result_status = c"PQresultStatus" (Handle) -> c_int;
    result_error_message = c"PQresultErrorMessage" (Handle) -> *const c_char;
    clear = c"PQclear" (*mut c_void);
    isthreadsafe = c"PQisthreadsafe" () -> c_int;
    connect_start = c"PQconnectStartParams" (*const *const c_char, *const *const c_char, c_int) -> Conn;
    connect_poll = c"PQconnectPoll" (Conn) -> c_int;
    status = c"PQstatus" (Conn) -> c_int;
    socket = c"PQsocket" (Conn) -> c_int;
    error_message = c"PQerrorMessage" (Conn) -> *const c_char;
    pass = c"PQpass" (Conn) -> *const c_char;
    set_nonblocking = c"PQsetnonblocking" (Conn, c_int) -> c_int;
    set_notice_processor = c"PQsetNoticeProcessor" (Conn, NoticeProcessor, *mut c_void) -> Option<NoticeProcessor>;
    send_query_params = c"PQsendQueryParams" (
        Conn, *const c_char, c_int, *const c_uint, *const *const c_char, *const c_int, *const c_int, c_int
    ) -> c_int;
    flush = c"PQflush" (Conn) -> c_int;
    consume_input = c"PQconsumeInput" (Conn) -> c_int;
    is_busy = c"PQisBusy" (Conn) -> c_int;
    get_result = c"PQgetResult" (Conn) -> *mut c_void;
    notifies = c"PQnotifies" (Conn) -> *mut c_void;
    freemem = c"PQfreemem" (*mut c_void);
    finish = c"PQfinish" (Conn);
    conninfo_parse = c"PQconninfoParse" (*const c_char, *mut *mut c_char) -> *mut ConninfoOption;
    conninfo_free = c"PQconninfoFree" (*mut ConninfoOption);
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
    // SAFETY: dlopen is given a C string that outlives the call. RTLD_NOLOAD loads nothing: it gives a handle of a
    // module that is there, or null. The handle is never closed, so what is found in it stays.
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
    // SAFETY: the module was linked with libpq, so what dlsym finds by such a name is libpq's function.
    unsafe { Libpq::of(symbol) }
}

#[cfg(not(unix))]
fn find(_: &CStr) -> Option<Libpq> {
    None
}

/// libpq's functions, once they were found.
pub(crate) fn reached() -> Option<&'static Libpq> {
    LIBPQ.get()
}

/// A list with commas, begun so many places later.
fn turned(list: &CStr, turn: usize) -> CString {
    let mut parts: Vec<&[u8]> = list.to_bytes().split(|&byte| byte == b',').collect();
    let places = turn % parts.len().max(1);
    parts.rotate_left(places);
    // A part of a text without NUL has none.
    CString::new(parts.join(&b',')).unwrap_or_else(|_| list.to_owned())
}

/// The settings that a connection string gives, by their keywords; none where it cannot be read. Of several hosts the
/// first so many (`turn`) come last.
pub(crate) fn conninfo_settings(libpq: &Libpq, conninfo: &CStr, turn: usize) -> Option<Vec<(CString, CString)>> {
    // SAFETY: a C string that outlives the call. Null for the message says that it is not wanted.
    let options = unsafe { (libpq.conninfo_parse)(conninfo.as_ptr(), std::ptr::null_mut()) };
    if options.is_null() {
        return None;
    }
    let mut found = Vec::new();
    let mut option = options;
    // SAFETY: an array of options that ends with a null keyword, walked up to there; keywords are C strings, values too
    // or null. They are copied, and the array is freed once, after that.
    unsafe {
        while !(*option).keyword.is_null() {
            if !(*option).value.is_null() {
                let copy = |text| CStr::from_ptr(text).to_owned();
                found.push((copy((*option).keyword), copy((*option).value)));
            }
            option = option.add(1);
        }
        (libpq.conninfo_free)(options);
    }
    for (keyword, value) in &mut found {
        if [c"host", c"hostaddr", c"port"].contains(&keyword.as_c_str()) {
            *value = turned(value, turn);
        }
    }
    Some(found)
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
        // SAFETY: the handle is that of a live PGresult: psycopg's own class, compared above, gives it out while it
        // owns the result. It is freed by the object's end or by its clear(); the object is borrowed for 'a, and no
        // Python code can call clear() meanwhile, since the reader neither lets go of the interpreter nor runs any of
        // the object's.
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
        // SAFETY: the handle lives as long as self, the column is in range; libpq gives null or a C string that it
        // keeps until the result is freed.
        unsafe {
            let name = (self.libpq.fname)(self.handle, column);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes())
        }
    }

    fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        let (row, column) = (Self::place(row, self.rows)?, Self::place(column, self.columns)?);
        // SAFETY: the handle lives as long as self; row and column are in range. A value that is not null is at least
        // as long as libpq says, and stays where it is until the result is freed.
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
    let Ok(name) = CString::new(path) else {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_take_turns() {
        let seen: Vec<CString> = (0..4).map(|turn| turned(c"a,,b", turn)).collect();
        assert_eq!(seen, [c"a,,b", c",b,a", c"b,a,", c"a,,b"].map(CStr::to_owned));
        assert_eq!(turned(c"5432", 7), c"5432".to_owned());
        assert_eq!(turned(c"", 1), c"".to_owned());
    }
}
