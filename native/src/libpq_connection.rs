//! A connection of the heartbeat's own, over libpq's functions for clients that never block, and the waits between
//! them.
//!
//! This file and `libpq.rs` are the only ones in which unsafe is allowed. A connection stays in the thread that opened
//! it. Nothing here waits but `wait`, which has a deadline. One thing is out of reach: libpq looks up a host's name
//! within `open` and `advance`, for as long as the system's resolver takes; `hostaddr` in the connection string avoids
//! it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::ptr;
use std::time::Instant;

use crate::libpq::{Conn, Libpq, conninfo_settings, reached};

const CONNECTION_OK: c_int = 0;
const POLLING_READING: c_int = 1;
const POLLING_WRITING: c_int = 2;
const POLLING_OK: c_int = 3;
const EMPTY_QUERY: c_int = 0;
const COMMAND_OK: c_int = 1;
const TUPLES_OK: c_int = 2;
const COPY_OUT: c_int = 3;
const COPY_IN: c_int = 4;
const COPY_BOTH: c_int = 8;
const LONGEST_TEXT: usize = 500;
const UNREADABLE: &str = "the connection string cannot be read; expected postgresql://user:password@host:port/database";

/// The values of a row in text format; none where one is null.
pub type Row = Vec<Option<String>>;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for its socket to be readable.
    Reading,
    /// It waits for its socket to be writable.
    Writing,
    /// It stands.
    Open,
}

/// What a command gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has no result to give.
    Done,
    /// Rows, of which the first one is kept.
    Rows(Option<Row>),
    /// The server refused it.
    Refused(String),
}

/// A connection to PostgreSQL; closed when it is dropped.
pub struct Connection {
    libpq: &'static Libpq,
    conn: Conn,
}

extern "C" fn silent(_: *mut c_void, _: *const c_char) {}

impl Connection {
    /// Begin to connect; `advance` goes on. Of several hosts the first so many (`turn`) come last: libpq would spend
    /// all the time there is on one that does not answer.
    pub fn open(conninfo: &CStr, turn: usize) -> Result<Self, String> {
        let libpq = reached().ok_or("libpq: it was not reached")?;
        let mut settings = conninfo_settings(libpq, conninfo, turn).ok_or(UNREADABLE)?;
        // What stands later overrides: texts are UTF-8 here, whatever the database's encoding.
        settings.push((c"client_encoding".to_owned(), c"UTF8".to_owned()));
        let ended = |texts: &mut dyn Iterator<Item = &CString>| -> Vec<*const c_char> {
            texts.map(|text| text.as_ptr()).chain([ptr::null()]).collect()
        };
        let keywords = ended(&mut settings.iter().map(|(keyword, _)| keyword));
        let values = ended(&mut settings.iter().map(|(_, value)| value));
        // SAFETY: two arrays of C strings, as long as each other and ended by null, that outlive the call; libpq copies
        // them.
        let conn = unsafe { (libpq.connect_start)(keywords.as_ptr(), values.as_ptr(), 0) };
        if conn.is_null() {
            return Err("libpq: out of memory".to_owned());
        }
        // SAFETY: `conn` is a PGconn that nobody else has. The processor is a function of ours that lives for ever and
        // looks at neither of its arguments.
        unsafe { (libpq.set_notice_processor)(conn, silent, ptr::null_mut()) };
        Ok(Self { libpq, conn })
    }

    /// Go on connecting, when the socket is ready for what the last call gave. At first it is `Writing`.
    pub fn advance(&mut self) -> Result<Progress, String> {
        // SAFETY: a live PGconn that was begun by PQconnectStartParams.
        match unsafe { (self.libpq.connect_poll)(self.conn) } {
            POLLING_READING => Ok(Progress::Reading),
            POLLING_WRITING => Ok(Progress::Writing),
            POLLING_OK => {
                // SAFETY: a live PGconn; its connection stands.
                if unsafe { (self.libpq.set_nonblocking)(self.conn, 1) } != 0 {
                    return Err(self.error());
                }
                Ok(Progress::Open)
            }
            _ => Err(self.error()),
        }
    }

    /// The socket of the moment: it may change while connecting.
    pub fn socket(&self) -> Result<c_int, String> {
        // SAFETY: a live PGconn.
        let socket = unsafe { (self.libpq.socket)(self.conn) };
        if socket < 0 { Err(self.error()) } else { Ok(socket) }
    }

    /// Hand a statement with text parameters to the connection; `flush` sends it.
    pub fn send(&mut self, statement: &CStr, parameters: &[Option<&CStr>]) -> Result<(), String> {
        let count = c_int::try_from(parameters.len()).map_err(|_| "too many parameters".to_owned())?;
        let values: Vec<*const c_char> =
            parameters.iter().map(|value| value.map_or(ptr::null(), CStr::as_ptr)).collect();
        // SAFETY: a live PGconn, a C string, and as many values as said, each null or a C string; all outlive the call,
        // which copies them. Null for types, lengths and formats means: inferred, and text.
        let sent = unsafe {
            (self.libpq.send_query_params)(
                self.conn,
                statement.as_ptr(),
                count,
                ptr::null(),
                values.as_ptr(),
                ptr::null(),
                ptr::null(),
                0,
            )
        };
        if sent == 1 { Ok(()) } else { Err(self.error()) }
    }

    /// Send what the socket takes; whether all of it is sent.
    pub fn flush(&mut self) -> Result<bool, String> {
        // SAFETY: a live PGconn.
        match unsafe { (self.libpq.flush)(self.conn) } {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(self.error()),
        }
    }

    /// Take what has come; notices and notifications are dropped.
    pub fn consume(&mut self) -> Result<(), String> {
        // SAFETY: a live PGconn.
        if unsafe { (self.libpq.consume_input)(self.conn) } != 1 {
            return Err(self.error());
        }
        loop {
            // SAFETY: a live PGconn; what it gives is ours, to be freed by PQfreemem, once. There are as many as have
            // come.
            unsafe {
                let notification = (self.libpq.notifies)(self.conn);
                if notification.is_null() {
                    return Ok(());
                }
                (self.libpq.freemem)(notification);
            }
        }
    }

    /// Whether a result is still to come.
    pub fn is_busy(&self) -> bool {
        // SAFETY: a live PGconn.
        unsafe { (self.libpq.is_busy)(self.conn) != 0 }
    }

    /// The next result of what was sent; none at its end. To be called while `is_busy` says no: then it does not wait.
    pub fn next_outcome(&mut self) -> Result<Option<Outcome>, String> {
        // SAFETY: a live PGconn; the result is ours, read while it lives and freed once. The texts are copied before.
        unsafe {
            let result = (self.libpq.get_result)(self.conn);
            if result.is_null() {
                return if (self.libpq.status)(self.conn) == CONNECTION_OK { Ok(None) } else { Err(self.error()) };
            }
            let outcome = match (self.libpq.result_status)(result) {
                EMPTY_QUERY | COMMAND_OK => Ok(Some(Outcome::Done)),
                TUPLES_OK => Ok(Some(Outcome::Rows(self.first_row(result)))),
                // libpq would give such results for ever.
                COPY_OUT | COPY_IN | COPY_BOTH => Err("the statement is a COPY, which is no heartbeat".to_owned()),
                _ => Ok(Some(Outcome::Refused(self.text((self.libpq.result_error_message)(result))))),
            };
            (self.libpq.clear)(result);
            outcome
        }
    }

    /// # Safety
    /// `result` is a live PGresult.
    unsafe fn first_row(&self, result: *mut c_void) -> Option<Row> {
        // SAFETY: a live PGresult, says the caller; row 0 is there, and columns are below their number. A value that is
        // not null is at least as long as libpq says.
        unsafe {
            if (self.libpq.ntuples)(result) < 1 {
                return None;
            }
            let value = |column| {
                if (self.libpq.getisnull)(result, 0, column) != 0 {
                    return None;
                }
                let length = usize::try_from((self.libpq.getlength)(result, 0, column)).ok()?;
                let start = (self.libpq.getvalue)(result, 0, column);
                let bytes: &[u8] = if start.is_null() { &[] } else { std::slice::from_raw_parts(start.cast(), length) };
                Some(String::from_utf8_lossy(bytes).into_owned())
            };
            Some((0..(self.libpq.nfields)(result)).map(value).collect())
        }
    }

    fn error(&self) -> String {
        // SAFETY: a live PGconn; its message stays until its next call.
        self.text(unsafe { (self.libpq.error_message)(self.conn) })
    }

    /// A message of libpq's on one line, shortened, without the connection's password.
    fn text(&self, message: *const c_char) -> String {
        // SAFETY: both are null or C strings that libpq keeps until the next call on the connection or the result.
        let (message, secret) = unsafe {
            let secret = (self.libpq.pass)(self.conn);
            let copy = |text: *const c_char| {
                if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
            };
            (copy(message), copy(secret))
        };
        plain(&message, &secret)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: a live PGconn, finished once. Its socket does not block, so its farewell waits for nobody.
        unsafe { (self.libpq.finish)(self.conn) };
    }
}

/// A message on one line, at most 500 characters long, with the secret blotted out.
fn plain(message: &str, secret: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = if secret.is_empty() { line } else { line.replace(secret, "***") };
    match line.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => line.get(..end).unwrap_or_default().to_owned(),
        None if line.is_empty() => "the connection was lost".to_owned(),
        None => line,
    }
}

/// Whether libpq was found, and says that threads may use it.
pub fn usable() -> bool {
    // SAFETY: a function without arguments that gives a constant.
    reached().is_some_and(|libpq| unsafe { (libpq.isthreadsafe)() } == 1)
}

/// What of two descriptors was ready when a wait ended; both false where its time was over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// The socket, for what was asked, or broken.
    pub socket: bool,
    /// The descriptor by which orders come.
    pub orders: bool,
}

/// Wait until a socket (and for what: reading, writing) or the orders' descriptor is ready, or the time has come.
#[cfg(unix)]
pub fn wait(socket: Option<(c_int, bool, bool)>, orders: c_int, until: Instant) -> io::Result<Ready> {
    let entry = |fd, reading, writing| libc::pollfd {
        fd,
        events: (if reading { libc::POLLIN } else { 0 }) | (if writing { libc::POLLOUT } else { 0 }),
        revents: 0,
    };
    // poll passes over an entry whose descriptor is negative.
    let (fd, reading, writing) = socket.unwrap_or((-1, false, false));
    let mut entries = [entry(orders, true, false), entry(fd, reading, writing)];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let millis = if left.is_zero() { 0 } else { left.as_millis().saturating_add(1) };
        let millis = c_int::try_from(millis).unwrap_or(c_int::MAX);
        // SAFETY: two entries, as said, that outlive the call.
        let count = unsafe { libc::poll(entries.as_mut_ptr(), 2, millis) };
        if count >= 0 {
            let [orders, socket] = entries;
            return Ok(Ready { socket: socket.revents != 0, orders: orders.revents != 0 });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Where libpq is not reached, nothing waits for it.
#[cfg(not(unix))]
pub fn wait(_: Option<(c_int, bool, bool)>, _: c_int, _: Instant) -> io::Result<Ready> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Do something while no signal reaches this thread; a thread that it starts never gets one, so that the interpreter's
/// handlers find them where it looks: in the main thread.
#[cfg(unix)]
pub fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: sigset_t is plain data, filled by sigfillset and pthread_sigmask before it is read; all pointers are to
    // locals.
    let before = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        (libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) == 0).then_some(before)
    };
    let done = work();
    if let Some(before) = before {
        // SAFETY: the mask that pthread_sigmask gave above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    }
    done
}

/// There are no signals.
#[cfg(not(unix))]
pub fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_without_the_secret() {
        assert_eq!(plain("a\n  b hush\tc\n", "hush"), "a b *** c");
        assert_eq!(plain(" \n", ""), "the connection was lost");
        assert_eq!(plain(&"é".repeat(900), "").chars().count(), 500);
    }

    #[test]
    fn without_libpq_there_is_no_connection() {
        assert!(!usable());
        assert!(Connection::open(c"", 0).is_err());
    }
}
