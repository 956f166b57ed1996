//! Numbers: integers and numerics as digits, floats as the shortest text that reads back as the same float.

use std::fmt::Write as _;

use super::{KeyBuf, Refusal, quoted};

/// Most digits of a numeric when it is written out: `1e999999` is eight characters and a megabyte.
const MAX_NUMERIC_DIGITS: i64 = 1000;

/// The bounds that a declaration gives; both are allowed values.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
}

impl Range {
    fn check(self, raw: &str, below: impl Fn(f64) -> bool, above: impl Fn(f64) -> bool) -> Result<(), Refusal> {
        if let Some(min) = self.min.filter(|min| below(*min)) {
            return Err(Refusal::new(format!("{} is less than {min}", quoted(raw)), format!("send at least {min}")));
        }
        if let Some(max) = self.max.filter(|max| above(*max)) {
            return Err(Refusal::new(format!("{} is more than {max}", quoted(raw)), format!("send at most {max}")));
        }
        Ok(())
    }

    /// NaN is within no bounds, though Postgres sorts it above every number.
    fn check_float(self, raw: &str, value: f64) -> Result<(), Refusal> {
        self.check(raw, |min| value.is_nan() || value < min, |max| value.is_nan() || value > max)
    }
}

/// `[+-]digits`, its bytes.
fn split_sign(raw: &str) -> (bool, &str) {
    match raw.as_bytes().first() {
        Some(b'-') => (true, &raw[1..]),
        Some(b'+') => (false, &raw[1..]),
        _ => (false, raw),
    }
}

fn not_a(raw: &str, kind: &str, example: &str) -> Refusal {
    let hint = if raw.starts_with(' ') {
        "a + in a URL is a space: write %2B, or leave it out".to_owned()
    } else {
        format!("send a number such as {example}")
    };
    Refusal::new(format!("{} is not of type {kind}", quoted(raw)), hint)
}

pub(super) fn integer(
    raw: &str,
    kind: &str,
    bounds: (i64, i64),
    range: Range,
    key: &mut KeyBuf,
) -> Result<(), Refusal> {
    let (negative, digits) = split_sign(raw);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let mut refusal = not_a(raw, kind, "42");
        if digits.contains(['.', 'e', 'E']) && digits.parse::<f64>().is_ok() {
            "send a whole number, without a point or an exponent".clone_into(&mut refusal.hint);
        }
        return Err(refusal);
    }
    let digits = digits.trim_start_matches('0');
    // Nineteen digits fit an i128 with room to spare; more are out of every range.
    let magnitude = (digits.len() <= 19).then(|| digits.bytes().fold(0_i128, |n, b| n * 10 + i128::from(b - b'0')));
    let value = magnitude
        .map(|n| if negative { -n } else { n })
        .filter(|n| (i128::from(bounds.0)..=i128::from(bounds.1)).contains(n));
    let Some(value) = value else {
        return Err(Refusal::new(
            format!("{} is out of the range of {kind}", quoted(raw)),
            format!("send a number from {} to {}", bounds.0, bounds.1),
        ));
    };
    // Compared as integers: a float8 could not tell neighbours apart above 2^53. The cast saturates.
    #[allow(clippy::cast_possible_truncation)]
    range.check(raw, |min| value < min.ceil() as i128, |max| value > max.floor() as i128)?;
    // The digits are already there; formatting the number would only write them again.
    if value < 0 {
        key.push(b'-');
    }
    key.extend_from_slice(if digits.is_empty() { b"0" } else { digits.as_bytes() });
    Ok(())
}

/// The parts of `[+-] digits [. digits] [e [+-] digits]`, with digits on one side of the point at least.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Saturated: whatever is that far off is refused or is zero.
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn parse(raw: &'a str) -> Option<Self> {
        let (negative, rest) = split_sign(raw);
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let (minus, digits) = split_sign(exponent);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let size = digits.bytes().fold(0_i64, |n, b| (n * 10 + i64::from(b - b'0')).min(1 << 40));
                (mantissa, if minus { -size } else { size })
            }
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
        (all_digits && whole.len() + fraction.len() > 0).then_some(Self {
            negative,
            whole: whole.as_bytes(),
            fraction: fraction.as_bytes(),
            exponent,
        })
    }

    fn is_zero(&self) -> bool {
        self.whole.iter().chain(self.fraction).all(|b| *b == b'0')
    }

    /// The digit `at` places from the first one of the mantissa; zeros surround it.
    fn digit(&self, at: i64) -> u8 {
        let Ok(at) = usize::try_from(at) else { return b'0' };
        match at.checked_sub(self.whole.len()) {
            None => self.whole[at],
            Some(at) => self.fraction.get(at).copied().unwrap_or(b'0'),
        }
    }
}

fn length(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

/// NaN and the infinities in Postgres's spelling, from any case.
fn not_finite(raw: &str) -> Option<&'static str> {
    let (sign, name) = match raw.as_bytes().first()? {
        b'+' | b'-' => raw.split_at(1),
        _ => ("", raw),
    };
    if name.eq_ignore_ascii_case("nan") && sign.is_empty() {
        Some("NaN")
    } else if name.eq_ignore_ascii_case("infinity") || name.eq_ignore_ascii_case("inf") {
        Some(if sign == "-" { "-Infinity" } else { "Infinity" })
    } else {
        None
    }
}

pub(super) fn numeric(raw: &str, range: Range, key: &mut KeyBuf) -> Result<(), Refusal> {
    if let Some(name) = not_finite(raw) {
        range.check_float(raw, name.parse().unwrap_or(f64::NAN))?;
        key.extend_from_slice(name.as_bytes());
        return Ok(());
    }
    let decimal = Decimal::parse(raw).ok_or_else(|| not_a(raw, "numeric", "12.50"))?;
    let zero = decimal.is_zero();
    // Postgres keeps the digits after the point as they were written, moved by the exponent: 1.50e1 is 15.0.
    let scale = length(decimal.fraction).saturating_sub(decimal.exponent).max(0);
    let point = length(decimal.whole).saturating_add(decimal.exponent);
    let leading = decimal.whole.iter().chain(decimal.fraction).position(|b| *b != b'0').unwrap_or(0);
    let leading = i64::try_from(leading).unwrap_or(i64::MAX);
    let whole_digits = if zero { 1 } else { point.saturating_sub(leading).max(1) };
    if whole_digits.saturating_add(scale) > MAX_NUMERIC_DIGITS {
        return Err(Refusal::new(
            format!("{} has more than {MAX_NUMERIC_DIGITS} digits when it is written out", quoted(raw)),
            format!("send a numeric of at most {MAX_NUMERIC_DIGITS} digits"),
        ));
    }
    let start = key.len();
    if decimal.negative && !zero {
        key.push(b'-');
    }
    if zero || point <= leading {
        key.push(b'0');
    } else {
        key.extend((leading..point).map(|at| decimal.digit(at)));
    }
    if scale > 0 {
        key.push(b'.');
        // Of a zero the point may lie anywhere.
        key.extend((0..scale).map(|at| if zero { b'0' } else { decimal.digit(point + at) }));
    }
    if range.min.is_some() || range.max.is_some() {
        let written = std::str::from_utf8(&key[start..]).unwrap_or_default();
        range.check_float(raw, written.parse().unwrap_or(f64::NAN))?;
    }
    Ok(())
}

/// Formats into a key.
struct Tail<'k>(&'k mut KeyBuf);

impl std::fmt::Write for Tail<'_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

fn finite<'a>(raw: &'a str, kind: &str, infinite: bool, zero: bool) -> Result<(), Refusal> {
    let decimal: Decimal<'a> = Decimal::parse(raw).ok_or_else(|| not_a(raw, kind, "1.5"))?;
    if infinite || (zero && !decimal.is_zero()) {
        let what = if infinite { "too large" } else { "too close to zero" };
        return Err(Refusal::new(format!("{} is {what} for {kind}", quoted(raw)), "send a value that fits the type"));
    }
    Ok(())
}

fn push_float(value: f64, plain: impl std::fmt::Display + std::fmt::LowerExp, key: &mut KeyBuf) {
    // Both are shortest and read back as the same float; the exponent only keeps 1e300 from being 301 digits.
    let written = if value == 0.0 || (1e-5..1e16).contains(&value.abs()) {
        write!(Tail(key), "{plain}")
    } else {
        write!(Tail(key), "{plain:e}")
    };
    written.expect("writing to a key can't fail");
}

pub(super) fn float8(raw: &str, range: Range, key: &mut KeyBuf) -> Result<(), Refusal> {
    if let Some(name) = not_finite(raw) {
        range.check_float(raw, name.parse().unwrap_or(f64::NAN))?;
        key.extend_from_slice(name.as_bytes());
        return Ok(());
    }
    let value: f64 = raw.parse().map_err(|_| not_a(raw, "float8", "1.5"))?;
    finite(raw, "float8", value.is_infinite(), value == 0.0)?;
    range.check_float(raw, value)?;
    push_float(value, value, key);
    Ok(())
}

pub(super) fn float4(raw: &str, range: Range, key: &mut KeyBuf) -> Result<(), Refusal> {
    if let Some(name) = not_finite(raw) {
        range.check_float(raw, name.parse().unwrap_or(f64::NAN))?;
        key.extend_from_slice(name.as_bytes());
        return Ok(());
    }
    // Read as a float4 at once: by way of a float8 it would be rounded twice.
    let value: f32 = raw.parse().map_err(|_| not_a(raw, "float4", "1.5"))?;
    finite(raw, "float4", value.is_infinite(), value == 0.0)?;
    range.check_float(raw, value.into())?;
    push_float(value.into(), value, key);
    Ok(())
}
