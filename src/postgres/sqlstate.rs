//! SQLSTATE to decision: one table, with the reason for each row.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::readthrough::origin::OriginError;

/// What a code means for a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Not reachable, or not now.
    Away,
    /// Cancelled: by its deadline, or by us.
    Cancelled,
    /// A conflict with other transactions: once more may succeed.
    Conflict,
    /// A parameter's value is refused.
    Refused,
    /// What was prepared is not valid any more: prepare again.
    Outdated,
    /// The query fails.
    Broken,
}

/// The table. A prefix of two is a class; the first row that matches counts.
const TABLE: &[(&str, Meaning)] = &[
    // Connection exceptions: the link, not the query.
    ("08", Meaning::Away),
    // Out of resources: too many connections, memory, disk. It may pass.
    ("53", Meaning::Away),
    // Cancelled on request, or by statement_timeout.
    ("57014", Meaning::Cancelled),
    // Shutdown, crash of another backend, starting up, database dropped.
    ("57P", Meaning::Away),
    // Serialization failure, deadlock: the transaction was chosen to give way.
    ("40001", Meaning::Conflict),
    ("40P01", Meaning::Conflict),
    // "cached plan must not change result type": DDL since it was prepared.
    ("0A000", Meaning::Outdated),
    // The prepared statement is gone (a pooler in between, DISCARD ALL).
    ("26000", Meaning::Outdated),
    // Values that a type doesn't take, or an expression can't: from a parameter.
    ("22P02", Meaning::Refused),
    ("22P03", Meaning::Refused),
    ("22001", Meaning::Refused),
    ("22003", Meaning::Refused),
    ("22007", Meaning::Refused),
    ("22008", Meaning::Refused),
    ("22009", Meaning::Refused),
    ("22021", Meaning::Refused),
    ("22023", Meaning::Refused),
    ("2201W", Meaning::Refused),
    ("2201X", Meaning::Refused),
    ("2201B", Meaning::Refused),
    ("22P05", Meaning::Refused),
];

/// The meaning of a code.
pub(super) fn meaning(code: &str) -> Meaning {
    TABLE.iter().find(|(prefix, _)| code.starts_with(prefix)).map_or(Meaning::Broken, |(_, meaning)| *meaning)
}

/// The meaning of an error of the client library: without a code, the link failed.
pub(super) fn meaning_of(error: &Error) -> Meaning {
    match error.code() {
        // 0A000 is every "feature not supported"; only the plan's change is cured by preparing again.
        Some(code) if *code == SqlState::FEATURE_NOT_SUPPORTED => {
            let plan = error.as_db_error().is_some_and(|e| e.message().contains("cached plan must not change"));
            if plan { Meaning::Outdated } else { Meaning::Broken }
        }
        Some(code) => meaning(code.code()),
        None => Meaning::Away,
    }
}

/// The error as the read path knows it, after retries.
pub(super) fn outcome(error: &Error) -> OriginError {
    let said = describe(error);
    match meaning_of(error) {
        Meaning::Away => OriginError::Away(said),
        Meaning::Cancelled => OriginError::Timeout,
        Meaning::Conflict => OriginError::Conflict(said),
        Meaning::Refused => OriginError::Refused(said),
        Meaning::Outdated | Meaning::Broken => OriginError::Broken(said),
    }
}

/// The server's message and code, or the link's failure; for the log and for `check`. No connection string is in it.
pub(super) fn describe(error: &Error) -> String {
    let mut said;
    if let Some(db) = error.as_db_error() {
        said = format!("{} (SQLSTATE {})", db.message(), db.code().code());
        if let Some(hint) = db.hint() {
            said.push_str("; hint: ");
            said.push_str(hint);
        }
    } else {
        said = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !said.contains(&text) {
                said.push_str(": ");
                said.push_str(&text);
            }
            cause = inner.source();
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_reachable_and_what_is_not_in_the_table_is_the_querys_fault() {
        for (i, (prefix, expected)) in TABLE.iter().enumerate() {
            let code = format!("{prefix:0<5}");
            assert_eq!(meaning(&code), *expected, "row {i}: {code}");
        }
        for code in ["42P01", "42703", "42883", "42501", "25006", "P0001", "22012", "XX000", "42P18", "55000"] {
            assert_eq!(meaning(code), Meaning::Broken, "{code}");
        }
    }
}
