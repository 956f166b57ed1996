//! What a notification of a user's own says: tags, and perhaps the transaction that it is about.
//!
//! `shop.products user%20list xid=1234`: tags between spaces, percent-encoded where they hold a space or a percent sign.
//! Nothing here is refused: an escape that is none is taken as it stands and counted, since a tag that is dropped would
//! leave an answer wrong.

use percent_encoding::percent_decode_str;

use crate::tag::Tag;

/// A payload, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Payload {
    /// The tags it names. A name without a colon may be a table's, so its rows (`name:*`) are among them; so is the table of
    /// rows.
    pub tags: Vec<Tag>,
    /// Those of them of which what depends on them is to be forgotten, written with a `!` before them.
    pub purged: Vec<Tag>,
    /// Which transaction wrote, if the payload says so once and in digits. A claim, not a fact.
    pub xid: Option<u64>,
    /// Parts that were not as they should be.
    pub malformed: usize,
}

impl Payload {
    /// Reads a payload, of which Postgres bounds the length at 7,999 bytes. The empty one, the doorbell's, names nothing.
    pub fn parse(text: &str) -> Self {
        let mut payload = Self { tags: Vec::new(), purged: Vec::new(), xid: None, malformed: 0 };
        let mut claims = 0;
        for part in text.split_ascii_whitespace() {
            if let Some(digits) = part.strip_prefix("xid=") {
                claims += 1;
                let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
                payload.xid = if all_digits { digits.parse().ok() } else { None };
                payload.malformed += usize::from(payload.xid.is_none());
                continue;
            }
            payload.malformed += usize::from(!escapes_are_whole(part));
            let decoded: Vec<u8> = percent_decode_str(part).collect();
            let name = decoded.strip_prefix(b"!").unwrap_or(&decoded);
            let first = payload.tags.len();
            payload.tags.push(Tag::of_bytes(name));
            if !name.contains(&b':') && name != b"*" {
                payload.tags.push(Tag::of_bytes(&[name, b":*"].concat()));
            }
            if name.len() < decoded.len() {
                payload.purged.extend_from_slice(&payload.tags[first..]);
            }
            // A write to rows is one to their table, whose name has a dot.
            let table = name.iter().position(|&b| b == b':').map(|colon| &name[..colon]);
            payload.tags.extend(table.filter(|table| table.contains(&b'.')).map(Tag::of_bytes));
        }
        if claims > 1 {
            payload.malformed += 1;
            payload.xid = None;
        }
        payload
    }
}

/// Whether each percent sign has its two hexadecimal digits.
fn escapes_are_whole(part: &str) -> bool {
    let bytes = part.as_bytes();
    let whole = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    bytes.iter().enumerate().all(|(at, &b)| b != b'%' || whole(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        Tag::new(text)
    }

    #[test]
    fn payloads_are_read_as_they_are_written_and_nothing_is_dropped() {
        let read = |text: &str| Payload::parse(text);
        let tags = |names: &[&str]| names.iter().map(|name| tag(name)).collect::<Vec<_>>();
        assert_eq!(read(""), Payload { tags: vec![], purged: vec![], xid: None, malformed: 0 });
        assert_eq!(read("a:1  b%20c:%C3%BC").tags, tags(&["a:1", "b c:ü"]));
        assert_eq!(read("shop.products").tags, tags(&["shop.products", "shop.products:*"]), "its rows, too");
        assert_eq!(read("*").tags, tags(&["*"]));
        assert_eq!(read("shop.products:id=4").tags, tags(&["shop.products:id=4", "shop.products"]), "its table, too");
        assert_eq!(read("a:1 xid=77"), Payload { tags: tags(&["a:1"]), purged: vec![], xid: Some(77), malformed: 0 });
        let purge = read("!s.t %21s.t:id=4");
        assert_eq!(purge.tags, tags(&["s.t", "s.t:*", "s.t:id=4", "s.t"]));
        assert_eq!(purge.purged, tags(&["s.t", "s.t:*", "s.t:id=4"]), "its table is outdated, and not forgotten");
        for text in ["a:50%", "a:%zz", "a:%4"] {
            assert_eq!(
                read(text),
                Payload { tags: tags(&[text]), purged: vec![], xid: None, malformed: 1 },
                "taken as it stands"
            );
        }
        for text in ["xid=", "xid=+7", "xid=x", "xid=18446744073709551616", "xid=7 xid=8"] {
            assert_eq!(read(text), Payload { tags: vec![], purged: vec![], xid: None, malformed: 1 }, "{text}");
        }
    }
}
