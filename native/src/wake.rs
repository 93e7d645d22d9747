//! Waking another thread, or a loop, that waits for a descriptor: a socket pair with at most one byte in it.

use std::ffi::c_int;
use std::io;

#[cfg(unix)]
pub use unix::Wake;

#[cfg(unix)]
mod unix {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::{Mutex, PoisonError};

    use super::{c_int, io};

    /// A pair of sockets; neither end ever waits.
    #[derive(Debug)]
    pub struct Wake {
        reading: UnixStream,
        writing: UnixStream,
        pending: Mutex<bool>,
    }

    impl Wake {
        /// A new pair, with nothing in it.
        pub fn new() -> io::Result<Self> {
            let (reading, writing) = UnixStream::pair()?;
            reading.set_nonblocking(true)?;
            writing.set_nonblocking(true)?;
            Ok(Self { reading, writing, pending: Mutex::new(false) })
        }

        /// Make the descriptor readable. What it is about must be there already.
        pub fn wake(&self) {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if !*pending {
                *pending = (&self.writing).write(&[1]).is_ok();
            }
        }

        /// Make it unreadable. What it was about is to be looked at afterwards.
        pub fn clear(&self) {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if *pending {
                let mut taken = [0; 8];
                let _ = (&self.reading).read(&mut taken);
                *pending = false;
            }
        }

        /// The end that becomes readable.
        pub fn descriptor(&self) -> c_int {
            self.reading.as_raw_fd()
        }
    }
}

/// No pair of sockets: the heartbeat's thread is Python's there.
#[cfg(not(unix))]
#[derive(Debug)]
pub struct Wake(());

#[cfg(not(unix))]
impl Wake {
    /// An error, always.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing.
    pub fn wake(&self) {}

    /// Nothing.
    pub fn clear(&self) {}

    /// No descriptor.
    pub fn descriptor(&self) -> c_int {
        -1
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::libpq_connection::wait;

    fn readable(wake: &Wake) -> io::Result<bool> {
        Ok(wait(None, wake.descriptor(), Instant::now() + Duration::from_millis(1))?.orders)
    }

    #[test]
    fn many_wakes_are_one_byte() -> io::Result<()> {
        let wake = Wake::new()?;
        assert!(!readable(&wake)?);
        for _ in 0..100_000 {
            wake.wake();
        }
        assert!(readable(&wake)?);
        wake.clear();
        assert!(!readable(&wake)?);
        wake.clear();
        wake.wake();
        assert!(readable(&wake)?);
        Ok(())
    }
}
