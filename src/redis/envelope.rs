//! The envelope: how an answer lies in Redis.
//!
//! ```text
//! sw1 <xmax>:<xip>,…\n     twenty digits each; the script compares this line
//! 8  xmin
//! 32 SHA-256 of history, schema and key: what it is an answer to
//! 1  bit 0: there is no row; bit 1: the body is in Zstandard
//! 8  lifetime when it was filled, in microseconds
//! 4  what its rebuild took, in microseconds
//! 2  how many tags;  8 each: their hashes
//! 4  length of the body as it was;  the body
//! 8  XXH3 of all that is before
//! ```
//!
//! Numbers are little-endian. What does not read to the last byte, or is another's, is nothing: [`decode`] never fails in
//! another way, whatever it is given, and allocates no more than what it was given and the longest body.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::publish;
use crate::cache::entry::Entry;
use crate::coding::Coding;
use crate::readthrough::shared::SharedValue;
use crate::stamp::Snapshot;
use crate::tag::Tag;

const ABSENT: u8 = 1;
const PACKED: u8 = 2;

/// Shorter bodies are not packed: the round trip costs the same, and the processor's time is the answer's.
const PACKED_FROM: usize = 2048;

/// The envelope of `entry`; `None` where it has more tags than any query has.
pub(super) fn encode(entry: &Entry, digest: &[u8; 32]) -> Option<Vec<u8>> {
    let body = entry.body();
    let packed = if body.len() >= PACKED_FROM { Coding::Zstd.pack(body) } else { None };
    let flags = if entry.is_absent() { ABSENT } else { 0 } | if packed.is_some() { PACKED } else { 0 };
    let stored = packed.as_deref().unwrap_or(body);
    let tags = entry.tags();
    let mut bytes = publish::head(entry.stamp()).into_bytes();
    bytes.reserve_exact(8 + 32 + 1 + 8 + 4 + 2 + 8 * tags.len() + 4 + stored.len() + 8);
    bytes.extend(entry.stamp().snapshot.xmin().to_le_bytes());
    bytes.extend(digest);
    bytes.push(flags);
    bytes.extend(micros(entry.expires().since(entry.filled())).to_le_bytes());
    bytes.extend(u32::try_from(micros(entry.took())).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(u16::try_from(tags.len()).ok()?.to_le_bytes());
    for tag in tags.iter() {
        bytes.extend(tag.bits().to_le_bytes());
    }
    bytes.extend(u32::try_from(body.len()).ok()?.to_le_bytes());
    bytes.extend(stored);
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Some(bytes)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the envelope `bytes` holds for the place of `digest`; `left` of its lifetime is left.
pub(super) fn decode(bytes: &[u8], digest: &[u8; 32], left: Duration, body_max_bytes: usize) -> Option<SharedValue> {
    let (said, sum) = bytes.split_last_chunk::<8>()?;
    if u64::from_le_bytes(*sum) != xxh3_64(said) {
        return None;
    }
    let line = said.iter().position(|&byte| byte == b'\n')?;
    let head = std::str::from_utf8(&said[..line]).ok()?.strip_prefix("sw1 ")?;
    let (xmax, xip) = head.split_once(':')?;
    let xip = match xip {
        "" => vec![],
        list => list.split(',').map(|xid| xid.parse().ok()).collect::<Option<Vec<u64>>>()?,
    };
    let mut rest = &said[line + 1..];
    let xmin = u64::from_le_bytes(*take(&mut rest)?);
    let snapshot = Snapshot::checked(xmin, xmax.parse().ok()?, xip.into()).ok()?;
    if take::<32>(&mut rest)? != digest {
        return None;
    }
    let [flags] = *take(&mut rest)?;
    let lifetime = Duration::from_micros(u64::from_le_bytes(*take(&mut rest)?));
    let took = Duration::from_micros(u32::from_le_bytes(*take(&mut rest)?).into());
    let count = u16::from_le_bytes(*take(&mut rest)?);
    let tags = (0..count)
        .map(|_| take(&mut rest).map(|bits| Tag::of_bits(u64::from_le_bytes(*bits))))
        .collect::<Option<Vec<_>>>()?;
    let length = usize::try_from(u32::from_le_bytes(*take(&mut rest)?)).ok()?;
    if length > body_max_bytes || flags & !(ABSENT | PACKED) != 0 {
        return None;
    }
    let body = match flags & PACKED {
        0 => (rest.len() == length).then(|| rest.into())?,
        _ => Coding::unpack_zstd(rest, length)?,
    };
    let body = match flags & ABSENT {
        0 => Some(body),
        _ => body.is_empty().then_some(None)?,
    };
    // Redis counts whole milliseconds, and may have been told a longer life by somebody else.
    (left <= lifetime + Duration::from_millis(1)).then_some(())?;
    Some(SharedValue { body, snapshot, tags, lifetime, left: left.min(lifetime), took })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, more) = rest.split_first_chunk::<N>()?;
    *rest = more;
    Some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::entry::Draft;
    use crate::clock::Moment;
    use crate::stamp::{Lineage, Stamp};

    const DIGEST: [u8; 32] = [7; 32];
    const LIFETIME: Duration = Duration::from_secs(60);

    fn entry(body: Option<&[u8]>, snapshot: &str, tags: &[u64]) -> Entry {
        let snapshot = Snapshot::parse(snapshot).expect("well-formed");
        Entry::new(Draft {
            route: 0,
            body: body.map(Into::into),
            stamp: Stamp { lineage: Lineage::new("l"), snapshot },
            tags: tags.iter().map(|&bits| Tag::of_bits(bits)).collect(),
            basis: 0,
            max_lag: Duration::MAX,
            filled: Moment::from_nanos(1 << 40),
            took: Duration::from_micros(77),
            lifetime: LIFETIME,
            early_refresh: 1.0,
            certified: 0,
            etag_seed: 0,
            uses: None,
        })
    }

    fn read(bytes: &[u8]) -> Option<SharedValue> {
        decode(bytes, &DIGEST, LIFETIME / 2, 1 << 20)
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let long = b"{\"id\":1,\"name\":\"x\"},".repeat(500);
        for (body, snapshot) in [
            (Some(&b"[1]"[..]), "5:9:6,7"),
            (None, "5:5:"),
            (Some(&long[..]), "18446744073709551614:18446744073709551615:18446744073709551614"),
            (Some(b"[]"), "5:9:"),
        ] {
            let entry = entry(body, snapshot, &[1, u64::MAX]);
            let bytes = encode(&entry, &DIGEST).expect("an envelope");
            assert!(bytes.len() < 500, "a long body is packed");
            let value = read(&bytes).expect("it reads");
            assert_eq!((value.body.as_deref(), &value.snapshot), (body, &entry.stamp().snapshot));
            assert_eq!((value.tags, value.took), (entry.tags().to_vec(), Duration::from_micros(77)));
            assert_eq!((value.lifetime, value.left), (LIFETIME, LIFETIME / 2));
        }
    }

    #[test]
    fn what_is_anothers_or_too_long_or_lives_too_long_is_nothing() {
        let bytes = encode(&entry(Some(&[b'x'; 100]), "5:9:6", &[1]), &DIGEST).expect("an envelope");
        assert!(decode(&bytes, &[8; 32], LIFETIME, 100).is_none());
        assert!(decode(&bytes, &DIGEST, LIFETIME, 99).is_none());
        assert!(decode(&bytes, &DIGEST, LIFETIME, 100).is_some());
        assert!(decode(&bytes, &DIGEST, LIFETIME + Duration::from_millis(2), 100).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5_000) })]

        #[test]
        fn whatever_was_harmed_is_nothing(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = encode(&entry(Some(&[b'x'; 3000]), "5:9:6,8", &[1, 2]), &DIGEST).expect("one");
            let at = at.index(bytes.len());
            prop_assume!(cut || bytes[at] != to);
            if cut { bytes.truncate(at) } else { bytes[at] = to }
            prop_assert!(read(&bytes).is_none());
        }

        /// With the sum right: a version of another mind, or somebody who means harm.
        #[test]
        fn no_bytes_stop_it(mut bytes in prop::collection::vec(any::<u8>(), 0..200), like in any::<bool>()) {
            if like {
                let mut good = encode(&entry(Some(b"[]"), "5:9:6", &[1]), &DIGEST).expect("one");
                good.truncate(good.len() - 8);
                for (at, byte) in bytes.iter().enumerate().skip(190) {
                    let n = good.len();
                    good[at * 7 % n] = *byte;
                }
                bytes = good;
            }
            bytes.extend(xxh3_64(&bytes).to_le_bytes());
            let _ = read(&bytes);
        }
    }

    #[test]
    fn the_first_line_is_what_the_script_compares() {
        let stamp = |text: &str| Stamp { lineage: Lineage::new("l"), snapshot: Snapshot::parse(text).expect("one") };
        assert_eq!(
            publish::head(&stamp("5:9:6,7")),
            "sw1 00000000000000000009:00000000000000000006,00000000000000000007\n"
        );
        assert_eq!(publish::head(&stamp("5:5:")), "sw1 00000000000000000005:\n");
    }
}
