//! Dates and times: ISO 8601 alone, years 0001 to 9999, whatever the session's DateStyle is.

use super::{KeyBuf, Refusal, quoted};

/// Postgres takes offsets below sixteen hours.
const MAX_OFFSET_HOURS: u32 = 15;

#[derive(Clone, Copy)]
struct Date {
    year: u32,
    month: u32,
    day: u32,
}

/// A time of day in minutes, and the digits below the minute as they are written.
struct Time<'a> {
    minutes: u32,
    seconds: u32,
    /// Without trailing zeros; may be empty.
    fraction: &'a str,
}

/// `count` digits from `at` on, as a number.
fn digits(raw: &str, at: usize, count: usize) -> Option<u32> {
    let part = raw.as_bytes().get(at..at + count)?;
    part.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The date at the beginning of `raw`, ten bytes.
fn leading_date(raw: &str) -> Option<Date> {
    let bytes = raw.as_bytes();
    let (year, month, day) = (digits(raw, 0, 4)?, digits(raw, 5, 2)?, digits(raw, 8, 2)?);
    (bytes[4] == b'-' && bytes[7] == b'-').then_some(Date { year, month, day })
}

impl Date {
    fn exists(self) -> bool {
        self.year >= 1 && (1..=12).contains(&self.month) && (1..=days_in(self.year, self.month)).contains(&self.day)
    }

    /// None where the year leaves 1 to 9999.
    fn previous(self) -> Option<Self> {
        let Self { year, month, day } = self;
        let date = match (month, day) {
            (1, 1) => Self { year: year - 1, month: 12, day: 31 },
            (_, 1) => Self { year, month: month - 1, day: days_in(year, month - 1) },
            _ => Self { year, month, day: day - 1 },
        };
        (date.year >= 1).then_some(date)
    }

    fn next(self) -> Option<Self> {
        let Self { year, month, day } = self;
        let date = if day < days_in(year, month) {
            Self { year, month, day: day + 1 }
        } else if month < 12 {
            Self { year, month: month + 1, day: 1 }
        } else {
            Self { year: year + 1, month: 1, day: 1 }
        };
        (date.year <= 9999).then_some(date)
    }

    fn push(self, key: &mut KeyBuf) {
        push_digits(self.year, 4, key);
        key.push(b'-');
        push_digits(self.month, 2, key);
        key.push(b'-');
        push_digits(self.day, 2, key);
    }
}

fn push_digits(number: u32, width: u32, key: &mut KeyBuf) {
    for place in (0..width).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        key.push(b"0123456789"[digit as usize]);
    }
}

fn no_such_day(raw: &str) -> Refusal {
    Refusal::new(format!("{} names a day that is in no calendar", quoted(raw)), "send a day of the years 0001 to 9999")
}

pub(super) fn date(raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    let Some(date) = leading_date(raw).filter(|_| raw.len() == 10) else {
        return Err(Refusal::new(format!("{} is not of type date", quoted(raw)), "send YYYY-MM-DD"));
    };
    if !date.exists() {
        return Err(no_such_day(raw));
    }
    date.push(key);
    Ok(())
}

/// Date, time, and what is left behind them.
fn date_and_time<'a>(raw: &'a str, kind: &str, form: &str) -> Result<(Date, Time<'a>, &'a str), Refusal> {
    let malformed = || Refusal::new(format!("{} is not of type {kind}", quoted(raw)), format!("send {form}"));
    let date = leading_date(raw).ok_or_else(malformed)?;
    let (hour, minute) = (digits(raw, 11, 2).ok_or_else(malformed)?, digits(raw, 14, 2).ok_or_else(malformed)?);
    if !matches!(raw.as_bytes()[10], b'T' | b' ') || raw.as_bytes()[13] != b':' {
        return Err(malformed());
    }
    // All bytes up to here are ASCII, so this is a character boundary, and so is each one below.
    let mut rest = &raw[16..];
    let (mut seconds, mut fraction) = (0, "");
    if rest.starts_with(':') {
        seconds = digits(rest, 1, 2).ok_or_else(malformed)?;
        rest = &rest[3..];
        if let Some(tail) = rest.strip_prefix('.') {
            let length = tail.bytes().take_while(u8::is_ascii_digit).count();
            if length == 0 {
                return Err(malformed());
            }
            if length > 6 {
                return Err(Refusal::new(
                    format!("{} has more than six digits of a second's fraction", quoted(raw)),
                    "send microseconds at most, as Postgres stores them",
                ));
            }
            fraction = tail[..length].trim_end_matches('0');
            rest = &tail[length..];
        }
    }
    if !date.exists() {
        return Err(no_such_day(raw));
    }
    if hour > 23 || minute > 59 || seconds > 59 {
        return Err(Refusal::new(
            format!("{} names a time that is on no clock", quoted(raw)),
            "send a time from 00:00:00 to 23:59:59.999999",
        ));
    }
    Ok((date, Time { minutes: hour * 60 + minute, seconds, fraction }, rest))
}

fn push_both(date: Date, time: &Time<'_>, key: &mut KeyBuf) {
    date.push(key);
    key.push(b' ');
    push_digits(time.minutes / 60, 2, key);
    key.push(b':');
    push_digits(time.minutes % 60, 2, key);
    key.push(b':');
    push_digits(time.seconds, 2, key);
    if !time.fraction.is_empty() {
        key.push(b'.');
        key.extend_from_slice(time.fraction.as_bytes());
    }
}

pub(super) fn timestamp(raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    const FORM: &str = "YYYY-MM-DDTHH:MM:SS";
    let (date, time, rest) = date_and_time(raw, "timestamp", FORM)?;
    if !rest.is_empty() {
        let (detail, hint) = if rest.starts_with(['Z', 'z', '+', '-', ' ']) {
            ("has an offset, and timestamp has none", "leave the offset out, or use a timestamptz parameter".to_owned())
        } else {
            ("is not of type timestamp", format!("send {FORM}"))
        };
        return Err(Refusal::new(format!("{} {detail}", quoted(raw)), hint));
    }
    push_both(date, &time, key);
    Ok(())
}

pub(super) fn timestamptz(raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    const DAY: u32 = 24 * 60;
    const FORM: &str = "YYYY-MM-DDTHH:MM:SSZ, or an offset such as +02:00 instead of Z";
    let (mut date, mut time, rest) = date_and_time(raw, "timestamptz", FORM)?;
    let Some((east, offset)) = offset(rest) else {
        return Err(if rest.is_empty() {
            Refusal::new(format!("{} has no offset, and timestamptz needs one", quoted(raw)), "append Z for UTC")
        } else if rest.starts_with(' ') {
            Refusal::new(
                format!("{} has a space where its offset begins", quoted(raw)),
                "a + in a URL is a space: write %2B",
            )
        } else {
            Refusal::new(format!("{} is not of type timestamptz", quoted(raw)), format!("send {FORM}"))
        });
    };
    let moved = if east && offset > time.minutes {
        time.minutes += DAY - offset;
        date.previous()
    } else if east {
        time.minutes -= offset;
        Some(date)
    } else if time.minutes + offset >= DAY {
        time.minutes = time.minutes + offset - DAY;
        date.next()
    } else {
        time.minutes += offset;
        Some(date)
    };
    date = moved.ok_or_else(|| no_such_day(raw))?;
    push_both(date, &time, key);
    key.extend_from_slice(b"+00");
    Ok(())
}

/// Whether east of Greenwich, and by how many minutes.
fn offset(rest: &str) -> Option<(bool, u32)> {
    if rest == "Z" || rest == "z" {
        return Some((true, 0));
    }
    let east = match rest.as_bytes().first()? {
        b'+' => true,
        b'-' => false,
        _ => return None,
    };
    let hours = digits(rest, 1, 2)?;
    let minutes = match rest.len() {
        3 => 0,
        5 => digits(rest, 3, 2)?,
        6 if rest.as_bytes()[3] == b':' => digits(rest, 4, 2)?,
        _ => return None,
    };
    (hours <= MAX_OFFSET_HOURS && minutes <= 59).then_some((east, hours * 60 + minutes))
}
