//! Content codings: the forms of a body that are shorter than the body (RFC 9110 section 8.4.1).
//!
//! Each coding has one level, chosen where the next one saves little for much more time. Measured on JSON rows of 1, 8, 94 and
//! 944 kB: zstd at 3 leaves 35, 23, 20 and 20 % in 12, 20, 123 and 1,774 us, at 6 it takes up to five times as long for
//! 0.4 to 1.4 points less; brotli at 4 leaves the same in 18, 58, 671 and 7,033 us, and from 5 on it needs 0.4 to 3 ms for the
//! smallest; gzip at 6 leaves 36, 23, 19 and 18 % in 10, 44, 1,915 and 21,082 us.

use std::io::Write as _;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Zstandard: RFC 8878, with the window that RFC 9659 allows.
    Zstd,
    /// Brotli: RFC 7932.
    Brotli,
    /// Gzip: RFC 1952.
    Gzip,
}

/// How many there are.
pub const CODINGS: usize = Coding::ALL.len();

/// Its window is 2 MB at most; clients may refuse those over 8 MB (RFC 9659).
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: i32 = 4;
const GZIP_LEVEL: u32 = 6;

/// What a packed body must save to be kept: the tenth part. Below it the client's work, and ours, is for nothing.
const GAIN: usize = 10;

impl Coding {
    /// Every coding, the one with the best ratio for its time first.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding of this name, in any case; `x-gzip` is gzip (RFC 9110 section 8.4.1.3).
    pub fn named(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.as_str().as_bytes()))
    }

    /// The coding whose registered name this is, as it stands.
    pub fn exactly(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|coding| name == coding.as_str().as_bytes())
    }

    /// `body` in this coding, in a buffer of exactly its size; `None` where that saves less than a tenth.
    ///
    /// Takes 2 to 20 ms for each megabyte: not for a thread that others wait on.
    pub fn pack(self, body: &[u8]) -> Option<Box<[u8]>> {
        let packed = match self {
            Self::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL).ok()?,
            Self::Brotli => brotli(body)?,
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(body).ok()?;
                encoder.finish().ok()?
            }
        };
        (packed.len() <= body.len() - body.len().div_ceil(GAIN)).then(|| packed.into_boxed_slice())
    }

    /// What Zstandard made of a body of exactly `bytes` bytes; `None` where it is anything else. Allocates no more than that.
    pub fn unpack_zstd(packed: &[u8], bytes: usize) -> Option<Box<[u8]>> {
        let body = zstd::bulk::decompress(packed, bytes).ok()?;
        (body.len() == bytes).then(|| body.into_boxed_slice())
    }
}

/// Codings in order of preference, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codings([Option<Coding>; CODINGS]);

impl Codings {
    /// Every coding, in the order of [`Coding::ALL`].
    pub fn all() -> Self {
        Self(Coding::ALL.map(Some))
    }

    /// Adds one as the least preferred; false where it is among them.
    pub fn push(&mut self, coding: Coding) -> bool {
        let new = !self.iter().any(|known| known == coding);
        if let Some(free) = self.0.iter_mut().find(|place| new && place.is_none()) {
            *free = Some(coding);
        }
        new
    }

    /// The preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = Coding> {
        self.0.iter().copied().flatten()
    }
}

fn brotli(body: &[u8]) -> Option<Vec<u8>> {
    let params = brotli::enc::BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        // No larger than the body needs: the encoder allocates by it.
        lgwin: i32::try_from(body.len().max(2).next_power_of_two().ilog2()).unwrap_or(22).clamp(10, 22),
        size_hint: body.len(),
        ..Default::default()
    };
    let mut packed = vec![];
    brotli::BrotliCompress(&mut &body[..], &mut packed, &params).ok()?;
    Some(packed)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn unpacked(coding: Coding, packed: &[u8]) -> Vec<u8> {
        let mut body = vec![];
        match coding {
            Coding::Zstd => body = zstd::bulk::decompress(packed, 1 << 24).expect("zstd"),
            Coding::Brotli => drop(brotli::Decompressor::new(packed, 4096).read_to_end(&mut body).expect("brotli")),
            Coding::Gzip => drop(flate2::read::GzDecoder::new(packed).read_to_end(&mut body).expect("gzip")),
        }
        body
    }

    #[test]
    fn what_is_packed_is_shorter_and_unpacks_to_the_body() {
        for rows in [20, 300, 40_000] {
            let rows: Vec<String> =
                (0..rows).map(|n| format!("{{\"id\":{n},\"name\":\"row {}\"}}", n * 7919 % 1000)).collect();
            let body = rows.join(",");
            for coding in Coding::ALL {
                let packed = coding.pack(body.as_bytes()).expect("rows pack well");
                assert!(packed.len() * 2 < body.len(), "{coding:?}: {} of {}", packed.len(), body.len());
                if coding == Coding::Zstd {
                    let is_body = |bytes| Coding::unpack_zstd(&packed, bytes).is_some_and(|it| *it == *body.as_bytes());
                    assert!(is_body(body.len()) && !is_body(body.len() - 1) && !is_body(body.len() + 1));
                }
                assert!(unpacked(coding, &packed) == body.as_bytes(), "{coding:?} of {} rows", rows.len());
            }
        }
    }

    #[test]
    fn what_saves_less_than_a_tenth_is_not_kept() {
        let mut chance = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| chance.u8(..)).take(4096).collect();
        for coding in Coding::ALL {
            assert_eq!(coding.pack(&noise), None, "{coding:?}");
            assert_eq!(coding.pack(b""), None, "{coding:?}");
            // Noise with an eighth of zeros saves a little more than that tenth, one with a sixteenth less.
            let with_zeros = |share: usize| {
                let mut body = noise.clone();
                body[..4096 / share].fill(0);
                coding.pack(&body)
            };
            assert!(with_zeros(8).is_some_and(|packed| packed.len() <= 4096 - 410), "{coding:?}");
            assert_eq!(with_zeros(16), None, "{coding:?}");
        }
    }

    #[test]
    fn each_coding_is_once_in_an_order_of_preference() {
        let mut order = Codings::default();
        assert!(order.push(Coding::Gzip) && order.push(Coding::Zstd) && !order.push(Coding::Gzip));
        assert_eq!(order.iter().collect::<Vec<_>>(), [Coding::Gzip, Coding::Zstd]);
        assert!(order.push(Coding::Brotli) && Codings::all().iter().eq(Coding::ALL));
    }

    #[test]
    fn codings_go_by_their_registered_names() {
        assert_eq!(Coding::named(b"GZip"), Some(Coding::Gzip));
        assert_eq!(Coding::named(b"x-gzip"), Some(Coding::Gzip));
        assert_eq!(Coding::named(b"br"), Some(Coding::Brotli));
        assert_eq!(Coding::named(b"zstd"), Some(Coding::Zstd));
        assert_eq!(Coding::named(b"deflate"), None);
        assert_eq!(Coding::named(b""), None);
    }
}
