//! Claimed rows to `Job` objects: the core reads columns of PostgreSQL's binary format from any table, and knows no
//! Python.
//!
//! A value of a length that its type cannot have is an error that names the column; everything else is a job, whatever
//! the row holds: texts that are not UTF-8 get replacement characters, times stay numbers until somebody asks for them.

use std::fmt;

/// Rows and columns in binary format, wherever they are.
pub trait Table {
    /// How many rows there are.
    fn rows(&self) -> usize;
    /// How many columns there are.
    fn columns(&self) -> usize;
    /// A column's name.
    fn name(&self, column: usize) -> Option<&[u8]>;
    /// A value; none where it is null, or beyond the table.
    fn value(&self, row: usize, column: usize) -> Option<&[u8]>;
}

/// Why rows cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowError {
    /// A column that no job has.
    UnknownColumn(String),
    /// A value whose length is not its type's.
    Length(&'static str, usize, usize),
}

impl fmt::Display for RowError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownColumn(name) => write!(out, "column {name:?}: no job has it"),
            Self::Length(name, found, expected) => {
                write!(out, "column {name}: a value of {found} bytes, expected {expected}")
            }
        }
    }
}

impl std::error::Error for RowError {}

/// Columns that a claim has beside those of a job: how many of the jobs that it found it took, where it ended, and
/// which version of a row it saw.
const BESIDE: [&[u8]; 4] = [b"fits", b"place", b"ctid", b"xmin"];

macro_rules! columns {
    ($($name:ident),* $(,)?) => {
        /// Where each column of a job stands in a table, if it does.
        #[derive(Debug, Clone, Copy, Default)]
        pub struct Columns { $($name: Option<usize>,)* }

        impl Columns {
            /// The places of a table's columns by their names, in any order.
            pub fn of(table: &impl Table) -> Result<Self, RowError> {
                let mut found = Self::default();
                for column in 0..table.columns() {
                    let name = table.name(column).unwrap_or_default();
                    if BESIDE.contains(&name) {
                        continue;
                    }
                    $(if name == stringify!($name).as_bytes() { found.$name = Some(column); continue; })*
                    return Err(RowError::UnknownColumn(String::from_utf8_lossy(name).into_owned()));
                }
                Ok(found)
            }
        }
    };
}

columns!(
    id,
    task_id,
    task_identifier,
    job_queue_id,
    queue_name,
    payload,
    priority,
    run_at,
    attempts,
    max_attempts,
    last_error,
    created_at,
    updated_at,
    key,
    locked_at,
    locked_by,
    revision,
    flags,
);

/// A row's values; what is borrowed is still the table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the columns of the contract's table, by their names
pub struct Row<'a> {
    pub id: i64,
    pub task_id: i32,
    pub task_identifier: Option<&'a [u8]>,
    pub job_queue_id: Option<i32>,
    pub queue_name: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    pub priority: i16,
    pub run_at: i64,
    pub attempts: i16,
    pub max_attempts: i16,
    pub last_error: Option<&'a [u8]>,
    pub created_at: i64,
    pub updated_at: i64,
    pub key: Option<&'a [u8]>,
    pub locked_at: Option<i64>,
    pub locked_by: Option<&'a [u8]>,
    pub revision: i32,
    pub flags: Option<&'a [u8]>,
}

/// PostgreSQL's first `max_attempts`, for a table without that column.
const DEFAULT_MAX_ATTEMPTS: i16 = 25;

/// One row of a table.
pub fn read<'a>(table: &'a impl Table, columns: &Columns, row: usize) -> Result<Row<'a>, RowError> {
    let bytes = |column: Option<usize>| column.and_then(|column| table.value(row, column));
    macro_rules! number {
        ($name:ident, $kind:ty) => {
            match bytes(columns.$name) {
                None => None,
                Some(raw) => Some(<$kind>::from_be_bytes(
                    raw.try_into().map_err(|_| RowError::Length(stringify!($name), raw.len(), size_of::<$kind>()))?,
                )),
            }
        };
    }
    Ok(Row {
        id: number!(id, i64).unwrap_or_default(),
        task_id: number!(task_id, i32).unwrap_or_default(),
        task_identifier: bytes(columns.task_identifier),
        job_queue_id: number!(job_queue_id, i32),
        queue_name: bytes(columns.queue_name),
        payload: bytes(columns.payload),
        priority: number!(priority, i16).unwrap_or_default(),
        run_at: number!(run_at, i64).unwrap_or_default(),
        attempts: number!(attempts, i16).unwrap_or_default(),
        max_attempts: number!(max_attempts, i16).unwrap_or(DEFAULT_MAX_ATTEMPTS),
        last_error: bytes(columns.last_error),
        created_at: number!(created_at, i64).unwrap_or_default(),
        updated_at: number!(updated_at, i64).unwrap_or_default(),
        key: bytes(columns.key),
        locked_at: number!(locked_at, i64),
        locked_by: bytes(columns.locked_by),
        revision: number!(revision, i32).unwrap_or_default(),
        flags: bytes(columns.flags),
    })
}

/// All rows of a table, in the contract's order (priority, run_at, id) if asked for.
pub fn read_all<'a>(table: &'a impl Table, ordered: bool) -> Result<Vec<Row<'a>>, RowError> {
    let columns = Columns::of(table)?;
    let mut rows = (0..table.rows()).map(|row| read(table, &columns, row)).collect::<Result<Vec<_>, _>>()?;
    if ordered {
        rows.sort_unstable_by_key(|row| (row.priority, row.run_at, row.id));
    }
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Plain(Vec<&'static str>, Vec<Vec<Option<Vec<u8>>>>);

    impl Table for Plain {
        fn rows(&self) -> usize {
            self.1.len()
        }
        fn columns(&self) -> usize {
            self.0.len()
        }
        fn name(&self, column: usize) -> Option<&[u8]> {
            self.0.get(column).map(|name| name.as_bytes())
        }
        fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
            self.1.get(row)?.get(column)?.as_deref()
        }
    }

    fn bytes(value: &[u8]) -> Option<Vec<u8>> {
        Some(value.to_vec())
    }

    #[test]
    fn columns_come_in_any_order_and_may_be_missing() {
        let table =
            Plain(vec!["payload", "id"], vec![vec![bytes(b"{}"), bytes(&7_i64.to_be_bytes())], vec![None, None]]);
        let plain = Row { max_attempts: 25, ..Row::default() };
        let expected = vec![Row { id: 7, payload: Some(b"{}"), ..plain }, plain];
        assert_eq!(read_all(&table, false), Ok(expected));
    }

    #[test]
    fn a_wrong_length_names_its_column() {
        for length in [0, 1, 7, 9] {
            let table = Plain(vec!["id"], vec![vec![bytes(&vec![1; length])]]);
            assert_eq!(read_all(&table, false), Err(RowError::Length("id", length, 8)));
        }
    }

    #[test]
    fn an_unknown_column_is_refused() {
        let table = Plain(vec!["id", "colour"], vec![]);
        assert_eq!(read_all(&table, true), Err(RowError::UnknownColumn("colour".to_owned())));
    }

    #[test]
    fn a_claims_own_column_is_passed_over() {
        let table = Plain(vec!["fits", "id"], vec![vec![bytes(&[1]), bytes(&7_i64.to_be_bytes())]]);
        assert_eq!(read_all(&table, false).unwrap().first().unwrap().id, 7);
    }

    #[test]
    fn rows_can_be_put_in_order() {
        let row = |priority: i16, id: i64| vec![bytes(&priority.to_be_bytes()), bytes(&id.to_be_bytes())];
        let table = Plain(vec!["priority", "id"], vec![row(5, 1), row(-5, 9), row(-5, 2), row(0, 3)]);
        let ids: Vec<i64> = read_all(&table, true).unwrap().iter().map(|row| row.id).collect();
        assert_eq!(ids, [2, 9, 3, 1]);
    }
}
