//! Tests of the heartbeat's rules.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(interval: f64, timeout: f64, stuck_after: Option<f64>) -> Result<Settings, BeatError> {
    Settings::new(vec!["set a = b".to_owned()], "select 1".to_owned(), interval, timeout, stuck_after, None)
}

fn row(text: &str) -> Option<Row> {
    Some(vec![Some(text.to_owned()), None])
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    for bad in [0.0, -1.0, 3601.0, f64::NAN, f64::INFINITY] {
        let shown = settings(bad, 1.0, None).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(shown, Err(format!("interval = {bad:?}: expected seconds from 0.01 to 3600")));
        assert!(settings(1.0, bad, None).is_err());
        assert!(bad == 3601.0 || settings(1.0, 1.0, Some(bad)).is_err());
    }
    assert!(settings(0.01, 3600.0, Some(86400.0)).is_ok());
}

#[test]
fn texts_with_nul_are_refused_and_not_shown() {
    let refused = text("conninfo", "password=hush\0".to_owned()).map_err(|error| error.to_string());
    assert_eq!(refused, Err("conninfo: expected text without NUL".to_owned()));
    let refused = parameters(vec![None, Some("\0".to_owned())]).map_err(|error| error.to_string());
    assert_eq!(refused, Err("parameters[1]: expected text without NUL".to_owned()));
    assert!(parameters(vec![None; 1001]).is_err());
}

#[test]
fn beats_are_due_an_interval_after_the_last_one_began() {
    let now = Instant::now();
    let mut plan = Plan::new(SECOND * 5, now);
    assert_eq!(plan.due(), now);
    plan.begin(now + SECOND);
    assert_eq!(plan.due(), now + SECOND * 6);
    plan.hurry(now + SECOND * 2);
    assert_eq!(plan.due(), now + SECOND * 2);
}

#[test]
fn failures_are_tried_again_at_once_and_then_ever_later() {
    let now = Instant::now();
    let pause = |plan: &Plan| plan.due().duration_since(now).as_secs_f64();
    let mut plan = Plan::new(SECOND * 5, now);
    plan.failed(now, true, 1.0);
    assert!(pause(&plan) == 0.0);
    let mut seen = Vec::new();
    for _ in 0..40 {
        plan.failed(now, false, 1.0);
        seen.push(pause(&plan));
        let latest = plan;
        plan.failed(now, false, 0.0);
        assert!((pause(&plan) - 0.1).abs() < 1e-6);
        plan = latest;
    }
    assert!(seen.is_sorted());
    assert!(seen.iter().all(|seconds| (0.1..=1.0).contains(seconds)));
    assert_eq!(seen.last(), Some(&1.0));
    plan.succeeded();
    plan.failed(now, false, 1.0);
    assert!((pause(&plan) - 0.2).abs() < 1e-6);
    let mut quick = Plan::new(SECOND / 20, now);
    quick.failed(now, false, 1.0);
    assert!((pause(&quick) - 0.05).abs() < 1e-6);
}

#[test]
fn news_is_what_changed() {
    let (mut state, now) = (State::default(), Instant::now());
    assert!(state.answered(row("1"), 0, now));
    assert!(!state.answered(row("1"), 0, now + SECOND));
    assert_eq!((state.beats, state.last_success, state.unbroken), (2, Some(now + SECOND), Some(now)));
    assert!(state.answered(row("2"), 0, now));
    state.failed("gone".to_owned(), false);
    assert!(!state.wants_conninfo && state.unbroken.is_none());
    state.failed("refused".to_owned(), true);
    state.failed("gone".to_owned(), false);
    assert!(state.wants_conninfo);
    assert!(state.answered(row("2"), 0, now));
    assert!(state.failure.is_none() && !state.wants_conninfo);
}

#[test]
fn a_missing_row_is_news_unless_the_parameters_have_changed_since() {
    let (mut state, now) = (State { version: 1, ..State::default() }, Instant::now());
    assert!(!state.answered(None, 0, now));
    assert!(!state.missing);
    assert!(state.answered(None, 1, now));
    assert!(state.missing);
    assert_eq!((state.beats, state.last_success), (0, None));
}

#[cfg(unix)]
#[test]
fn a_loop_that_lags_ends_the_beat_where_asked() -> Result<(), Box<dyn std::error::Error>> {
    let patient = Shared::new(settings(1.0, 1.0, None)?, CString::default(), Vec::new())?;
    let strict = Shared::new(settings(1.0, 1.0, Some(0.05))?, CString::default(), Vec::new())?;
    std::thread::sleep(Duration::from_millis(80));
    assert!(patient.lag() >= Duration::from_millis(80));
    assert!(patient.may_beat() && !strict.may_beat());
    assert!(strict.state().stuck);
    strict.alive();
    assert!(strict.may_beat() && !strict.state().stuck);
    strict.state().missing = true;
    assert!(!strict.may_beat());
    Ok(())
}

#[cfg(unix)]
#[test]
fn the_end_is_waited_for_so_long() -> Result<(), Box<dyn std::error::Error>> {
    let shared = Shared::new(settings(1.0, 1.0, None)?, CString::default(), Vec::new())?;
    assert!(!shared.wait_for_end(Duration::from_millis(10)));
    shared.stop();
    assert!(shared.stopping());
    shared.set_ended();
    assert!(shared.wait_for_end(Duration::ZERO));
    Ok(())
}
