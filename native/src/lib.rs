//! The native extension of backfill: what crosses the boundary to Python, and nothing else.
//!
//! Each concern has a file with a core that knows no Python and a thin wrapper round it.

#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod backoff;
pub mod claim;
mod error;

/// Native parts of backfill: delays with jitter, and the claim statements of a lane.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::backoff::{backoff_delay, backoff_delays};
    #[pymodule_export]
    use crate::claim::claim_statement;
}
