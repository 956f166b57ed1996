//! Parameters and results on the wire: text in, bytes out, without a copy or a check that nobody needs.

use std::error::Error;
use std::fmt;

use bytes::BytesMut;
use postgres_types::{Format, FromSql, IsNull, ToSql, Type};

/// A parameter's canonical text, for a parameter of any type: Postgres reads it as it reads a literal.
#[derive(Clone, Copy)]
pub(super) struct Text<'a>(pub(super) Option<&'a str>);

impl fmt::Debug for Text<'_> {
    /// The driver logs parameters when it is told to; values are the clients' and stay out of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, "({} bytes)", text.len()),
            None => f.write_str("NULL"),
        }
    }
}

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(text) = self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(kind, out)
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }
}

/// A text of the result as its bytes. What Postgres sends is UTF-8 already.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT
    }
}
