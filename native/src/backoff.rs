//! Delays between attempts, with jitter: one, or many at once.

use std::fmt;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyInt, PyList, PyType};

/// A policy's number that no delay can be computed from.
#[derive(Debug, Clone, PartialEq)]
pub struct BackoffError {
    field: &'static str,
    value: f64,
    limit: &'static str,
}

impl fmt::Display for BackoffError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} = {:?}: expected {}", self.field, self.value, self.limit)
    }
}

impl std::error::Error for BackoffError {}

/// The timing of a retry policy, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    initial: f64,
    maximum: f64,
    multiplier: f64,
    jitter: f64,
}

impl Timing {
    /// Checks a policy's numbers: delays from 0, a multiplier from 1, a jitter from 0 to 1, all finite.
    pub fn new(initial: f64, maximum: f64, multiplier: f64, jitter: f64) -> Result<Self, BackoffError> {
        check("initial", initial, 0.0, f64::MAX, "a finite number of seconds from 0")?;
        check("maximum", maximum, 0.0, f64::MAX, "a finite number of seconds from 0")?;
        check("multiplier", multiplier, 1.0, f64::MAX, "a finite number from 1")?;
        check("jitter", jitter, 0.0, 1.0, "a number from 0 to 1")?;
        Ok(Self { initial, maximum, multiplier, jitter })
    }

    /// The delay after an attempt, before jitter: `min(maximum, initial * multiplier ** (attempt - 1))`.
    fn base(&self, attempt: u32) -> f64 {
        let exponent = f64::from(attempt.saturating_sub(1));
        let grown = self.initial * self.multiplier.powf(exponent);
        // 0 * infinity: nothing grows from nothing.
        if grown.is_nan() { 0.0 } else { grown.min(self.maximum) }
    }

    /// The delay after an attempt, drawn within `jitter` of it each way by `unit` (from 0 to 1), never over `maximum`.
    pub fn delay(&self, attempt: u32, unit: f64) -> f64 {
        self.spread(self.base(attempt), unit)
    }

    fn spread(&self, base: f64, unit: f64) -> f64 {
        let drawn = base + base * self.jitter * (2.0 * unit - 1.0);
        drawn.clamp(0.0, self.maximum)
    }
}

/// How many attempts' delays before jitter are kept.
const KEPT: usize = 64;

/// Delays before jitter by the Python integers they belong to: a batch has few different attempts, the interpreter has
/// one object for each of the small ones, and to look at it again costs more than all the rest.
struct Bases {
    timing: Timing,
    kept: [(usize, f64); KEPT],
}

impl Bases {
    fn new(timing: Timing) -> Self {
        Self { timing, kept: [(0, 0.0); KEPT] }
    }

    /// The delay before jitter after an attempt. An object's address names it as long as it lives: the list holds it,
    /// and reading a plain integer runs no code that could change the list.
    fn after(&mut self, attempt: &Bound<'_, PyAny>) -> PyResult<f64> {
        let address = attempt.as_ptr() as usize;
        let Some(kept) = self.kept.get_mut((address / 32) % KEPT) else {
            return Ok(self.timing.base(attempt.extract()?));
        };
        if kept.0 == address {
            return Ok(kept.1);
        }
        let base = self.timing.base(attempt.extract()?);
        if attempt.is_exact_instance_of::<PyInt>() {
            *kept = (address, base);
        } else {
            self.kept = [(0, 0.0); KEPT];
        }
        Ok(base)
    }
}

fn check(field: &'static str, value: f64, low: f64, high: f64, limit: &'static str) -> Result<(), BackoffError> {
    // Written so that NaN, which compares as false, is refused.
    if value >= low && value <= high { Ok(()) } else { Err(BackoffError { field, value, limit }) }
}

/// The delay in seconds after attempt number `attempt` (from 1) failed.
///
/// `min(maximum, initial * multiplier ** (attempt - 1))`, then within plus or minus `jitter` of it, as `unit` (0.0 to
/// 1.0) says, and never over `maximum`. `initial` and `maximum` are seconds from 0, `multiplier` is 1 or more, `jitter`
/// 0.0 to 1.0.
///
/// Raises ConfigurationError for a number out of its range.
#[pyfunction]
#[pyo3(signature = (attempt, initial, maximum, multiplier, jitter, unit))]
pub fn backoff_delay(
    attempt: u32,
    initial: f64,
    maximum: f64,
    multiplier: f64,
    jitter: f64,
    unit: f64,
) -> Result<f64, BackoffError> {
    check("unit", unit, 0.0, 1.0, "a number from 0 to 1")?;
    Ok(Timing::new(initial, maximum, multiplier, jitter)?.delay(attempt, unit))
}

/// The delays in seconds after many attempts, each with jitter of its own; a `seed` makes them repeatable.
///
/// Arguments and ranges are those of `backoff_delay`. They come as one `array` of doubles: five hundred objects of
/// Python would take longer to make than the delays.
///
/// Raises ConfigurationError for a number out of its range.
#[pyfunction]
#[pyo3(signature = (attempts, initial, maximum, multiplier, jitter, seed=None))]
pub fn backoff_delays<'py>(
    attempts: &Bound<'py, PyAny>,
    initial: f64,
    maximum: f64,
    multiplier: f64,
    jitter: f64,
    seed: Option<u64>,
) -> PyResult<Bound<'py, PyAny>> {
    let timing = Timing::new(initial, maximum, multiplier, jitter)?;
    let mut random = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
    let mut bytes = Vec::new();
    if let Ok(attempts) = attempts.cast::<PyList>() {
        let mut bases = Bases::new(timing);
        bytes.reserve_exact(attempts.len().saturating_mul(size_of::<f64>()));
        for attempt in attempts {
            bytes.extend_from_slice(&timing.spread(bases.after(&attempt)?, random.f64()).to_ne_bytes());
        }
    } else {
        let attempts: Vec<u32> = attempts.extract()?;
        bytes.extend(attempts.into_iter().flat_map(|attempt| timing.delay(attempt, random.f64()).to_ne_bytes()));
    }
    let py = attempts.py();
    array_type(py)?.call1((intern!(py, "d"), PyBytes::new(py, &bytes)))
}

fn array_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static ARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    ARRAY.import(py, "array", "array")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_the_multiplier_up_to_the_maximum() {
        let timing = Timing::new(1.0, 10.0, 2.0, 0.0).unwrap();
        let delays: Vec<f64> = (1..=6).map(|attempt| timing.delay(attempt, 0.3)).collect();
        assert_eq!(delays, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
    }

    #[test]
    fn jitter_stays_within_its_share_and_under_the_maximum() {
        let timing = Timing::new(4.0, 5.0, 2.0, 0.5).unwrap();
        assert_eq!(timing.delay(1, 0.0), 2.0);
        assert_eq!(timing.delay(1, 0.5), 4.0);
        assert_eq!(timing.delay(1, 1.0), 5.0);
    }

    #[test]
    fn any_attempt_gives_a_finite_delay() {
        for initial in [0.0, f64::MIN_POSITIVE, 1.0, f64::MAX] {
            let timing = Timing::new(initial, 300.0, f64::MAX, 1.0).unwrap();
            for attempt in [0, 1, 2, 1000, u32::MAX] {
                let delay = timing.delay(attempt, 0.9);
                assert!((0.0..=300.0).contains(&delay), "{initial} {attempt} {delay}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_number() {
        assert!(Timing::new(f64::NAN, 1.0, 1.0, 0.0).is_err());
        assert!(Timing::new(1.0, f64::INFINITY, 1.0, 0.0).is_err());
        assert!(Timing::new(1.0, 1.0, 0.5, 0.0).is_err());
        assert_eq!(
            Timing::new(1.0, 1.0, 1.0, 2.0).unwrap_err().to_string(),
            "jitter = 2.0: expected a number from 0 to 1"
        );
    }
}
