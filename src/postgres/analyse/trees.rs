//! What a stored parse tree refers to: `pg_rewrite.ev_action` and `pg_policy.polqual` as text.
//!
//! The text is that of PostgreSQL's `outfuncs.c`: `{NODE :field value …}`, lists in parentheses, tokens parted by white
//! space, a backslash before a character that would part them. Only fields that name rows of the catalogs are read, by
//! what their names have in common over the versions; a field that is none after all adds an oid that nothing has, or a
//! dependency too many. `pg_depend` is read beside it, but has no rows for what is built in.

use std::collections::BTreeSet;

/// The first oid of what is not built in (`FirstNormalObjectId`).
pub(super) const FIRST_USER_OID: u32 = 16_384;

/// `SQLVALUEFUNCTION`s up to this one are moments (`SVFOP_LOCALTIMESTAMP_N`); those after it are names of roles and such.
const LAST_MOMENT: u32 = 8;

/// Oids by catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct References {
    pub(super) relations: BTreeSet<u32>,
    pub(super) functions: BTreeSet<u32>,
    samplers: BTreeSet<u32>,
    pub(super) operators: BTreeSet<u32>,
    pub(super) collations: BTreeSet<u32>,
    /// Those that are not built in.
    pub(super) types: BTreeSet<u32>,
    /// CURRENT_DATE, LOCALTIMESTAMP and the like.
    pub(super) moments: bool,
    /// TABLESAMPLE without REPEATABLE.
    pub(super) random_sample: bool,
}

/// Adds what `tree` refers to.
pub(super) fn read(tree: &str, found: &mut References) {
    let mut tokens = Tokens { rest: tree }.peekable();
    let mut node = "";
    while let Some(token) = tokens.next() {
        if token == "{" {
            node = tokens.next().unwrap_or_default();
            continue;
        }
        let Some(field) = token.strip_prefix(':') else { continue };
        if field == "repeatable" && tokens.peek() == Some(&"<>") {
            found.random_sample = true;
        }
        if node == "SQLVALUEFUNCTION" && field == "op" {
            found.moments |= tokens.peek().and_then(|op| op.parse().ok()).is_some_and(|op: u32| op <= LAST_MOMENT);
        }
        let Some(list) = list_of(field, found) else { continue };
        match tokens.peek() {
            Some(&"(") => {
                tokens.next();
                // `(o 97 97)`; anything else in parentheses is other nodes, whose fields come by themselves.
                if tokens.peek() == Some(&"o") {
                    tokens.next();
                    while let Some(oid) = tokens.peek().and_then(|token| token.parse().ok()) {
                        list.insert(oid);
                        tokens.next();
                    }
                }
            }
            Some(token) => {
                if let Ok(oid) = token.parse() {
                    list.insert(oid);
                }
            }
            None => {}
        }
    }
    found.functions.extend(std::mem::take(&mut found.samplers).into_iter().filter(|oid| *oid >= FIRST_USER_OID));
    for list in
        [&mut found.relations, &mut found.functions, &mut found.operators, &mut found.collations, &mut found.types]
    {
        list.remove(&0);
    }
    found.types.retain(|oid| *oid >= FIRST_USER_OID);
}

fn list_of<'a>(field: &str, found: &'a mut References) -> Option<&'a mut BTreeSet<u32>> {
    Some(match field {
        "relid" => &mut found.relations,
        // The handlers of samples that are built in are marked VOLATILE; REPEATABLE makes what they do repeatable.
        "tsmhandler" => &mut found.samplers,
        "aggfnoid" | "winfnoid" => &mut found.functions,
        "opno" | "opnos" | "eqop" | "sortop" => &mut found.operators,
        _ if field.ends_with("funcid") || field.ends_with("InRangeFunc") => &mut found.functions,
        _ if field.contains("coll") || field.contains("Coll") => &mut found.collations,
        _ if field.contains("type") => &mut found.types,
        _ => return None,
    })
}

/// Tokens as `pg_strtok` finds them; escapes stay in.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\t']);
        let first = self.rest.bytes().next()?;
        let end = if is_bracket(first) {
            1
        } else {
            let mut escaped = false;
            let ends = |byte: u8| {
                if escaped {
                    escaped = false;
                    return false;
                }
                escaped = byte == b'\\';
                is_bracket(byte) || matches!(byte, b' ' | b'\n' | b'\t')
            };
            self.rest.bytes().position(ends).unwrap_or(self.rest.len())
        };
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token)
    }
}

fn is_bracket(byte: u8) -> bool {
    matches!(byte, b'(' | b')' | b'{' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(tree: &str) -> References {
        let mut found = References::default();
        read(tree, &mut found);
        found
    }

    fn oids(set: &BTreeSet<u32>) -> Vec<u32> {
        set.iter().copied().collect()
    }

    #[test]
    fn each_field_that_names_a_row_of_a_catalog_is_read() {
        let found = references(
            "({QUERY :rtable ({RANGETBLENTRY :rtekind 0 :relid 16389 :relkind r :jointype 1} {RANGETBLENTRY :relid 1259}) \
             :quals {OPEXPR :opno 96 :opfuncid 65 :opcollid 0 :inputcollid 12345 :args ({FUNCEXPR :funcid 1299 \
             :funcresulttype 16500 :args <>} {ROWCOMPAREEXPR :opnos (o 97 521) :inputcollids (o 0 100)})} \
             :d ({SORTGROUPCLAUSE :eqop 98 :sortop 664}) :w {WINDOWFUNC :winfnoid 3538 :wintype 25} \
             :a {AGGREF :aggfnoid 2147 :aggargtypes (o 23 16501)}})",
        );
        assert_eq!(oids(&found.relations), [1259, 16389]);
        assert_eq!(oids(&found.functions), [65, 1299, 2147, 3538]);
        assert_eq!(oids(&found.operators), [96, 97, 98, 521, 664]);
        assert_eq!(oids(&found.collations), [100, 12345]);
        assert_eq!(oids(&found.types), [16500, 16501]);
        assert!(!found.moments && !found.random_sample);
    }

    #[test]
    fn moments_are_told_from_names_of_roles() {
        assert!(references("{SQLVALUEFUNCTION :op 8 :type 1082}").moments);
        assert!(!references("{SQLVALUEFUNCTION :op 9 :type 19}").moments);
        assert!(!references("{OTHER :op 0}").moments);
    }

    #[test]
    fn a_sample_is_random_unless_it_is_repeatable() {
        assert!(references("{TABLESAMPLECLAUSE :tsmhandler 3314 :repeatable <>}").random_sample);
        let repeatable = references("{TABLESAMPLECLAUSE :tsmhandler 3314 :repeatable {CONST}}");
        assert!(!repeatable.random_sample);
        assert!(repeatable.functions.is_empty());
        let of_an_extension = references("{TABLESAMPLECLAUSE :tsmhandler 16400 :repeatable {CONST}}");
        assert_eq!(oids(&of_an_extension.functions), [16400]);
    }

    #[test]
    fn a_name_is_one_token_whatever_is_in_it() {
        let found = references(r"{ALIAS :aliasname \:relid\ 77\(\ \{ :colnames (:relid\ 5 x)} {R :relid 9}");
        assert_eq!(oids(&found.relations), [9]);
        assert!(references("").relations.is_empty());
        assert!(references(":relid").relations.is_empty());
    }
}
