//! The one statement of a fill: the operator's SQL within what stamps, bounds and aggregates it.
//!
//! Rows, snapshot and lineage come from one statement, so they share a snapshot. Bounds are measured before anything is
//! transferred: of what exceeds them only the count and the length come over. Postgres makes the JSON, and from then on
//! it is bytes.
//!
//! Columns of the result, in this order: snapshot, lineage (NULL in recovery), rows, bytes, body (NULL beyond a bound).
//! The names `pg_catalog` provides are qualified: a search path may put others first.

use crate::catalog::ResultForm;

use super::lineage;

/// The alias of the operator's rows. A column of that name would be aggregated in their place, so it is refused.
pub(super) const ROW_ALIAS: &str = "__seawall_row";

/// What an answer may be at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) rows: u32,
    pub(super) bytes: u64,
}

/// The statement for `sql`, whose only column is `value_column` where the form is `value`.
///
/// The newline ends a trailing `--` comment. `octet_length` of a value in memory is read from its header, so it costs
/// nothing to write it where it is needed.
pub(super) fn wrap(sql: &str, form: ResultForm, value_column: &str, bounds: Bounds) -> String {
    let row = match form {
        ResultForm::Rows | ResultForm::Row => ROW_ALIAS.to_owned(),
        ResultForm::Value => format!("{ROW_ALIAS}.{}", identifier(value_column)),
    };
    let most = bounds.rows;
    let one_more = u64::from(most) + 1;
    let bytes = bounds.bytes.saturating_add(brackets(form)).min(i64::MAX.unsigned_abs());
    let lineage = lineage::EXPRESSION;
    format!(
        "SELECT s, l, n, b, CASE WHEN n <= {most} AND b <= {bytes} THEN j END FROM \
         (SELECT s, l, n, j, pg_catalog.octet_length(j) AS b FROM \
         (SELECT pg_catalog.pg_current_snapshot()::text AS s, {lineage} AS l, pg_catalog.count(*) AS n, \
         coalesce(pg_catalog.json_agg({row}), '[]')::text AS j FROM \
         (SELECT * FROM ({sql}\n) AS {ROW_ALIAS} LIMIT {one_more}) AS {ROW_ALIAS}) AS m) AS m"
    )
}

/// Bytes of the array around a single row, which are not a part of its answer.
pub(super) const fn brackets(form: ResultForm) -> u64 {
    match form {
        ResultForm::Rows => 0,
        ResultForm::Row | ResultForm::Value => 2,
    }
}

/// The answer within the array that Postgres made, in a buffer of exactly its size; `None`: no row for a form that needs one.
pub(super) fn body(form: ResultForm, rows: u64, array: &[u8]) -> Option<Box<[u8]>> {
    match form {
        ResultForm::Rows => Some(array.into()),
        ResultForm::Row | ResultForm::Value if rows == 0 => None,
        ResultForm::Row | ResultForm::Value => array.get(1..array.len().saturating_sub(1)).map(Box::from),
    }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_comment_ends_before_the_parenthesis() {
        let sql = wrap("SELECT 1 -- x", ResultForm::Rows, "", Bounds { rows: 10, bytes: 100 });
        assert!(sql.contains("SELECT 1 -- x\n) AS __seawall_row LIMIT 11"), "{sql}");
        assert!(sql.contains("n <= 10 AND b <= 100"), "{sql}");
    }

    #[test]
    fn a_column_name_is_quoted_and_brackets_are_not_counted() {
        let sql = wrap("q", ResultForm::Value, "a\"b", Bounds { rows: 1, bytes: 100 });
        assert!(sql.contains(r#"json_agg(__seawall_row."a""b")"#), "{sql}");
        assert!(sql.contains("n <= 1 AND b <= 102"), "{sql}");
    }

    #[test]
    fn the_largest_bounds_are_still_numbers_of_postgres() {
        let sql = wrap("q", ResultForm::Row, "", Bounds { rows: u32::MAX, bytes: u64::MAX });
        assert!(sql.contains("n <= 4294967295 AND b <= 9223372036854775807"), "{sql}");
        assert!(sql.contains("LIMIT 4294967296"), "{sql}");
    }

    #[test]
    fn a_single_row_loses_its_brackets_and_no_row_has_no_body() {
        assert_eq!(body(ResultForm::Rows, 0, b"[]").as_deref(), Some(&b"[]"[..]));
        assert_eq!(body(ResultForm::Row, 1, b"[{\"a\":1}]").as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(body(ResultForm::Value, 1, b"[null]").as_deref(), Some(&b"null"[..]));
        assert_eq!(body(ResultForm::Value, 0, b"[]"), None);
    }
}
