//! Slots of a cluster: which of them a key is in, which key a command is about, and who has which.

use bb8_redis::redis::{Arg, Cmd, ErrorKind, RedisError, Value};

use crate::redis::url::Address;

/// How many there are.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of `key`: CRC16 (XMODEM) of its hash tag, or of all of it.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&byte| byte == b'}').filter(|&length| length > 0).map(|length| &rest[..length])
    });
    tag.unwrap_or(key).iter().fold(0_u16, |crc, &byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    }) % SLOTS
}

/// The slot of what `command` is about; `None`: it is about no key.
pub(super) fn slot_of_command(command: &Cmd) -> Option<u16> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => b"",
    });
    let name = words.next()?.to_ascii_uppercase();
    let key = match &name[..] {
        // EVALSHA <sha> <how many keys> <key>…
        b"EVALSHA" | b"EVAL" => words.nth(1).filter(|&count| count != b"0").and_then(|_| words.next()),
        b"SCRIPT" | b"PING" | b"CLUSTER" | b"ROLE" | b"INFO" => None,
        _ => words.next(),
    };
    key.map(slot_of)
}

/// Who has which slot, as one of the servers said, and as redirections have corrected it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Map {
    masters: Vec<Address>,
    /// For each slot, which of `masters`.
    owners: Vec<Option<u16>>,
}

impl Map {
    /// Reads an answer to `CLUSTER SLOTS` that `asked` gave.
    pub(super) fn read(answer: &Value, asked: &Address) -> Result<Self, RedisError> {
        let mut map = Self { masters: vec![], owners: vec![None; SLOTS.into()] };
        let unreadable = || RedisError::from((ErrorKind::Parse, "its slots can't be read"));
        let Value::Array(ranges) = answer else { return Err(unreadable()) };
        for range in ranges {
            let Value::Array(range) = range else { return Err(unreadable()) };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
                return Err(unreadable());
            };
            let [host, Value::Int(port), ..] = &master[..] else { return Err(unreadable()) };
            let host = match host {
                Value::BulkString(host) => std::str::from_utf8(host).map_err(|_| unreadable())?,
                Value::SimpleString(host) => host,
                _ => "",
            };
            let address = named(host, u16::try_from(*port).map_err(|_| unreadable())?, asked);
            let master = map.place_of(address);
            let slots = usize::try_from(*first).ok().zip(usize::try_from(*last).ok());
            let slots = slots.filter(|(first, last)| first <= last);
            let owners = slots.and_then(|(first, last)| map.owners.get_mut(first..=last)).ok_or_else(unreadable)?;
            owners.fill(Some(master));
        }
        if map.masters.is_empty() {
            return Err(RedisError::from((ErrorKind::Io, "it is no part of a cluster that has slots")));
        }
        Ok(map)
    }

    fn place_of(&mut self, address: Address) -> u16 {
        let at = self.masters.iter().position(|known| *known == address).unwrap_or_else(|| {
            self.masters.push(address);
            self.masters.len() - 1
        });
        // Each has a slot of its own at least, and of slots there are fewer.
        u16::try_from(at).unwrap_or(0)
    }

    /// Who has `slot`. Where nobody is known to, somebody, who will say more.
    pub(super) fn owner(&self, slot: u16) -> &Address {
        let known = self.owners[usize::from(slot % SLOTS)].map(usize::from);
        &self.masters[known.unwrap_or_else(|| fastrand::usize(..self.masters.len()))]
    }

    /// `slot` is another's.
    pub(super) fn moved(&mut self, slot: u16, to: Address) {
        let before = self.masters.len();
        let master = self.place_of(to);
        self.owners[usize::from(slot % SLOTS)] = Some(master);
        // Whoever has no slot left may be gone for good, and is looked for when there is somebody new.
        if self.masters.len() > before {
            self.forget_the_idle();
        }
    }

    fn forget_the_idle(&mut self) {
        let mut used = vec![false; self.masters.len()];
        self.owners.iter().flatten().for_each(|&master| used[usize::from(master)] = true);
        let before = std::mem::take(&mut self.masters);
        let mut places = vec![0; before.len()];
        for (at, address) in before.into_iter().enumerate().filter(|(at, _)| used[*at]) {
            places[at] = self.place_of(address);
        }
        self.owners.iter_mut().flatten().for_each(|master| *master = places[usize::from(*master)]);
    }

    pub(super) fn masters(&self) -> &[Address] {
        &self.masters
    }

    /// A slot of each master.
    pub(super) fn one_of_each(&self) -> Vec<u16> {
        let first_of = |master| self.owners.iter().position(|owner| owner.is_some_and(|it| usize::from(it) == master));
        (0..self.masters.len()).filter_map(first_of).filter_map(|slot| u16::try_from(slot).ok()).collect()
    }
}

/// The address that a server of a cluster names: without a host it means itself.
fn named(host: &str, port: u16, by: &Address) -> Address {
    let host = if host.is_empty() || host == "?" { &by.host } else { host };
    Address { host: host.to_owned(), port }
}

/// Where `MOVED` and `ASK` lead: what follows the word, said by `by`.
pub(super) fn redirection(details: &str, by: &Address) -> Option<(u16, Address)> {
    let (slot, address) = details.split_once(' ')?;
    let (host, port) = address.trim_end().rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((slot.parse().ok()?, named(host, port.parse().ok()?, by)))
}

/// A hash tag whose slot is `slot`.
pub(super) fn tag_in(slot: u16) -> String {
    // One try of 16,384 succeeds, on average: a millisecond.
    (0..u32::MAX).map(|n| format!("{n:x}")).find(|tag| slot_of(tag.as_bytes()) == slot).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bb8_redis::redis::cmd;

    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "h".into(), port }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let (master, replica) = (Value::Array(vec![host, Value::Int(port), text("id")]), Value::Array(vec![text("r")]));
        Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
    }

    #[test]
    fn keys_are_in_the_slots_that_redis_says() {
        // From the specification of clusters, and CLUSTER KEYSLOT.
        for (key, slot) in [
            ("123456789", 0x31c3),
            ("foo", 12_182),
            ("{foo}bar", 12_182),
            ("a{foo}{bar}", 12_182),
            ("foo{}{bar}", slot_of(b"foo{}{bar}")),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(slot_of(b"{}a"), slot_of(b"{}b"), "an empty tag is none");
        for slot in (0..SLOTS).step_by(1009) {
            assert_eq!(slot_of(format!("x{{{}}}y", tag_in(slot)).as_bytes()), slot);
        }
    }

    #[test]
    fn a_command_is_about_its_first_key() {
        let of = |words: &[&str]| slot_of_command(cmd(words[0]).arg(&words[1..]));
        assert_eq!(of(&["GET", "foo"]), Some(12_182));
        assert_eq!(of(&["set", "foo", "1", "PX", "2"]), Some(12_182));
        assert_eq!(of(&["EVALSHA", "sha", "2", "{foo}a", "{foo}b", "x"]), Some(12_182));
        assert_eq!(of(&["EVALSHA", "sha", "0", "foo"]), None);
        assert_eq!(of(&["SCRIPT", "LOAD", "return 1"]), None);
        assert_eq!(of(&["PING"]), None);
    }

    #[test]
    fn a_map_says_who_has_which_and_is_corrected() {
        let answer = Value::Array(vec![
            range(0, 9, text("h"), 1),
            range(10, 16_382, text("h"), 2),
            range(16_383, 16_383, text("h"), 1),
        ]);
        let mut map = Map::read(&answer, &at(9)).expect("readable");
        assert_eq!((map.owner(9), map.owner(10), map.owner(16_383)), (&at(1), &at(2), &at(1)));
        assert_eq!((map.masters(), map.one_of_each()), (&[at(1), at(2)][..], vec![0, 10]));
        map.moved(9, at(3));
        assert_eq!((map.owner(8), map.owner(9), map.masters().len()), (&at(1), &at(3), 3));
        // Slot by slot to another, as after a failover: whoever has none is forgotten.
        (0..SLOTS).for_each(|slot| map.moved(slot, at(4)));
        map.moved(0, at(5));
        assert_eq!((map.owner(0), map.owner(1), map.masters()), (&at(5), &at(4), &[at(4), at(5)][..]));
    }

    #[test]
    fn a_server_without_a_name_is_the_one_that_was_asked() {
        for host in [Value::Nil, text(""), text("?")] {
            let map = Map::read(&Value::Array(vec![range(0, 16_383, host, 7)]), &at(9)).expect("readable");
            assert_eq!(map.owner(0), &at(7));
        }
        assert_eq!(redirection("3999 h:6381", &at(1)), Some((3999, at(6381))));
        assert_eq!(redirection("3999 :6381", &at(1)), Some((3999, at(6381))));
        let six = Address { host: "::1".into(), port: 7 };
        assert_eq!(redirection("3 ::1:7", &at(1)), Some((3, six.clone())));
        assert_eq!(redirection("3 [::1]:7", &at(1)), Some((3, six)));
        for nonsense in ["", "x h:1", "3", "3 h", "3 h:x", "70000 h:1"] {
            assert_eq!(redirection(nonsense, &at(1)), None, "{nonsense}");
        }
    }

    #[test]
    fn slots_that_can_not_be_read_are_none() {
        let master = || Value::Array(vec![text("h"), Value::Int(1)]);
        for nonsense in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16_384, text("h"), 1)]),
            Value::Array(vec![range(-1, 5, text("h"), 1)]),
            Value::Array(vec![range(6, 5, text("h"), 1)]),
            Value::Array(vec![range(0, 5, text("h"), 70_000)]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(1), Value::Array(vec![])])]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), master()])]),
        ] {
            assert!(Map::read(&nonsense, &at(9)).is_err(), "{nonsense:?}");
        }
    }
}
