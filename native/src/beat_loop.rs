//! The heartbeat's thread: it connects, beats, rests and starts anew, and calls nothing of Python.

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::beat::{Plan, Shared};
use crate::libpq_connection::{Connection, Outcome, Progress, Row, wait, without_signals};

/// How long to rest at most before looking again whether the loop turns.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Why there was no beat.
#[derive(Debug)]
enum Failure {
    /// The thread is to end.
    Stopped,
    /// No connection was to be had.
    Refused(String),
    /// The connection is of no use any more.
    Lost(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Lost(text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(format!("waiting for the server failed: {error}"))
    }
}

/// A connection, and whether a beat has succeeded on it.
struct Link {
    connection: Connection,
    proven: bool,
}

/// Notes the thread's end, whatever its cause.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.connected = false;
        state.unbroken = None;
        if std::thread::panicking() {
            state.failure = Some("the heartbeat's thread ended by a fault of its own".to_owned());
            self.0.news.wake();
        }
        drop(state);
        self.0.set_ended();
    }
}

/// Start the thread; no signal ever reaches it.
pub fn spawn(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let theirs = Arc::clone(shared);
    without_signals(|| Builder::new().name("backfill-beat".to_owned()).spawn(move || run(theirs)))
}

fn run(shared: Arc<Shared>) {
    let end = End(shared);
    let shared = &*end.0;
    let mut plan = Plan::new(shared.settings.interval, Instant::now());
    let mut link = None;
    let mut turn = 0;
    while !shared.stopping() {
        let now = Instant::now();
        if std::mem::take(&mut shared.state().hurry) {
            plan.hurry(now);
        }
        let may_beat = shared.may_beat();
        let failed = if may_beat && plan.due() <= now {
            plan.begin(now);
            beat(shared, &mut link, turn).map(|()| plan.succeeded())
        } else {
            let rest = now + shared.settings.interval.min(LONGEST_REST);
            idle(shared, &mut link, if may_beat { plan.due() } else { rest })
        };
        match failed {
            Ok(()) => {}
            Err(Failure::Stopped) => break,
            Err(Failure::Refused(text)) => {
                turn = turn.wrapping_add(1);
                fail(shared, &mut plan, &mut link, text, true);
            }
            Err(Failure::Lost(text)) => fail(shared, &mut plan, &mut link, text, false),
        }
    }
    drop(link);
}

fn fail(shared: &Shared, plan: &mut Plan, link: &mut Option<Link>, text: String, refused: bool) {
    let proven = link.take().is_some_and(|link| link.proven);
    plan.failed(Instant::now(), proven, fastrand::f64());
    shared.state().failed(text, refused);
    shared.news.wake();
}

/// One beat, on a new connection where there is none.
fn beat(shared: &Shared, link: &mut Option<Link>, turn: usize) -> Result<(), Failure> {
    let link = match link {
        Some(link) => link,
        None => {
            let connection = connect(shared, turn)?;
            shared.state().connected = true;
            link.insert(Link { connection, proven: false })
        }
    };
    let (mut parameters, version) = {
        let state = shared.state();
        (state.parameters.clone(), state.version)
    };
    parameters.push(CString::new(format!("{:.3}", shared.lag().as_secs_f64())).ok());
    let values: Vec<Option<&CStr>> = parameters.iter().map(Option::as_deref).collect();
    let sent = Instant::now();
    let until = sent + shared.settings.timeout;
    if let Some(begin) = &shared.settings.begin {
        ask(shared, &mut link.connection, begin, &[], until)?;
    }
    let Outcome::Rows(row) = ask(shared, &mut link.connection, &shared.settings.statement, &values, until)? else {
        return Err(Failure::Lost("the statement gives no rows; expected one with `returning`".to_owned()));
    };
    if shared.settings.begin.is_some() {
        ask(shared, &mut link.connection, c"commit", &[], until)?;
    }
    link.proven = true;
    note(shared, row, version, sent);
    Ok(())
}

fn note(shared: &Shared, row: Option<Row>, version: u64, sent: Instant) {
    // The lock ends with the statement: whoever is woken takes it.
    let news = shared.state().answered(row, version, sent);
    if news {
        shared.news.wake();
    }
}

/// A new connection, set up; in the time that a beat has. Of several hosts another is first at each `turn`.
fn connect(shared: &Shared, turn: usize) -> Result<Connection, Failure> {
    let refused = |failure| match failure {
        Failure::Lost(text) => Failure::Refused(text),
        other => other,
    };
    let until = Instant::now() + shared.settings.timeout;
    let conninfo = shared.state().conninfo.clone();
    let mut connection = establish(shared, &conninfo, turn, until).map_err(refused)?;
    for command in &shared.settings.setup {
        ask(shared, &mut connection, command, &[], until)?;
    }
    Ok(connection)
}

fn establish(shared: &Shared, conninfo: &CStr, turn: usize, until: Instant) -> Result<Connection, Failure> {
    let mut connection = Connection::open(conninfo, turn)?;
    let mut progress = Progress::Writing;
    while progress != Progress::Open {
        let socket = (connection.socket()?, progress == Progress::Reading, progress == Progress::Writing);
        let ready = pause(shared, socket, until)?;
        // Looked at even while the server sends and sends.
        if Instant::now() >= until {
            return Err(Failure::Lost(late(shared, "connecting")));
        }
        if ready {
            progress = connection.advance()?;
        }
    }
    Ok(connection)
}

/// What a statement gives, in time.
fn ask(
    shared: &Shared,
    connection: &mut Connection,
    statement: &CStr,
    parameters: &[Option<&CStr>],
    until: Instant,
) -> Result<Outcome, Failure> {
    connection.send(statement, parameters)?;
    let mut outcome = Outcome::Done;
    loop {
        let sent = connection.flush()?;
        while !connection.is_busy() {
            match connection.next_outcome()? {
                None => return Ok(outcome),
                Some(Outcome::Refused(text)) => return Err(Failure::Lost(text)),
                Some(other) => outcome = other,
            }
        }
        let ready = pause(shared, (connection.socket()?, true, !sent), until)?;
        if Instant::now() >= until {
            return Err(Failure::Lost(late(shared, "the server's answer")));
        }
        if ready {
            connection.consume()?;
        }
    }
}

/// Rest, reading what the server says unasked, until a time, an order, or the connection's end.
fn idle(shared: &Shared, link: &mut Option<Link>, until: Instant) -> Result<(), Failure> {
    let Some(link) = link else {
        let ready = wait(None, shared.orders.descriptor(), until);
        return heed(shared, ready?.orders);
    };
    let ready = wait(Some((link.connection.socket()?, true, false)), shared.orders.descriptor(), until)?;
    heed(shared, ready.orders)?;
    if ready.socket {
        link.connection.consume()?;
    }
    Ok(())
}

/// Wait for the socket; whether it is ready. Orders are noted, and only the one to end cuts the wait short.
fn pause(shared: &Shared, socket: (c_int, bool, bool), until: Instant) -> Result<bool, Failure> {
    let ready = wait(Some(socket), shared.orders.descriptor(), until)?;
    heed(shared, ready.orders)?;
    Ok(ready.socket)
}

fn heed(shared: &Shared, orders: bool) -> Result<(), Failure> {
    if orders {
        shared.orders.clear();
    }
    if shared.stopping() { Err(Failure::Stopped) } else { Ok(()) }
}

fn late(shared: &Shared, what: &str) -> String {
    format!("{what} took longer than {} seconds", shared.settings.timeout.as_secs_f64())
}
