//! Whether a trigger function's text notifies.
//!
//! A guess from the text alone, for a warning: a function that notifies through another one is not found, and one that would
//! notify only in a branch that never runs is. What merely mentions it, in a comment or a message, doesn't count.

use crate::catalog::sql::lex::{Lexer, Token};

/// The one function of contrib that notifies (`tcn`), by its name in C.
const TCN: &str = "triggered_change_notification";

/// Whether a function of `language` with this `source` (`pg_proc.prosrc`) notifies.
pub(super) fn notifies(language: &str, source: &str) -> bool {
    match language {
        "plpgsql" => plpgsql(source),
        "c" => source == TCN,
        "internal" => false,
        _ => other(source),
    }
}

/// PL/pgSQL has SQL's tokens: a call of `pg_notify`, a statement NOTIFY, or either in a text that is executed.
fn plpgsql(source: &str) -> bool {
    let mut lexer = Lexer::new(source);
    let tokens: Vec<(Token, &str)> =
        std::iter::from_fn(|| lexer.next()).map(|lexeme| (lexeme.kind, &source[lexeme.start..lexeme.end])).collect();
    let (mut declaring, mut executing) = (false, false);
    for (at, &(kind, text)) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1).map(|(kind, _)| *kind);
        let is = |word: &str| kind == Token::Word && text.eq_ignore_ascii_case(word);
        match kind {
            Token::Semicolon => executing = false,
            Token::Word if is("declare") => declaring = true,
            Token::Word if is("begin") => declaring = false,
            Token::Word if is("execute") => executing = true,
            Token::Word | Token::Quoted
                if (is("pg_notify") || text == "\"pg_notify\"") && next == Some(Token::Open) =>
            {
                return true;
            }
            // A variable may be called so: `notify boolean;` among declarations, `notify := true;` among statements.
            Token::Word if is("notify") && !declaring => {
                let before = at.checked_sub(1).and_then(|before| tokens.get(before));
                if begins_statement(before) && matches!(next, Some(Token::Word | Token::Quoted)) {
                    return true;
                }
            }
            Token::Literal if executing && executed(text) => return true,
            _ => {}
        }
    }
    false
}

/// Whether what follows `before` is a new statement. `>` ends a label.
fn begins_statement(before: Option<&(Token, &str)>) -> bool {
    match before {
        None | Some((Token::Semicolon, _) | (Token::Operator, ">")) => true,
        Some((Token::Word, word)) => {
            ["begin", "then", "else", "loop"].iter().any(|opening| word.eq_ignore_ascii_case(opening))
        }
        Some(_) => false,
    }
}

/// Whether a literal, quotes and all, is SQL that notifies, or the beginning of it.
fn executed(literal: &str) -> bool {
    let inner =
        if literal.starts_with('$') { literal.splitn(3, '$').nth(2) } else { literal.split_once('\'').map(|p| p.1) };
    let inner = inner.unwrap_or_default().to_ascii_lowercase();
    calls(&inner) || is_statement(&inner)
}

/// Other procedural languages, whose SQL is in their strings. Lines that are comments in one of them don't count.
fn other(source: &str) -> bool {
    let code = source.lines().map(str::trim_start);
    let code = code.filter(|line| !["#", "//", "--", "/*", "*"].iter().any(|comment| line.starts_with(comment)));
    code.map(str::to_ascii_lowercase).any(|line| {
        // Double quotes, single ones, backticks, and braces where they quote.
        calls(&line) || line.split(['"', '\'', '`', '{']).skip(1).any(is_statement)
    })
}

fn calls(text: &str) -> bool {
    text.match_indices("pg_notify").any(|(at, name)| {
        let within_word = text[..at].ends_with(|c: char| c == '_' || c.is_alphanumeric());
        !within_word && text[at + name.len()..].trim_start().starts_with('(')
    })
}

fn is_statement(text: &str) -> bool {
    text.trim_start().strip_prefix("notify").is_some_and(|rest| rest.starts_with(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::notifies;

    #[test]
    fn a_call_a_statement_and_an_executed_text_notify() {
        for body in [
            "BEGIN PERFORM pg_notify('c', NEW.id::text); RETURN NULL; END",
            "begin perform pg_catalog.PG_NOTIFY ('c', ''); return null; end",
            "BEGIN PERFORM \"pg_notify\"('c', ''); END",
            "BEGIN SELECT count(pg_notify('c', id::text)) INTO n FROM new_rows; END",
            "BEGIN NOTIFY changes; RETURN NULL; END",
            "BEGIN IF TG_OP = 'INSERT' THEN notify changes, 'x'; END IF; END",
            "BEGIN <<here>> NOTIFY \"Changes\"; END",
            "DECLARE notify boolean; BEGIN NOTIFY changes; END",
            "BEGIN EXECUTE 'NOTIFY changes, ' || quote_literal(NEW.id); END",
            "BEGIN EXECUTE format('notify %I', TG_ARGV[0]); END",
            "BEGIN EXECUTE $q$ SELECT pg_notify($1, $2) $q$ USING 'c', 'x'; END",
            "BEGIN EXECUTE E'NOTIFY c'; END",
        ] {
            assert!(notifies("plpgsql", body), "{body}");
        }
    }

    #[test]
    fn a_mention_is_not_a_notification() {
        for body in [
            "BEGIN -- PERFORM pg_notify('c', '');\n RETURN NULL; END",
            "BEGIN /* NOTIFY c; pg_notify('c', '') /* nested */ NOTIFY c; */ RETURN NULL; END",
            "BEGIN RAISE NOTICE 'use pg_notify(''c'', '''') here'; RETURN NULL; END",
            "BEGIN RAISE NOTICE 'notify the owner'; EXECUTE 'SELECT 1'; RETURN NULL; END",
            "BEGIN EXECUTE 'SELECT 1'; RAISE NOTICE 'notify the owner'; RETURN NULL; END",
            "DECLARE notify boolean; BEGIN notify := true; RETURN NULL; END",
            "BEGIN UPDATE t SET notify = true WHERE id = 1; RETURN NULL; END",
            "BEGIN SELECT a.notify, b INTO x, y FROM t; RETURN NULL; END",
            "BEGIN PERFORM my_pg_notify_queue('c'); PERFORM pg_notification_queue_usage(); END",
            "BEGIN pg_notify := 1; END",
            "BEGIN EXECUTE 'SELECT 1' USING 'pg_notify'; END",
            "",
        ] {
            assert!(!notifies("plpgsql", body), "{body}");
        }
    }

    #[test]
    fn a_text_that_ends_midway_is_read_to_its_end() {
        for body in ["BEGIN 'never ends", "BEGIN /* never ends", "BEGIN $$ never ends", "\"", "pg_notify", "NOTIFY"] {
            assert!(!notifies("plpgsql", body), "{body}");
        }
        assert!(notifies("plpgsql", "BEGIN PERFORM pg_notify('never ends"));
    }

    #[test]
    fn other_languages_notify_by_sql_in_their_strings() {
        for (language, body) in [
            ("plpython3u", "plpy.execute(\"NOTIFY changes\")"),
            ("plpython3u", "plan = plpy.prepare('SELECT pg_notify($1, $2)', ['text', 'text'])"),
            ("plperl", "spi_exec_query(\"notify changes, '$_TD->{new}{id}'\");"),
            ("plv8", "plv8.execute(`SELECT pg_notify('c', $1)`, [NEW.id])"),
            ("pltcl", "spi_exec {NOTIFY changes}"),
        ] {
            assert!(notifies(language, body), "{language}: {body}");
        }
        for (language, body) in [
            ("plpython3u", "# plpy.execute(\"NOTIFY changes\")\nreturn None"),
            ("plv8", "  // plv8.execute(\"SELECT pg_notify('c', '')\")"),
            ("plperl", "my $notify = 1; return \"notifying\";"),
        ] {
            assert!(!notifies(language, body), "{language}: {body}");
        }
    }

    #[test]
    fn of_functions_in_c_one_is_known() {
        assert!(notifies("c", "triggered_change_notification"));
        assert!(!notifies("c", "pg_notify"));
        assert!(!notifies("internal", "pg_notify"));
    }
}
