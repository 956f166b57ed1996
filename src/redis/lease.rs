//! Leases: scripts that claim one, make it last, and give it back.
//!
//! A lease's key holds the claim's token in 32 hexadecimal digits, and after it how far its holder's ledger had come, as in an
//! envelope's first line. Only who knows the token changes it. Beside the two leases of a place there may be a mark, by which
//! a holder says how it ended.

use std::sync::LazyLock;
use std::time::Duration;

use bb8_redis::redis::{ErrorKind, RedisError, Script, Value, from_redis_value};

use super::connect::Link;
use super::publish::ids;
use super::{Names, whole_ms};
use crate::readthrough::shared::{Claim, Ended, Holder, Token};
use crate::stamp::Snapshot;

/// KEYS: value, first lease, second lease, mark. ARGV: the last bytes of the value that the claimer knows; its token; its cursor;
/// its life in ms; how many leases it would take. What has no end is none of ours, and makes room.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GETRANGE', KEYS[1], -8, -1) ~= ARGV[1] then
  local value = redis.call('GET', KEYS[1])
  if value then return {'value', value, redis.call('PTTL', KEYS[1])} end
end
local mark, left = redis.call('GET', KEYS[4]), redis.call('PTTL', KEYS[4])
if mark and left > 0 then return {'marked', mark, left} end
for slot = 1, tonumber(ARGV[5]) do
  if redis.call('PTTL', KEYS[1 + slot]) == -1 then redis.call('DEL', KEYS[1 + slot]) end
  if redis.call('SET', KEYS[1 + slot], ARGV[2] .. ARGV[3], 'NX', 'PX', ARGV[4]) then return {'leased'} end
end
return {'held', redis.call('GET', KEYS[2]), redis.call('PTTL', KEYS[2]), redis.call('GET', KEYS[3]), redis.call('PTTL', KEYS[3])}
",
    )
});

/// KEYS: first lease, second lease. ARGV: the token; its life from now on, in ms.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for slot = 1, 2 do
  if redis.call('GETRANGE', KEYS[slot], 0, 31) == ARGV[1] then return redis.call('PEXPIRE', KEYS[slot], ARGV[2]) end
end
return 0
",
    )
});

/// KEYS: first lease, second lease, mark. ARGV: the token; the mark, empty for none; its life in ms; the channel; what the place is
/// called there.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for slot = 1, 2 do
  if redis.call('GETRANGE', KEYS[slot], 0, 31) == ARGV[1] then
    redis.call('DEL', KEYS[slot])
    if ARGV[2] ~= '' then redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3]) end
    redis.call('PUBLISH', ARGV[4], ARGV[5])
    return 1
  end
end
return 0
",
    )
});

/// Longest mark that is read: those that there are have a few words.
const MARK_MAX_BYTES: usize = 64;

/// More transactions than a Postgres runs are no cursor that is worth its bytes: it is left out, and the holder is sure to nobody.
const RUNNING_AT_MOST: usize = 1024;

/// What a claim came to, as Redis says it.
pub(super) enum Answered {
    Leased,
    /// The value, and what is left of its life in ms.
    Value(Vec<u8>, i64),
    Marked(String, Duration),
    Held(Vec<Holder>),
}

pub(super) fn hex(token: Token) -> String {
    format!("{:032x}", token.0)
}

fn ms(left: i64) -> Duration {
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

/// Claims a lease of the place of `names`.
pub(super) async fn claim(connection: &mut Link, names: &Names, claim: &Claim) -> Result<Answered, RedisError> {
    let cursor = claim.cursor.as_ref().filter(|cursor| cursor.running() <= RUNNING_AT_MOST).map(ids);
    let mut call = CLAIM.key(&names.value);
    call.key(&names.leases[0]).key(&names.leases[1]).key(&names.mark);
    call.arg(&claim.seen.0).arg(hex(claim.token)).arg(cursor.unwrap_or_default()).arg(whole_ms(claim.life));
    let answered: Vec<Value> = call.arg(if claim.second { 2 } else { 1 }).invoke_async(connection).await?;
    read(answered).ok_or_else(|| RedisError::from((ErrorKind::UnexpectedReturnType, "no answer to a claim")))
}

fn read(answered: Vec<Value>) -> Option<Answered> {
    fn next<T: bb8_redis::redis::FromRedisValue>(words: &mut impl Iterator<Item = Value>) -> Option<T> {
        from_redis_value(words.next()?).ok()
    }
    let mut words = answered.into_iter();
    Some(match next::<String>(&mut words)?.as_str() {
        "leased" => Answered::Leased,
        "value" => Answered::Value(next(&mut words)?, next(&mut words)?),
        "marked" => {
            let mut mark: Vec<u8> = next(&mut words)?;
            mark.truncate(MARK_MAX_BYTES);
            Answered::Marked(String::from_utf8_lossy(&mark).into_owned(), ms(next(&mut words)?))
        }
        "held" => {
            let mut holders = Vec::with_capacity(2);
            for _slot in 0..2 {
                let (lease, left): (Option<Vec<u8>>, i64) = (next(&mut words)?, next(&mut words)?);
                holders.extend(lease.map(|lease| holder(&lease, ms(left))));
            }
            Answered::Held(holders)
        }
        _ => return None,
    })
}

/// Who wrote `lease`. What is none of ours ends like one: it is waited for, and is sure to bring nothing.
fn holder(lease: &[u8], left: Duration) -> Holder {
    let text = str::from_utf8(lease).unwrap_or_default();
    let (token, cursor) = text.split_at_checked(32).unwrap_or((text, ""));
    let token = Token(u128::from_str_radix(token, 16).unwrap_or_default());
    Holder { token, cursor: cursor_of(cursor), left }
}

fn cursor_of(text: &str) -> Option<Snapshot> {
    let (xmax, xip) = text.split_once(':')?;
    let xmax = xmax.parse().ok()?;
    let xip = match xip {
        "" => vec![],
        list => list.split(',').map(|xid| xid.parse().ok()).collect::<Option<Vec<u64>>>()?,
    };
    let xmin = xip.iter().copied().min().unwrap_or(xmax);
    Snapshot::checked(xmin, xmax, xip.into()).ok()
}

/// Makes the lease of `token` last; false where it is no longer that claim's.
pub(super) async fn renew(
    connection: &mut Link,
    names: &Names,
    token: Token,
    life: Duration,
) -> Result<bool, RedisError> {
    let mut call = RENEW.key(&names.leases[0]);
    call.key(&names.leases[1]).arg(hex(token)).arg(whole_ms(life)).invoke_async(connection).await
}

/// Gives the lease of `token` back, if it is that claim's still, and says so on `channel`.
pub(super) async fn release(
    connection: &mut Link,
    names: &Names,
    token: Token,
    how: &Ended,
    channel: &str,
) -> Result<bool, RedisError> {
    let (mark, lasts) = match how {
        Ended::Free => ("", Duration::ZERO),
        Ended::Marked { word, lasts } => (word.as_str(), *lasts),
    };
    let mut call = RELEASE.key(&names.leases[0]);
    call.key(&names.leases[1]).key(&names.mark).arg(hex(token)).arg(mark).arg(whole_ms(lasts)).arg(channel);
    call.arg(&names.digest[..]).invoke_async(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_was_written_and_strange_bytes_are_sure_to_bring_nothing() {
        let snapshot = |text: &str| Snapshot::parse(text).expect("well-formed");
        for cursor in ["5:5:", "5:9:5,7", "18446744073709551610:18446744073709551615:18446744073709551610"] {
            let token = Token(u128::MAX - 7);
            let written = format!("{}{}", hex(token), ids(&snapshot(cursor)));
            let left = Duration::from_millis(3);
            assert_eq!(
                holder(written.as_bytes(), left),
                Holder { token, cursor: Some(snapshot(cursor)), left },
                "{cursor}"
            );
        }
        for strange in ["", "x", "00000000000000000000000000000007", "00000000000000000000000000000007:", "\u{e9}"] {
            assert_eq!(holder(strange.as_bytes(), Duration::ZERO).cursor, None, "{strange}");
        }
        let split = "0000000000000000000000000000000\u{e9}9:";
        assert_eq!(holder(split.as_bytes(), Duration::ZERO).cursor, None, "within a character");
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        let text = |text: &str| Value::BulkString(text.into());
        for strange in [
            vec![],
            vec![Value::Int(1)],
            vec![text("new")],
            vec![text("value"), text("x")],
            vec![text("marked"), text("x"), text("y")],
            vec![text("held"), Value::Nil, Value::Int(-2), Value::Nil],
        ] {
            assert!(read(strange.clone()).is_none(), "{strange:?}");
        }
        let none = vec![text("held"), Value::Nil, Value::Int(-2), Value::Nil, Value::Int(-2)];
        assert!(matches!(read(none), Some(Answered::Held(holders)) if holders.is_empty()));
    }
}
