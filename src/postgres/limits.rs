//! Whether a query takes some of its rows without saying which: LIMIT without ORDER BY.
//!
//! By words at the outermost level, outside of strings, names and comments. A hint for operators: it may miss one (a
//! LIMIT in a subquery), and it decides nothing.

/// Whether the outermost level of `sql` has LIMIT or FETCH and no ORDER. The text is one that
/// [`crate::catalog::sql::Statement::parse`] took, so what begins in it also ends.
pub(super) fn takes_some(sql: &str) -> bool {
    let (mut limited, mut ordered) = (false, false);
    let mut depth = 0_i32;
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            '\'' => quoted(rest, '\'', false),
            '"' => quoted(rest, '"', false),
            '$' => dollar(rest),
            '(' | '[' => {
                depth += 1;
                1
            }
            ')' | ']' => {
                depth -= 1;
                1
            }
            c if c == '_' || c.is_alphabetic() => {
                let end = rest.find(|c: char| c != '_' && c != '$' && !c.is_alphanumeric()).unwrap_or(rest.len());
                let word = &rest[..end];
                if depth == 0 {
                    limited |= word.eq_ignore_ascii_case("limit") || word.eq_ignore_ascii_case("fetch");
                    ordered |= word.eq_ignore_ascii_case("order");
                }
                match rest[end..].chars().next() {
                    Some('\'') if word.eq_ignore_ascii_case("e") => end + quoted(&rest[end..], '\'', true),
                    _ => end,
                }
            }
            c => c.len_utf8(),
        };
        rest = &rest[length..];
    }
    limited && !ordered
}

/// Length of what is quoted at the start of `text`; a doubled quote ends one part and begins the next, which is as good.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Length of the comment at the start of `text`; comments nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of the dollar-quoted string at the start of `text`, or of the lone `$`.
fn dollar(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    let inner = &tag[1..tag.len() - 1];
    let is_tag =
        !inner.starts_with(|c: char| c.is_ascii_digit()) && inner.chars().all(|c| c == '_' || c.is_alphanumeric());
    if !is_tag {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::takes_some;

    #[test]
    fn a_limit_without_order_by_is_found() {
        for sql in ["select a from t limit 10", "SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "select $1 limit $2"] {
            assert!(takes_some(sql), "{sql}");
        }
        assert!(takes_some("select * from (select a from t order by a) s limit 1"), "an inner order says nothing");
    }

    #[test]
    fn an_order_a_string_a_comment_and_a_subquery_are_not_it() {
        for sql in [
            "select a from t order by a limit 10",
            "select 'limit' as a",
            "select 'it''s limit'",
            r"select e'\' limit '",
            "select \"limit\" from t",
            "select $$ limit $$, $x$ limit $x$",
            "select a -- limit\nfrom t",
            "select a /* limit /* limit */ limit */ from t",
            "select a from (select a from t limit 1) s",
            "select a$limit, ünlimit from t",
        ] {
            assert!(!takes_some(sql), "{sql}");
        }
    }
}
