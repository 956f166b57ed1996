//! What an answer's `Cache-Status` says of it.

use super::judge::Label;

/// How an answer with this `Cache-Status` is labelled; `None` where that is none of Seawall's.
pub fn label(status: &str) -> Option<Label> {
    let mut parts = status.split(';').map(str::trim);
    if parts.next() != Some("seawall") {
        return None;
    }
    let (mut hit, mut collapsed, mut ttl, mut detail) = (false, false, None, None);
    for part in parts {
        match part.split_once('=') {
            None if part == "hit" => hit = true,
            None if part == "collapsed" => collapsed = true,
            Some(("ttl", value)) => ttl = Some(value.parse::<i64>().ok()?),
            Some(("detail", value)) => detail = Some(value),
            _ => {}
        }
    }
    let label = match (hit, detail) {
        (true, None | Some("redis")) if ttl.is_some_and(|ttl| ttl >= 0) => Label::Hit,
        // Postgres was asked, since nothing in memory was fresh.
        (false, None | Some("invalidated" | "blind")) if collapsed => Label::Collapsed,
        (false, None | Some("invalidated" | "blind")) => Label::Filled,
        (true, None | Some("redis")) => return None,
        (_, Some(_)) => Label::Stale,
    };
    Some(label)
}

#[test]
fn a_label_is_fresh_only_without_a_detail_and_a_lifetime_that_is_not_over() {
    for (status, expected) in [
        ("seawall; hit; ttl=27", Some(Label::Hit)),
        ("seawall; hit; ttl=0", Some(Label::Hit)),
        ("seawall; hit; ttl=27; detail=redis", Some(Label::Hit)),
        ("seawall; hit; ttl=-3; detail=stale-while-revalidate", Some(Label::Stale)),
        ("seawall; hit; ttl=27; detail=refill-limited", Some(Label::Stale)),
        ("seawall; hit; ttl=27; detail=invalidated", Some(Label::Stale)),
        ("seawall; hit; detail=blind", Some(Label::Stale)),
        ("seawall; fwd=stale; fwd-status=503; detail=stale-if-error", Some(Label::Stale)),
        ("seawall; fwd=stale; collapsed; detail=wait-at-most", Some(Label::Stale)),
        ("seawall; fwd=uri-miss; stored", Some(Label::Filled)),
        ("seawall; fwd=uri-miss; stored; collapsed", Some(Label::Collapsed)),
        ("seawall; fwd=stale; stored; collapsed; detail=invalidated", Some(Label::Collapsed)),
        ("seawall; fwd=stale; stored; detail=invalidated", Some(Label::Filled)),
        ("seawall; fwd=stale; detail=blind", Some(Label::Filled)),
        ("seawall; fwd=request", Some(Label::Filled)),
        // Old, and not said to be: nobody may give that.
        ("seawall; hit; ttl=-3", None),
        ("seawall; hit", None),
        ("seawall; hit; ttl=-3; detail=redis", None),
        ("other; hit; ttl=27", None),
    ] {
        assert_eq!(label(status), expected, "{status}");
    }
}
