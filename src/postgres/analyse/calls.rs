//! What calling a function means for freshness.
//!
//! A function that is built in is taken at its mark, but for those marked STABLE that read the clock or the server's
//! state: an answer changes with them, and no write is announced. What users define in SQL or a procedural language isn't
//! looked into. VOLATILE can't be kept fresh at all; STABLE depends on what its operator declares; IMMUTABLE is folded into
//! the plan, so that a stamp would see writes which the answer, planned before them, does not have.
//! A library's function (language C) marked IMMUTABLE computes; marked STABLE it may read tables like any other.

use super::catalogs::Function;
use super::trees::FIRST_USER_OID;

/// What a call does to a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// It computes from its arguments and the session's pinned settings.
    Computes,
    /// It depends on tables that can't be seen from here.
    Opaque,
    /// The ttl alone: why.
    Unkept(String),
}

/// Built-in functions, marked STABLE, that read the clock.
const CLOCK: [&str; 4] = ["now", "statement_timestamp", "transaction_timestamp", "timetz"];

/// What begins the names of built-in functions, marked STABLE, that read the server's state, its catalogs, or tables that
/// are named by a value.
const SERVER: [&str; 16] = [
    "col_description",
    "current_schema",
    "database_to_xml",
    "format_type",
    "has_",
    "inet_",
    "mxid_age",
    "obj_description",
    "pg_",
    "reg",
    "row_security_active",
    "schema_to_xml",
    "shobj_description",
    "table_to_xml",
    "to_reg",
    "txid_",
];

/// Of those that begin like them, what computes from its argument all the same.
const COMPUTES: [&str; 6] = [
    "pg_char_to_encoding",
    "pg_client_encoding",
    "pg_collation_for",
    "pg_column_size",
    "pg_encoding_to_char",
    "pg_typeof",
];

/// Judges one function.
pub(super) fn judge(function: &Function) -> Call {
    let signature = &function.signature;
    let built_in = function.oid < FIRST_USER_OID && function.schema == "pg_catalog";
    if function.volatility == "v" {
        let remedy = if built_in { "" } else { "; if it changes nothing and reads only tables, mark it STABLE" };
        return Call::Unkept(format!("it calls {signature}, which is volatile{remedy}"));
    }
    if built_in {
        return if function.volatility == "s" { stable_built_in(function) } else { Call::Computes };
    }
    match (&*function.volatility, &*function.language) {
        // An aggregate is `internal` whoever defines it; its parts are judged by themselves.
        (_, "internal") | ("i", "c") => Call::Computes,
        ("i", _) => Call::Unkept(format!(
            "it calls {signature}, which is marked IMMUTABLE and could read tables: what it returned may be a part of the \
             plan; mark it STABLE and declare depends"
        )),
        _ => Call::Opaque,
    }
}

fn stable_built_in(function: &Function) -> Call {
    let (name, signature) = (&*function.name, &function.signature);
    // With two arguments it is their difference, with one it is the difference to today.
    if CLOCK.contains(&name) && signature != "timetz(timestamp with time zone)"
        || name == "age" && function.arguments == 1
    {
        return Call::Unkept(format!("it calls {signature}, whose result changes with time"));
    }
    // `reg…` are the types that stand for names in the catalogs; regular expressions only begin like them.
    let begins = !name.starts_with("regexp_") && SERVER.iter().any(|prefix| name.starts_with(prefix));
    if begins && !COMPUTES.contains(&name) {
        return Call::Unkept(format!("it calls {signature}, which reads the server's state"));
    }
    Call::Computes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(schema: &str, name: &str, arguments: i16, language: &str, volatility: &str) -> &'static str {
        let function = Function {
            oid: if schema == "pg_catalog" { 1000 } else { 20_000 },
            schema: schema.into(),
            name: name.into(),
            signature: format!("{name}()"),
            language: language.into(),
            volatility: volatility.into(),
            arguments,
        };
        match judge(&function) {
            Call::Computes => "computes",
            Call::Opaque => "opaque",
            Call::Unkept(_) => "unkept",
        }
    }

    #[test]
    fn built_in_functions_are_taken_at_their_mark_but_for_clock_and_state() {
        let built_in = |name, arguments, volatility| call("pg_catalog", name, arguments, "internal", volatility);
        for name in ["concat", "to_char", "json_agg", "regexp_replace", "pg_typeof", "date_trunc", "current_setting"] {
            assert_eq!(built_in(name, 2, "s"), "computes", "{name}");
        }
        assert_eq!(built_in("age", 2, "s"), "computes");
        for name in ["now", "pg_stat_get_numscans", "to_regclass", "has_table_privilege", "table_to_xml", "timetz"] {
            assert_eq!(built_in(name, 1, "s"), "unkept", "{name}");
        }
        assert_eq!(built_in("age", 1, "s"), "unkept");
        assert_eq!(built_in("random", 0, "v"), "unkept");
        assert_eq!(built_in("pg_lsn_cmp", 2, "i"), "computes");
    }

    #[test]
    fn what_users_define_is_opaque_whatever_it_is_called() {
        assert_eq!(call("shop", "now", 0, "sql", "s"), "opaque");
        assert_eq!(call("shop", "f", 0, "plpgsql", "s"), "opaque");
        assert_eq!(call("shop", "f", 0, "sql", "i"), "unkept");
        assert_eq!(call("shop", "f", 0, "plpgsql", "v"), "unkept");
        assert_eq!(call("shop", "f", 0, "c", "i"), "computes");
        assert_eq!(call("shop", "f", 0, "c", "s"), "opaque");
        assert_eq!(call("shop", "f", 0, "c", "v"), "unkept");
    }
}
