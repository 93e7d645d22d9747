//! The claim statements of a lane, built from the templates in `storage/sql`.
//!
//! A job goes to the first lane whose filters all match, so a lane's predicate is its own filters and not those of any
//! lane before it. Values never enter the text: a lane's filters become parameters, numbered lane by lane.

use std::fmt::{self, Write as _};

use pyo3::prelude::*;

const SCHEMA_TOKEN: &str = ":\"schema\"";
const MARKER: &str = "-- lane: ";
/// PostgreSQL's protocol counts parameters in 16 bits.
const MOST_PARAMETERS: u32 = 65_535;

/// Why no statement can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimError {
    /// There is no lane.
    NoLane,
    /// A marker that is neither serial nor parallel.
    UnknownMarker(String),
    /// No marker, or no `-- lane: serial` for a lane of queues: every parameter must be mentioned.
    NoMarker,
    /// A first parameter of 0, or more parameters than PostgreSQL takes.
    Parameters(u32),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLane => write!(out, "lanes = []: expected the lane itself at least"),
            Self::UnknownMarker(line) => {
                write!(out, "template: {line:?}: expected '-- lane: serial' or '-- lane: parallel'")
            }
            Self::NoMarker => {
                write!(out, "template: expected a line '-- lane: serial', or '-- lane: parallel' and no lane of queues")
            }
            Self::Parameters(number) => {
                write!(out, "first_param: ${number} is not a parameter: expected $1 to ${MOST_PARAMETERS}")
            }
        }
    }
}

impl std::error::Error for ClaimError {}

/// The filters that a lane has: tasks, queues, priority.
pub type Shape = (bool, bool, bool);

/// A lane's filters by the numbers of their parameters.
#[derive(Debug, Clone, Copy)]
struct Filters {
    tasks: Option<u32>,
    queues: Option<u32>,
    priority: Option<(u32, u32)>,
}

impl Filters {
    fn conditions(&self) -> Vec<String> {
        let mut found = Vec::with_capacity(3);
        if let Some(number) = self.tasks {
            found.push(format!("jobs.task_id = any (${number}::integer[])"));
        }
        if let Some(number) = self.queues {
            found.push(format!("queues.queue_name ~ any (${number}::text[])"));
        }
        if let Some((low, high)) = self.priority {
            found.push(format!("jobs.priority between ${low}::smallint and ${high}::smallint"));
        }
        found
    }
}

fn number_filters(shapes: &[Shape], first: u32) -> Result<Vec<Filters>, ClaimError> {
    let mut next = first;
    let mut take = |wanted: bool| -> Result<Option<u32>, ClaimError> {
        if !wanted {
            return Ok(None);
        }
        let number = next;
        if number == 0 || number > MOST_PARAMETERS {
            return Err(ClaimError::Parameters(number));
        }
        next += 1;
        Ok(Some(number))
    };
    shapes
        .iter()
        .map(|&(tasks, queues, priority)| {
            let (tasks, queues) = (take(tasks)?, take(queues)?);
            let priority = take(priority)?.zip(take(priority)?);
            Ok(Filters { tasks, queues, priority })
        })
        .collect()
}

/// The lines of a lane's predicate. A lane with a queue filter takes serial jobs only.
fn predicate(own: &Filters, before: &[Filters], serial: bool) -> Vec<String> {
    if !serial && own.queues.is_some() {
        return vec!["and false".to_owned()];
    }
    let mut lines: Vec<String> = own.conditions().iter().map(|condition| format!("and {condition}")).collect();
    for lane in before {
        if !serial && lane.queues.is_some() {
            continue;
        }
        let conditions = lane.conditions();
        if conditions.is_empty() {
            lines.push("and false".to_owned());
        } else {
            lines.push(format!("and not ({})", conditions.join(" and ")));
        }
    }
    lines
}

/// Adds a line of the template, with the schema's name in the place of its token.
fn push_line(text: &mut String, line: &str, schema: &str) {
    for (number, piece) in line.split(SCHEMA_TOKEN).enumerate() {
        if number > 0 {
            text.push_str(schema);
        }
        text.push_str(piece);
    }
    text.push('\n');
}

/// Fills a template for the last of the lanes.
pub fn build(template: &str, schema: &str, shapes: &[Shape], first: u32) -> Result<String, ClaimError> {
    let filters = number_filters(shapes, first)?;
    let (own, before) = filters.split_last().ok_or(ClaimError::NoLane)?;
    let mut text = String::with_capacity(template.len() * 2);
    let mut marked = false;
    for line in template.lines() {
        let body = line.trim_start();
        let Some(kind) = body.strip_prefix(MARKER) else {
            // Comments are for those who read the file: the server is not sent them.
            if !body.starts_with("--") {
                push_line(&mut text, line, schema);
            }
            continue;
        };
        let serial = match kind.trim_end() {
            "serial" => true,
            "parallel" => false,
            _ => return Err(ClaimError::UnknownMarker(body.to_owned())),
        };
        marked |= serial || filters.iter().all(|lane| lane.queues.is_none());
        let indent = line.get(..line.len() - body.len()).unwrap_or_default();
        for condition in predicate(own, before, serial) {
            let _ = writeln!(text, "{indent}{condition}");
        }
    }
    if marked { Ok(text) } else { Err(ClaimError::NoMarker) }
}

/// The text of a claim statement for one lane.
///
/// `template` has lines `-- lane: serial` (`jobs` and `queues` are in scope there) and `-- lane: parallel` (`jobs` is),
/// each replaced by the lane's predicate; at least one, and a serial one if any lane filters queues. `schema` is the
/// quoted name that replaces `:"schema"`. Lines that are comments are left out. `lanes` says for each lane up to and
/// including this one, the last, which filters it has: tasks, queues, priority. Their parameters are numbered from
/// `first_param`, lane by lane: tasks integer[], queues text[] (regular expressions), priority two smallints (lowest,
/// highest).
///
/// Raises ConfigurationError for a template without a marker or with an unknown one, for no lane, and for too many
/// parameters.
#[pyfunction]
#[pyo3(signature = (template, schema, lanes, first_param))]
pub fn claim_statement(
    template: &str,
    schema: &str,
    lanes: Vec<Shape>,
    first_param: u32,
) -> Result<String, ClaimError> {
    build(template, schema, &lanes, first_param)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "select :\"schema\".x\n  -- lane: parallel\nwhere\n    -- lane: serial\nend\n";

    #[test]
    fn a_lane_alone_keeps_its_own_filters() {
        let text = build(TEMPLATE, "\"s\"", &[(true, false, true)], 4).unwrap();
        let own = "and jobs.task_id = any ($4::integer[])";
        let range = "and jobs.priority between $5::smallint and $6::smallint";
        assert_eq!(text, format!("select \"s\".x\n  {own}\n  {range}\nwhere\n    {own}\n    {range}\nend\n"));
    }

    #[test]
    fn comments_are_left_out() {
        let text =
            build("-- does: it\nselect 1\n  -- why\n  -- lane: parallel\n", "s", &[(false, false, false)], 1).unwrap();
        assert_eq!(text, "select 1\n");
    }

    #[test]
    fn earlier_lanes_are_left_out() {
        let text = build(TEMPLATE, "s", &[(true, true, false), (false, false, true), (true, false, false)], 1).unwrap();
        let range = "and not (jobs.priority between $3::smallint and $4::smallint)";
        let own = "and jobs.task_id = any ($5::integer[])";
        let first = "and not (jobs.task_id = any ($1::integer[]) and queues.queue_name ~ any ($2::text[]))";
        assert_eq!(text, format!("select s.x\n  {own}\n  {range}\nwhere\n    {own}\n    {first}\n    {range}\nend\n"));
    }

    #[test]
    fn a_lane_of_queues_takes_no_parallel_jobs() {
        let text = build(TEMPLATE, "s", &[(false, true, false)], 1).unwrap();
        assert!(text.contains("  and false\nwhere\n    and queues.queue_name ~ any ($1::text[])\n"));
    }

    #[test]
    fn refuses_what_it_cannot_fill() {
        assert_eq!(build(TEMPLATE, "s", &[], 1), Err(ClaimError::NoLane));
        assert_eq!(build("select 1", "s", &[(true, false, false)], 1), Err(ClaimError::NoMarker));
        assert_eq!(build(TEMPLATE, "s", &[(true, false, false)], 0), Err(ClaimError::Parameters(0)));
        assert_eq!(build(TEMPLATE, "s", &[(true, true, false)], 65_535), Err(ClaimError::Parameters(65_536)));
        assert!(matches!(build("-- lane: odd", "s", &[(true, false, false)], 1), Err(ClaimError::UnknownMarker(_))));
    }
}
