//! Sharing an answer: one script, which writes it unless what is there was read later (R4).

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{RedisError, Script};

use crate::stamp::Stamp;
use crate::telemetry::metrics::Shared;

/// KEYS\[1\]: where it goes. ARGV: the envelope; what is left of its lifetime, in ms; its stamp, as in the envelope's first line.
///
/// Transaction ids are compared as texts of twenty digits: Lua's numbers are doubles, which are exact to 2^53 only. What is there
/// and can't be read makes room. One key: it stays on one slot of a cluster.
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
local head = redis.call('GETRANGE', KEYS[1], 0, 4095)
local max, ip = parse(head)
if not max and #head == 4096 then max, ip = parse(redis.call('GET', KEYS[1])) end
if max then
  local newmax, newip = parse(ARGV[3])
  if not covers(newmax, newip, max, ip) then
    if covers(max, ip, newmax, newip) then return 0 end
    return 2
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
",
    )
});

/// The first line of an envelope: what the script compares.
pub(super) fn head(stamp: &Stamp) -> String {
    let snapshot = &stamp.snapshot;
    let mut text = String::with_capacity(32 + 21 * snapshot.running());
    let _ = write!(text, "sw1 {:020}:", snapshot.xmax());
    for (at, xid) in snapshot.xip().iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{xid:020}");
    }
    text.push('\n');
    text
}

/// Writes `bytes` under `key`, where they live for `left`.
pub(super) async fn publish(
    connection: &mut MultiplexedConnection,
    key: &str,
    bytes: &[u8],
    stamp: &Stamp,
    left: Duration,
) -> Result<Shared, RedisError> {
    // Redis takes no more than an i64, and no year is as long.
    let ms = i64::try_from(left.as_millis()).unwrap_or(i64::MAX / 1_000_000).max(1);
    let mut call = SCRIPT.key(key);
    let answered: i64 = call.arg(bytes).arg(ms).arg(head(stamp)).invoke_async(connection).await?;
    Ok(match answered {
        1 => Shared::Published,
        0 => Shared::Superseded,
        _ => Shared::Incomparable,
    })
}
