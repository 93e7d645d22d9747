//! Delays between attempts, with jitter: one, or many at once.

use std::fmt;

use pyo3::prelude::*;

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

/// How many attempts' delays before jitter are kept: more than most policies allow.
const KEPT: usize = 64;

/// The delays before jitter, each computed once: a batch has few different attempts, and a power costs more than the rest.
struct Bases {
    timing: Timing,
    kept: [Option<f64>; KEPT],
}

impl Bases {
    fn new(timing: Timing) -> Self {
        Self { timing, kept: [None; KEPT] }
    }

    fn after(&mut self, attempt: u32) -> f64 {
        let timing = self.timing;
        match usize::try_from(attempt).ok().and_then(|index| self.kept.get_mut(index)) {
            Some(kept) => *kept.get_or_insert_with(|| timing.base(attempt)),
            None => timing.base(attempt),
        }
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
/// Arguments and ranges are those of `backoff_delay`.
///
/// Raises ConfigurationError for a number out of its range.
#[pyfunction]
#[pyo3(signature = (attempts, initial, maximum, multiplier, jitter, seed=None))]
pub fn backoff_delays(
    attempts: Vec<u32>,
    initial: f64,
    maximum: f64,
    multiplier: f64,
    jitter: f64,
    seed: Option<u64>,
) -> Result<Vec<f64>, BackoffError> {
    let timing = Timing::new(initial, maximum, multiplier, jitter)?;
    let mut random = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
    let mut bases = Bases::new(timing);
    Ok(attempts.into_iter().map(|attempt| timing.spread(bases.after(attempt), random.f64())).collect())
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
    fn a_kept_base_is_the_computed_one() {
        let timing = Timing::new(0.7, 1e9, 1.7, 0.0).unwrap();
        let mut bases = Bases::new(timing);
        for attempt in [0, 1, 2, 63, 64, 65, 1000, 2, 63] {
            assert_eq!(bases.after(attempt), timing.base(attempt), "{attempt}");
        }
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
