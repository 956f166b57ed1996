//! Whichever server sentinels name, if it says itself that it is the master.
//!
//! They are asked whenever a connection is made, and never otherwise: a master that fails takes its connections with it, and one
//! that has become a replica refuses writes, upon which its connections are used no more. A sentinel that is away, knows nothing or
//! names a server that is no master (since it has not heard yet, or lies) is passed over.

use bb8_redis::redis::{self, ErrorKind, RedisError};

use super::wire::{Door, Wire, first_of};
use crate::redis::url::Address;

#[derive(Clone)]
pub(super) struct Sentinels {
    addresses: Vec<Address>,
    door: Door,
    master: String,
}

impl Sentinels {
    /// `door` is theirs: they need not know the user that servers know.
    pub(super) fn new(addresses: Vec<Address>, door: Door, master: String) -> Self {
        Self { addresses, door, master }
    }

    /// Where the master is, and a connection to it by `servers`, over which it has said so.
    pub(super) async fn find(&self, servers: &Door) -> Result<(Address, Wire), RedisError> {
        let mut order = self.addresses.clone();
        // Not all pods ask the same one first.
        fastrand::shuffle(&mut order);
        first_of(order, |sentinel| self.ask(sentinel, servers)).await.map_err(|error| {
            let why = error.to_string();
            RedisError::from((ErrorKind::Io, "no sentinel leads to the master", why))
        })
    }

    async fn ask(&self, sentinel: Address, servers: &Door) -> Result<(Address, Wire), RedisError> {
        let mut asked = self.door.open(&sentinel).await?;
        let mut which = redis::cmd("SENTINEL");
        which.arg("get-master-addr-by-name").arg(&self.master);
        let Some((host, port)) = which.query_async::<Option<(String, u16)>>(&mut asked.connection).await? else {
            return Err(RedisError::from((ErrorKind::Io, "it knows no master of that name")));
        };
        let master = Address { host, port };
        let mut wire = servers.open(&master).await?;
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut wire.connection).await?;
        match role.first() {
            Some(redis::Value::BulkString(role)) if role == b"master" => Ok((master, wire)),
            _ => Err(RedisError::from((ErrorKind::Io, "the server that it names is no master", master.to_string()))),
        }
    }
}
