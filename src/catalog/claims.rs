//! What is known of a caller: claims, by name. They are values of parameters that no request can set.
//!
//! A claim is a text, or JSON that is none (a number, a boolean, a list, an object), kept as its spelling. Made once when a
//! caller becomes known; from then on it is written into keys as a request's own values are, and so has one canonical form:
//! an `org_id` of 7 and of "7" are the same to an integer parameter.

use std::fmt;

use super::args::KeyBuf;
use super::params::{self, Param, ParamType, Refusal};

/// Claims of one caller, by name. None of them is null.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Claims(Vec<(Box<str>, Value)>);

/// The value of a claim.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(Box<str>),
    /// Anything else, as it is spelled in JSON.
    Json(Box<str>),
}

/// Names alone: values are about people.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Claims {
    /// Nobody's.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// These, by name; a null is no claim.
    pub fn new<'a>(all: impl IntoIterator<Item = (&'a str, &'a serde_json::Value)>) -> Self {
        let value = |value: &serde_json::Value| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(Value::Text(text.as_str().into())),
            other => Some(Value::Json(other.to_string().into())),
        };
        Self(all.into_iter().filter_map(|(name, json)| Some((name.into(), value(json)?))).collect())
    }

    /// The value of the claim called `name`. There are few, and no map is faster than looking at them.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value {
    /// Appends its canonical form for `param`.
    ///
    /// # Errors
    /// It is none of the parameter's type, or out of its bounds. The refusal does not quote it.
    pub(super) fn write(&self, param: &Param, key: &mut KeyBuf) -> Result<(), Refusal> {
        let written = match (self, &param.kind) {
            // A text that looks like a list is still one text: whoever chose it must not choose how many there are.
            (Self::Text(text), ParamType::Array(_)) => params::canonical_texts(param, [text].into_iter(), key),
            // A JSON parameter takes a text as the JSON string that it is.
            (Self::Text(text), ParamType::Json | ParamType::Jsonb) => {
                params::canonical_text(param, &serde_json::Value::from(&**text).to_string(), key)
            }
            (Self::Text(text) | Self::Json(text), _) => params::canonical_text(param, text, key),
        };
        written.map_err(|_| Refusal {
            detail: format!("the caller's claim is no {}, or out of its bounds", param.kind),
            hint: String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(value: &serde_json::Value, kind: ParamType) -> Option<String> {
        let claims = Claims::new([("x", value)]);
        let param = Param { kind, ..Param::setting("x") };
        let mut key = KeyBuf::new();
        claims.get("x")?.write(&param, &mut key).ok()?;
        Some(String::from_utf8(key.to_vec()).expect("UTF-8"))
    }

    #[test]
    fn a_number_and_its_text_are_one_claim_to_an_integer() {
        for value in [json!(7), json!("7"), json!("007")] {
            assert_eq!(written(&value, ParamType::Int4).as_deref(), Some("7"), "{value}");
        }
        for value in
            [json!("x"), json!(7.5), json!(true), json!([7]), json!({}), json!(null), json!(99_999_999_999_i64)]
        {
            assert_eq!(written(&value, ParamType::Int4), None, "{value}");
        }
    }

    #[test]
    fn a_text_is_one_text_whatever_it_looks_like() {
        let texts = || ParamType::Array(Box::new(ParamType::Text("text".into())));
        let one = written(&json!("[\"a\",\"b\"]"), texts()).expect("a list of one");
        let two = written(&json!(["a", "b"]), texts()).expect("a list of two");
        assert_ne!(one, two);
        assert_eq!(written(&json!("null"), ParamType::Jsonb).as_deref(), Some("\"null\""));
        assert_eq!(written(&json!("a b"), ParamType::Text("text".into())).as_deref(), Some("a b"));
    }

    #[test]
    fn values_are_not_printed() {
        let claims = Claims::new([("email", &json!("ann@example.com"))]);
        assert_eq!(format!("{claims:?}"), "[\"email\"]");
        assert!(!claims.is_empty() && Claims::none().is_empty());
    }
}
