//! Parameters from a JSON object. Values are kept as the text they came as, so that no digit is lost.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::params::{self, Param, Refusal};
use super::{AllGiven, Bad, BadParam, Claims, Given, KeyBuf, Prepared, Unkeyed, Written, build};

/// Builds the canonical key from a JSON object. A JSON null is NULL, also for a json parameter.
///
/// # Errors
/// Every bad parameter once: those of the request in its order, then the missing ones. Where the body is no JSON object,
/// a single one without a name.
pub fn key_from_json(prepared: &Prepared, body: &[u8], key: &mut KeyBuf) -> Result<(), Vec<BadParam>> {
    key_from_json_by(&Claims::none(), prepared, body, key).map_err(Unkeyed::into_parameters)
}

/// The same with the claims of a caller.
///
/// # Errors
/// The claim that the caller lacks, or as [`key_from_json`].
pub fn key_from_json_by(claims: &Claims, prepared: &Prepared, body: &[u8], key: &mut KeyBuf) -> Result<(), Unkeyed> {
    key.clear();
    let (mut given, bad) = read(prepared, body).map_err(|detail| {
        Unkeyed::Parameters(vec![BadParam::new("", detail, "send one JSON object of parameters, {} for none")])
    })?;
    build(prepared, &mut given, bad, claims, key, |param, mine, key| match mine {
        [one] if one.value.get() == "null" => Ok(Written::Null),
        [one] => params::canonical_json(param, one.value, key).map(|()| Written::Value),
        all => Err(Refusal {
            detail: format!("the body has it {} times", all.len()),
            hint: "give it once; several values go into a JSON array".to_owned(),
        }),
    })
}

fn read<'b>(prepared: &Prepared, body: &'b [u8]) -> Result<(AllGiven<&'b RawValue>, Bad), String> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
    match text.trim_start_matches([' ', '\t', '\n', '\r']).bytes().next() {
        None => return Err("the body is empty".to_owned()),
        Some(b'{') => {}
        // What else it is shows where it is JSON at all; where it isn't, that is the thing to say.
        Some(_) if serde_json::from_str::<&RawValue>(text).is_ok() => {
            return Err("the body is JSON, but no object".to_owned());
        }
        Some(_) => {}
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_map(Members(&prepared.params)).and_then(|read| json.end().map(|()| read));
    read.map_err(|error| format!("the body is not one JSON object: {error}"))
}

struct Members<'p>(&'p [Param]);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = (AllGiven<&'de RawValue>, Bad);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut given = AllGiven::new();
        let mut bad = Bad::default();
        let mut position = 0;
        while let Some(name) = map.next_key_seed(Name)? {
            let value: &RawValue = map.next_value()?;
            match self.0.iter().position(|param| *param.name == *name && param.claim().is_none()) {
                Some(param) => given.push(Given { param, position, value }),
                None => bad.push_unknown(position, &name, self.0),
            }
            position += 1;
        }
        Ok((given, bad))
    }
}

/// A member's name, borrowed where nothing in it is escaped.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
