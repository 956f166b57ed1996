//! Sharing an answer: one script, which writes it unless what is there was read later (R4).

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use bb8_redis::redis::{RedisError, Script};

use super::connect::Link;
use super::{Names, lease, whole_ms};
use crate::readthrough::shared::Token;
use crate::stamp::{Snapshot, Stamp};
use crate::telemetry::metrics::Shared;

/// KEYS: where it goes, first lease, second lease, mark. ARGV: the envelope; what is left of its lifetime, in ms; its stamp, as in
/// the envelope's first line; the token of the lease that it ends, empty for none; the channel; what the place is called there.
///
/// Transaction ids are compared as texts of twenty digits: Lua's numbers are doubles, which are exact to 2^53 only. What is there
/// and can't be read makes room.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local id = string.rep('%d', 20)
local function parse(text)
  local max, ip = string.match(text, '^sw1 (' .. id .. '):([%d,]*)\n')
  if max and string.gsub(ip .. ',', id .. ',', '') == (ip == '' and ',' or '') then return max, ip end
end
local function covers(amax, aip, bmax, bip)
  if amax < bmax then return false end
  local running = {}
  for x in string.gmatch(bip, id) do running[x] = true end
  for x in string.gmatch(aip, id) do
    if x < bmax and not running[x] then return false end
  end
  return true
end
local function ends(with)
  for slot = 2, 3 do
    if ARGV[4] ~= '' and redis.call('GETRANGE', KEYS[slot], 0, 31) == ARGV[4] then redis.call('DEL', KEYS[slot]) end
  end
  redis.call('PUBLISH', ARGV[5], ARGV[6])
  return with
end
local head = redis.call('GETRANGE', KEYS[1], 0, 4095)
local max, ip = parse(head)
if not max and #head == 4096 then max, ip = parse(redis.call('GET', KEYS[1])) end
if max then
  local newmax, newip = parse(ARGV[3])
  if not covers(newmax, newip, max, ip) then
    if covers(max, ip, newmax, newip) then return ends(0) end
    return ends(2)
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[4])
return ends(1)
",
    )
});

/// The first line of an envelope: what the script compares.
pub(super) fn head(stamp: &Stamp) -> String {
    format!("sw1 {}\n", ids(&stamp.snapshot))
}

/// A snapshot but for its xmin, in digits of equal length.
pub(super) fn ids(snapshot: &Snapshot) -> String {
    let mut text = String::with_capacity(24 + 21 * snapshot.running());
    let _ = write!(text, "{:020}:", snapshot.xmax());
    for (at, xid) in snapshot.xip().iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{xid:020}");
    }
    text
}

/// Writes `bytes` at the place of `names`, where they live for `left`, ends the lease of `token`, and says so on `channel`.
pub(super) async fn publish(
    connection: &mut Link,
    names: &Names,
    bytes: &[u8],
    stamp: &Stamp,
    left: Duration,
    token: Option<Token>,
    channel: &str,
) -> Result<Shared, RedisError> {
    let mut call = SCRIPT.key(&names.value);
    call.key(&names.leases[0]).key(&names.leases[1]).key(&names.mark);
    call.arg(bytes).arg(whole_ms(left)).arg(head(stamp)).arg(token.map(lease::hex).unwrap_or_default());
    let answered: i64 = call.arg(channel).arg(&names.digest[..]).invoke_async(connection).await?;
    Ok(match answered {
        1 => Shared::Published,
        0 => Shared::Superseded,
        _ => Shared::Incomparable,
    })
}
