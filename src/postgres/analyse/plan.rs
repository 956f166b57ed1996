//! The proof of a row declaration: the generic plan, in which every scan of the table keeps to the rows declared.
//!
//! A plan is one of many that give the query's answer. If in this one every scan of the table, and of whatever stores rows
//! for it, drops all rows but those declared, then no other row has a part in the answer, whichever plan a fill uses.
//! So a refusal may be the planner's weakness; an acceptance is a proof.
//!
//! EXPLAIN prints the outputs of an InitPlan as `$n`, too. The query's parameters therefore begin above [`DUMMIES`], with
//! dummies before them. Pruned partitions would be missing from the plan, so pruning is off.

use serde_json::Value;

use super::condition::{Equality, equalities};

/// Parameters before the query's own: more than a plan has execution parameters, which are numbered from 0. Those are the
/// outputs of subplans and the columns that a nested loop hands down.
pub(super) const DUMMIES: usize = 900;

/// A plan with more nodes that make execution parameters proves nothing: at 15 columns for each, they could reach
/// [`DUMMIES`].
const MAKERS_AT_MOST: usize = 60;

/// What is to be proved: that `columns` equal these parameters (from 0) in all rows that are read from `tables`.
pub(super) struct Claim<'a> {
    /// Schema and name of the table and its descendants.
    pub(super) tables: &'a [(&'a str, &'a str)],
    pub(super) columns: &'a [(Box<str>, usize)],
}

/// Settings for the transaction that plans, set before PREPARE.
pub(super) const SETTINGS: &str = "SET LOCAL enable_partition_pruning = off; SET LOCAL constraint_exclusion = off; \
     SET LOCAL plan_cache_mode = force_generic_plan";

/// Holds `claim` against what `EXPLAIN (FORMAT JSON, VERBOSE)` printed.
///
/// # Errors
/// What in the plan does not bear it out, naming the scan.
pub(super) fn prove(explained: &Value, claim: &Claim<'_>) -> Result<(), String> {
    let root = explained.get(0).and_then(|first| first.get("Plan")).ok_or("its plan can't be read")?;
    let mut nodes = vec![root];
    let mut makers = 0;
    let mut scans = 0;
    while let Some(node) = nodes.pop() {
        nodes.extend(node.get("Plans").and_then(Value::as_array).into_iter().flatten());
        let kind = text(node, "Node Type").ok_or("its plan has a node without a type")?;
        makers += usize::from(makes_parameters(node, kind));
        if makers > MAKERS_AT_MOST {
            return Err(format!("its plan has more than {MAKERS_AT_MOST} subplans and nested loops"));
        }
        if kind == "Custom Scan" || kind == "Foreign Scan" {
            return Err(format!("its plan has a {kind}, which says too little of what it reads"));
        }
        let Some(name) = text(node, "Relation Name") else { continue };
        let schema = text(node, "Schema").ok_or("its plan has a scan without a schema")?;
        if !claim.tables.contains(&(schema, name)) {
            continue;
        }
        scans += 1;
        let alias = text(node, "Alias").unwrap_or(name);
        let scan = format!("the {kind} on {schema}.{name} as {alias}");
        if kind == "Sample Scan" {
            return Err(format!("{scan} chooses rows by where they lie"));
        }
        let conditions = ["Index Cond", "Recheck Cond", "Filter"].into_iter().filter_map(|key| text(node, key));
        let carried: Vec<Equality> = conditions.flat_map(|condition| equalities(condition, alias)).collect();
        for (column, param) in claim.columns {
            let wanted = DUMMIES + 1 + param;
            if !carried.iter().any(|e| e.column == **column && e.param == wanted) {
                return Err(format!("{scan} reads rows without regard to {column}"));
            }
        }
    }
    if scans == 0 {
        return Err("its plan has no scan of it".into());
    }
    Ok(())
}

fn makes_parameters(node: &Value, kind: &str) -> bool {
    matches!(kind, "Nested Loop" | "Recursive Union") || node.get("Subplan Name").is_some()
}

fn text<'v>(node: &'v Value, key: &str) -> Option<&'v str> {
    node.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scan(kind: &str, condition: &Value) -> Value {
        json!({ "Node Type": kind, "Relation Name": "t", "Schema": "s", "Alias": "a", "Filter": condition })
    }

    fn proved(plan: &Value) -> Result<(), String> {
        let claim = Claim { tables: &[("s", "t"), ("s", "part")], columns: &[("id".into(), 0)] };
        prove(&json!([{ "Plan": plan }]), &claim)
    }

    #[test]
    fn every_scan_must_carry_it_and_one_must_be_there() {
        let good = scan("Seq Scan", &json!("(a.id = $901)"));
        let bad = scan("Seq Scan", &json!("(a.id = $902)"));
        let join = |left: &Value, right: &Value| json!({ "Node Type": "Nested Loop", "Plans": [left, right] });
        assert_eq!(proved(&good), Ok(()));
        assert_eq!(proved(&join(&good, &good)), Ok(()));
        let why = proved(&join(&good, &bad)).expect_err("one doesn't");
        assert_eq!(why, "the Seq Scan on s.t as a reads rows without regard to id");
        assert_eq!(proved(&json!({ "Node Type": "Result" })), Err("its plan has no scan of it".into()));
        assert!(proved(&json!(null)).is_err());
    }

    #[test]
    fn scans_of_other_tables_are_no_concern_of_it() {
        let other = json!({ "Node Type": "Seq Scan", "Relation Name": "u", "Schema": "s", "Alias": "u" });
        let same_name = json!({ "Node Type": "Seq Scan", "Relation Name": "t", "Schema": "z", "Alias": "t" });
        let good = scan("Index Scan", &json!("(a.id = $901)"));
        assert_eq!(proved(&json!({ "Node Type": "Append", "Plans": [other, good, same_name] })), Ok(()));
    }

    #[test]
    fn what_chooses_by_place_or_says_too_little_is_refused() {
        assert!(proved(&scan("Sample Scan", &json!("(a.id = $901)"))).is_err());
        for kind in ["Custom Scan", "Foreign Scan"] {
            let unclear = json!({ "Node Type": kind });
            let good = scan("Index Scan", &json!("(a.id = $901)"));
            assert!(proved(&json!({ "Node Type": "Append", "Plans": [good, unclear] })).is_err(), "{kind}");
        }
    }

    #[test]
    fn a_plan_whose_parameters_might_be_mistaken_is_refused() {
        let of = |loops: usize| {
            let mut plans = vec![json!({ "Node Type": "Nested Loop" }); loops];
            plans.extend(vec![scan("Seq Scan", &json!("(a.id = $901)")); 1000]);
            json!({ "Node Type": "Append", "Plans": plans })
        };
        assert_eq!(proved(&of(MAKERS_AT_MOST)), Ok(()));
        assert!(proved(&of(MAKERS_AT_MOST + 1)).is_err());
    }
}
