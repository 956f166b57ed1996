//! What each SQLSTATE means for a fill: one table, most specific first, each row with its reason.

/// What to do about a statement that Postgres ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Postgres is away or out of resources: later, or over another connection.
    Away,
    /// It was cancelled.
    Timeout,
    /// Other transactions were in the way: once more, then later.
    Conflict,
    /// The prepared statement is no longer what it was, or what it names has changed: prepare anew, and once more.
    Reshape,
    /// A parameter's value is not taken, where there are parameters.
    Refused,
    /// The answer is larger than Postgres can build.
    TooLarge,
    /// The query itself fails.
    Broken,
}

use Decision::{Away, Broken, Conflict, Refused, Reshape, Timeout, TooLarge};

/// Codes and classes (two characters); the first row that a code begins with decides.
const TABLE: &[(&str, Decision, &str)] = &[
    ("08", Away, "the connection failed"),
    ("0A000", Reshape, "\"cached plan must not change result type\"; a feature that is missing fails again"),
    ("22", Refused, "a value is out of range or not of its type: in a statement that worked, a parameter's"),
    ("23", Refused, "a domain's constraint; a statement that only reads violates no other"),
    ("25006", Broken, "it writes, and fills are read-only"),
    ("25P03", Away, "the session was ended for idling in a transaction"),
    ("25P04", Away, "the session was ended for a transaction's length"),
    ("26", Reshape, "the session lost the prepared statement: DISCARD, or a pooler gave another session"),
    ("28", Away, "the role was locked out while it was connected"),
    ("3D000", Away, "the database is gone, or not there yet"),
    ("3F000", Reshape, "a schema was dropped or renamed"),
    ("40", Conflict, "serialization failure, deadlock, or the server's recovery cancelled it"),
    ("42501", Broken, "a grant is missing; preparing doesn't look at grants, so it would not help"),
    ("42703", Reshape, "a column was dropped or renamed"),
    ("42704", Reshape, "a type was dropped or renamed"),
    ("42725", Reshape, "a function was added that makes a call ambiguous"),
    ("42804", Reshape, "a column's type was changed"),
    ("42846", Reshape, "a column's type was changed"),
    ("42883", Reshape, "a function was dropped, or a column's type was changed"),
    ("42P01", Reshape, "a table was dropped or renamed"),
    ("42P05", Reshape, "another session's prepared statement of this name, behind a pooler"),
    ("42P18", Reshape, "a parameter's type can't be inferred any more"),
    ("53", Away, "out of connections, memory or disk: the server's trouble and not the query's"),
    ("54000", TooLarge, "json_agg stops at 1 GB, the most that a value can have"),
    ("55P03", Conflict, "the role's lock_timeout; someone holds a lock"),
    ("57014", Timeout, "statement_timeout, or an operator cancelled it"),
    ("57P", Away, "shutting down, crashed, starting up, database dropped, idle too long"),
    ("58", Away, "the operating system fails the server"),
    ("72000", Conflict, "the snapshot became too old"),
];

/// What `code` means; whatever is not in the table is the operator's to repair.
pub(super) fn decision(code: &str) -> Decision {
    TABLE.iter().find(|(prefix, ..)| code.starts_with(prefix)).map_or(Broken, |(_, decision, _)| *decision)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code of PostgreSQL 18's `errcodes.txt` that begins an error, by what is expected of it.
    const EXPECTED: &[(Decision, &str)] = &[
        (
            Away,
            "08000 08001 08003 08004 08006 08007 08P01 25P03 25P04 28000 28P01 3D000 53000 53100 53200 53300 53400 \
             57P01 57P02 57P03 57P04 57P05 58000 58030 58P01 58P02 58P03",
        ),
        (Timeout, "57014"),
        (Conflict, "40000 40001 40002 40003 40P01 55P03 72000"),
        (Reshape, "0A000 26000 3F000 42703 42704 42725 42804 42846 42883 42P01 42P05 42P18"),
        (
            Refused,
            "22000 22001 22002 22003 22004 22005 22007 22008 22009 2200B 2200C 2200D 2200F 2200G 2200H 2200L 2200M \
             2200N 2200S 2200T 22010 22011 22012 22013 22014 22015 22016 22018 22019 2201B 2201E 2201F 2201G 2201W \
             2201X 22021 22022 22023 22024 22025 22026 22027 2202E 2202G 2202H 22030 22031 22032 22033 22034 22035 \
             22036 22037 22038 22039 2203A 2203B 2203C 2203D 2203E 2203F 2203G 22P01 22P02 22P03 22P04 22P05 22P06 \
             23000 23001 23502 23503 23505 23514 23P01",
        ),
        (TooLarge, "54000"),
        (
            Broken,
            "03000 09000 0B000 0F000 0F001 0L000 0LP01 0P000 0Z000 0Z002 10608 20000 21000 24000 25000 25001 25002 \
             25003 25004 25005 25006 25007 25008 25P01 25P02 27000 2B000 2BP01 2D000 2F000 2F002 2F003 2F004 2F005 \
             34000 38000 38001 38002 38003 38004 39000 39001 39004 39P01 39P02 39P03 3B000 3B001 42000 42501 42601 \
             42602 42611 42622 42701 42702 42710 42712 42723 42803 42809 42830 428C9 42939 42P02 42P03 42P04 42P06 \
             42P07 42P08 42P09 42P10 42P11 42P12 42P13 42P14 42P15 42P16 42P17 42P19 42P20 42P21 42P22 44000 54001 \
             54011 54023 55000 55006 55P02 55P04 57000 F0000 F0001 HV000 HV00B P0000 P0001 P0002 P0003 P0004 XX000 \
             XX001 XX002",
        ),
    ];

    #[test]
    fn every_code_of_postgres_has_the_decision_that_is_expected() {
        for (expected, codes) in EXPECTED {
            for code in codes.split_ascii_whitespace() {
                assert_eq!(decision(code), *expected, "{code}");
            }
        }
    }

    #[test]
    fn a_users_own_code_is_the_operators_to_repair() {
        assert_eq!(decision("U0001"), Broken);
        assert_eq!(decision(""), Broken);
    }

    #[test]
    fn no_row_of_the_table_is_hidden_by_an_earlier_one() {
        for (i, (prefix, ..)) in TABLE.iter().enumerate() {
            let first = TABLE.iter().position(|(earlier, ..)| prefix.starts_with(earlier));
            assert_eq!(first, Some(i), "{prefix}");
        }
    }
}
