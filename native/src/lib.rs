//! The native extension of backfill: what crosses the boundary to Python, and nothing else.
//!
//! Each concern has a file with a core that knows no Python and a thin wrapper round it.

#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod arrays;
pub mod backoff;
pub mod beat;
pub mod beat_loop;
pub mod claim;
pub mod copy;
pub mod decode;
mod error;
pub mod heartbeat;
pub mod items;
pub mod job;
pub mod libpq;
pub mod libpq_connection;
pub mod limited;
pub mod rows;
pub mod scan;
pub mod signals;
pub mod wake;

/// Native parts of backfill: delays with jitter, the claim statements of a lane, rows to jobs, the heartbeat's thread,
/// and signals.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::arrays::pack_array;
    #[pymodule_export]
    use crate::backoff::{backoff_delay, backoff_delays};
    #[pymodule_export]
    use crate::claim::claim_statement;
    #[pymodule_export]
    use crate::copy::{copy_prefix, copy_rows};
    #[pymodule_export]
    use crate::decode::{decode_result, decode_rows, payload_size};
    #[pymodule_export]
    use crate::heartbeat::{HeartbeatReport, HeartbeatThread};
    #[pymodule_export]
    use crate::items::encode_items;
    #[pymodule_export]
    use crate::job::Job;
    #[pymodule_export]
    use crate::libpq::reach_libpq;
    #[pymodule_export]
    use crate::limited::limit_value;
    #[pymodule_export]
    use crate::scan::odd_parts;
    #[pymodule_export]
    use crate::signals::SignalCounter;
}
