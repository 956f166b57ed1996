//! Arrays: JSON arrays or repeated texts on the way in, Postgres's array literals in the key.

use std::fmt;

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{KeyBuf, Param, ParamType, Refusal, quoted, scalar_json, scalar_text};

/// Most elements, over all dimensions: the plan of a query over more belongs in a join.
const MAX_ELEMENTS: usize = 1000;

/// Postgres's own limit (MAXDIM).
const MAX_DIMENSIONS: usize = 6;

fn too_many() -> Refusal {
    Refusal::new(format!("it has more than {MAX_ELEMENTS} elements"), format!("send at most {MAX_ELEMENTS}"))
}

/// A JSON array, or the only element.
pub(super) fn from_text(element: &ParamType, param: &Param, raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    if raw.is_empty() {
        return Err(Refusal::new("an empty value is no array", format!("for an empty array write {}=[]", param.name)));
    }
    if !raw.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('[') {
        return from_texts(element, param, std::iter::once(raw), key);
    }
    match serde_json::from_str::<&RawValue>(raw) {
        Ok(raw) => from_json(element, param, raw, key),
        Err(error) => Err(Refusal::new(
            format!("{} is no JSON array: {error}", quoted(raw)),
            format!("write {0}=[…], texts in double quotes, or repeat {0}=", param.name),
        )),
    }
}

pub(super) fn from_texts<T: AsRef<str>>(
    element: &ParamType,
    param: &Param,
    raw: impl ExactSizeIterator<Item = T>,
    key: &mut KeyBuf,
) -> Result<(), Refusal> {
    if raw.len() > MAX_ELEMENTS {
        return Err(too_many());
    }
    key.push(b'{');
    for (at, raw) in raw.enumerate() {
        if at > 0 {
            key.push(b',');
        }
        let mut canonical = KeyBuf::new();
        scalar_text(element, param, raw.as_ref(), &mut canonical).map_err(|r| in_element(at, r))?;
        push_element(&canonical, key);
    }
    key.push(b'}');
    Ok(())
}

pub(super) fn from_json(element: &ParamType, param: &Param, raw: &RawValue, key: &mut KeyBuf) -> Result<(), Refusal> {
    if !raw.get().starts_with('[') {
        return Err(Refusal::new(
            format!("{} is no array", quoted(raw.get())),
            format!("send a JSON array of {element}, as [ … ]"),
        ));
    }
    // Of json itself an inner array is a value, and no further dimension.
    let nests = !matches!(element, ParamType::Json | ParamType::Jsonb);
    Writer { element, param, nests, lengths: [None; MAX_DIMENSIONS], leaves: None, count: 0 }.array(raw, 0, key)
}

struct Writer<'a> {
    element: &'a ParamType,
    param: &'a Param,
    nests: bool,
    /// How many elements the arrays of each depth have: all of one depth as many.
    lengths: [Option<usize>; MAX_DIMENSIONS],
    /// The depth at which values stand.
    leaves: Option<usize>,
    count: usize,
}

impl Writer<'_> {
    fn array(&mut self, raw: &RawValue, depth: usize, key: &mut KeyBuf) -> Result<(), Refusal> {
        if depth == MAX_DIMENSIONS {
            return Err(Refusal::new(
                format!("it has more than {MAX_DIMENSIONS} dimensions"),
                format!("send at most {MAX_DIMENSIONS}"),
            ));
        }
        let elements = elements(raw)?;
        if elements.is_empty() && depth > 0 {
            return Err(Refusal::new("an array within it is empty", "only the whole array may be empty, as []"));
        }
        if *self.lengths[depth].get_or_insert(elements.len()) != elements.len() {
            return Err(uneven());
        }
        key.push(b'{');
        for (at, raw) in elements.into_iter().enumerate() {
            if at > 0 {
                key.push(b',');
            }
            if self.nests && raw.get().starts_with('[') {
                if self.leaves.is_some_and(|leaves| leaves <= depth) {
                    return Err(uneven());
                }
                self.array(raw, depth + 1, key)?;
            } else {
                if *self.leaves.get_or_insert(depth) != depth {
                    return Err(uneven());
                }
                self.value(raw, key)?;
            }
        }
        key.push(b'}');
        Ok(())
    }

    fn value(&mut self, raw: &RawValue, key: &mut KeyBuf) -> Result<(), Refusal> {
        let at = self.count;
        self.count += 1;
        if self.count > MAX_ELEMENTS {
            return Err(too_many());
        }
        if raw.get() == "null" {
            key.extend_from_slice(b"NULL");
            return Ok(());
        }
        let mut canonical = KeyBuf::new();
        scalar_json(self.element, self.param, raw, &mut canonical).map_err(|r| in_element(at, r))?;
        push_element(&canonical, key);
        Ok(())
    }
}

fn uneven() -> Refusal {
    Refusal::new("its inner arrays differ in length or depth", "send arrays of one length at each depth")
}

fn in_element(at: usize, refusal: Refusal) -> Refusal {
    Refusal { detail: format!("element {}: {}", at + 1, refusal.detail), hint: refusal.hint }
}

/// As `array_out` quotes: what is empty, reads as NULL, or holds a character that means something in a literal.
fn push_element(canonical: &[u8], key: &mut KeyBuf) {
    let special = |b: &u8| matches!(b, b'{' | b'}' | b',' | b'"' | b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    if !canonical.is_empty() && !canonical.eq_ignore_ascii_case(b"null") && !canonical.iter().any(special) {
        key.extend_from_slice(canonical);
        return;
    }
    key.push(b'"');
    for byte in canonical {
        if matches!(byte, b'"' | b'\\') {
            key.push(b'\\');
        }
        key.push(*byte);
    }
    key.push(b'"');
}

/// The elements of an array that has been found well-formed; no more of them than are allowed.
fn elements(raw: &RawValue) -> Result<Vec<&RawValue>, Refusal> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Option<Vec<&'de RawValue>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
            let mut elements = Some(Vec::new());
            // Read to its end in any case: stopping earlier would be an error of the syntax.
            while let Some(element) = array.next_element::<&RawValue>()? {
                elements = elements.filter(|known| known.len() < MAX_ELEMENTS).map(|mut known| {
                    known.push(element);
                    known
                });
            }
            Ok(elements)
        }
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    json.deserialize_seq(Elements)
        .map_err(|error| Refusal::new(format!("{} is no JSON array: {error}", quoted(raw.get())), "send a JSON array"))?
        .ok_or_else(too_many)
}
