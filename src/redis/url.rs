//! The URLs of `redis.url`: one server, a master that sentinels name, or a cluster.
//!
//! ```text
//! redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]
//! redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/MASTER[/DATABASE][?sentinel_user=…&sentinel_password=…]
//! redis+cluster://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/0]
//! ```
//!
//! `rediss` in place of `redis` is TLS, with everything that is spoken to. USER, PASSWORD, MASTER and the values behind `?` are
//! percent-encoded. What is wrong is said without any part of the URL: a piece of it may be a password in the wrong place.

use std::fmt;

use percent_encoding::percent_decode_str;

const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who a server is told that this is. A secret, so it has no `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// A user of its ACL; `None`: `default`.
    pub user: Option<String>,
    /// `None`: nothing is said.
    pub password: Option<String>,
}

/// What a URL leads to.
#[derive(Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    One(Address),
    /// Whichever server sentinels name.
    Sentinel {
        /// At least one.
        sentinels: Vec<Address>,
        /// The name by which they know it.
        master: String,
        /// Who they are told that this is: not the same as at the server.
        login: Login,
    },
    /// The masters of a cluster, of which these are some.
    Cluster(Vec<Address>),
}

/// A URL that is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// TLS with all of them.
    pub tls: bool,
    /// What it leads to.
    pub servers: Servers,
    /// Who the servers are told that this is.
    pub login: Login,
    /// The number of the database.
    pub database: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    Sentinel,
    Cluster,
}

/// Everything that is wrong with a URL, each with its remedy and without any part of it.
type Wrong = Vec<String>;

impl Url {
    /// Reads `text`.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its remedy.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let Some((tls, kind, rest)) = scheme(text) else {
            let why = "it is no URL of a Redis; write one such as \"redis://HOST:6379\" or \
                       \"redis://USER:PASSWORD@HOST:6379/0\" (rediss:// for TLS, redis+sentinel://, redis+cluster://)";
            return Err(vec![why.to_owned()]);
        };
        let mut wrong = vec![];
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            wrong.push("there is a blank in it; write it as a percent-encoded character, such as %20".to_owned());
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (login_of(login, &mut wrong), hosts),
            None => (Login::default(), authority),
        };
        let addresses = addresses(kind, hosts, &mut wrong);
        let (master, database) = path_of(kind, path, &mut wrong);
        let sentinel_login = query_of(kind, query, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut addresses = addresses.into_iter();
        let servers = match kind {
            Kind::One => Servers::One(addresses.next().ok_or_else(Wrong::default)?),
            Kind::Sentinel => Servers::Sentinel { sentinels: addresses.collect(), master, login: sentinel_login },
            Kind::Cluster => Servers::Cluster(addresses.collect()),
        };
        Ok(Self { tls, servers, login, database })
    }
}

fn scheme(text: &str) -> Option<(bool, Kind, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let (transport, kind) = match scheme.split_once('+') {
        None => (scheme, Kind::One),
        Some((transport, "sentinel")) => (transport, Kind::Sentinel),
        Some((transport, "cluster")) => (transport, Kind::Cluster),
        Some(_) => return None,
    };
    match transport {
        "redis" => Some((false, kind, rest)),
        "rediss" => Some((true, kind, rest)),
        _ => None,
    }
}

fn login_of(text: &str, wrong: &mut Wrong) -> Login {
    let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
    if password.is_none_or(str::is_empty) {
        // A server that needs none would not be told the name either, and nobody would know.
        wrong.push("it has a user and no password; write USER:PASSWORD@ or, without a user, :PASSWORD@".to_owned());
    }
    Login {
        user: Some(user).filter(|user| !user.is_empty()).map(|user| decoded(user, "user", wrong)),
        password: password.map(|password| decoded(password, "password", wrong)),
    }
}

fn decoded(text: &str, what: &str, wrong: &mut Wrong) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(
        |_| {
            wrong.push(format!("its {what} is no UTF-8 when it is percent-decoded; encode a % as %25"));
            String::new()
        },
        Into::into,
    )
}

fn addresses(kind: Kind, hosts: &str, wrong: &mut Wrong) -> Vec<Address> {
    let port = if kind == Kind::Sentinel { SENTINEL_PORT } else { SERVER_PORT };
    let listed: Vec<&str> = hosts.split(',').collect();
    if kind == Kind::One && listed.len() > 1 {
        let why = "it has several hosts; write one, or redis+sentinel:// or redis+cluster:// before them";
        wrong.push(why.to_owned());
    }
    let read: Vec<Option<Address>> = listed.iter().map(|text| address(text, port)).collect();
    for (at, _) in read.iter().enumerate().filter(|(_, address)| address.is_none()) {
        let which = if listed.len() == 1 { "its host".to_owned() } else { format!("host {} of its list", at + 1) };
        wrong
            .push(format!("{which} is none; write HOST:PORT as in \"redis://HOST:6379\", an IPv6 address in brackets"));
    }
    read.into_iter().flatten().collect()
}

fn address(text: &str, default_port: u16) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => default_port,
        Some(port) => Some(port).filter(|port| is_number(port))?.parse().ok().filter(|port| *port > 0)?,
    };
    (!host.is_empty()).then(|| Address { host: host.to_owned(), port })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The master's name, which only sentinels know, and the number of the database.
fn path_of(kind: Kind, path: &str, wrong: &mut Wrong) -> (String, u16) {
    let (master, database) = match kind {
        Kind::One | Kind::Cluster => ("", path),
        Kind::Sentinel => path.split_once('/').unwrap_or((path, "")),
    };
    if kind == Kind::Sentinel && master.is_empty() {
        let why = "it doesn't say which master; write its name behind the sentinels, as in \
                   \"redis+sentinel://HOST:26379,HOST:26379/MASTER\"";
        wrong.push(why.to_owned());
    }
    let number = if database.is_empty() { Some(0) } else { database.parse().ok().filter(|_| is_number(database)) };
    match number {
        None => {
            wrong.push("its database is no number; write one behind the last /, as in \"redis://HOST:6379/0\"".into());
        }
        Some(1..) if kind == Kind::Cluster => {
            wrong.push(
                "a cluster has database 0 alone; remove the number, and tell users apart by redis.namespace".into(),
            );
        }
        Some(_) => {}
    }
    (decoded(master, "master's name", wrong), number.unwrap_or(0))
}

fn query_of(kind: Kind, query: Option<&str>, wrong: &mut Wrong) -> Login {
    let mut login = Login::default();
    let mut unknown = false;
    for (key, value) in query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('=')) {
        match key {
            "sentinel_user" if kind == Kind::Sentinel => login.user = Some(decoded(value, "sentinel_user", wrong)),
            "sentinel_password" if kind == Kind::Sentinel => {
                login.password = Some(decoded(value, "sentinel_password", wrong));
            }
            _ => unknown = true,
        }
    }
    if unknown || query.is_some_and(|query| query.split('&').any(|pair| !pair.contains('='))) {
        let why = if kind == Kind::Sentinel {
            "behind its ? is something else than sentinel_user and sentinel_password; remove it, and write a ? in a \
             password as %3F"
        } else {
            "there is a ? in it, behind which there is nothing to say; remove it, and write a ? in a password as %3F"
        };
        wrong.push(why.to_owned());
    } else if login.user.is_some() && login.password.is_none() {
        wrong.push("it has a sentinel_user and no sentinel_password; set both, or the password alone".to_owned());
    }
    login
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
    }

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    fn login(user: &str, password: &str) -> Login {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Login { user: some(user), password: some(password) }
    }

    #[test]
    fn one_server() {
        for (text, tls, address, who, database) in [
            ("redis://h", false, at("h", 6379), login("", ""), 0),
            ("redis://h/", false, at("h", 6379), login("", ""), 0),
            ("rediss://h:1/15", true, at("h", 1), login("", ""), 15),
            ("redis://:p@h", false, at("h", 6379), login("", "p"), 0),
            ("redis://u:p%40%2F@10.0.0.1:6380/3", false, at("10.0.0.1", 6380), login("u", "p@/"), 3),
            ("redis://u:a:b@h", false, at("h", 6379), login("u", "a:b"), 0),
            ("rediss://[::1]:6380/2", true, at("::1", 6380), login("", ""), 2),
            ("redis://[::1]", false, at("::1", 6379), login("", ""), 0),
        ] {
            let url = good(text);
            assert!(url.servers == Servers::One(address), "{text}");
            assert!((url.tls, url.login == who, url.database) == (tls, true, database), "{text}");
        }
    }

    #[test]
    fn sentinels_and_clusters() {
        let url = good("redis+sentinel://u:p@a,b:1,[::1]:2/my%2Fmaster/4?sentinel_user=s&sentinel_password=%26");
        let sentinels = vec![at("a", 26379), at("b", 1), at("::1", 2)];
        let (master, own) = ("my/master".to_owned(), login("s", "&"));
        assert!(url.servers == Servers::Sentinel { sentinels, master, login: own });
        assert!(!url.tls && url.login == login("u", "p") && url.database == 4);
        let url = good("rediss+sentinel://a/m");
        assert!(url.tls && matches!(&url.servers, Servers::Sentinel { login, .. } if *login == Login::default()));
        let url = good("rediss+cluster://:p@a,b:1/0");
        assert!(url.tls && url.servers == Servers::Cluster(vec![at("a", 6379), at("b", 1)]) && url.database == 0);
        assert!(!good("redis+cluster://a").tls);
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once_with_a_remedy_and_without_its_words() {
        for (text, remedies) in [
            ("", &["redis://HOST:6379"][..]),
            ("hunter2:6379", &["redis://HOST:6379"]),
            ("http://hunter2", &["redis://HOST:6379"]),
            ("redis+hunter2://h", &["redis://HOST:6379"]),
            ("redis://", &["its host is none"]),
            ("redis://:6379", &["its host is none"]),
            ("redis://h:0", &["its host is none"]),
            ("redis://h:65536", &["its host is none"]),
            ("redis://h:+1", &["its host is none"]),
            ("redis://h:", &["its host is none"]),
            ("redis://[hunter2]:1", &["its host is none"]),
            ("redis://[::1]1", &["its host is none"]),
            ("redis://h/hunter2", &["its database is no number"]),
            ("redis://h/70000", &["its database is no number"]),
            ("redis://h/1/2", &["its database is no number"]),
            ("redis://hunter2@h", &["USER:PASSWORD@"]),
            ("redis://hunter2:@h", &["USER:PASSWORD@"]),
            ("redis://hunter2:%ff@h", &["its password is no UTF-8"]),
            ("redis://hunter2 :p@h", &["%20"]),
            ("redis://h?hunter2", &["%3F"]),
            ("redis://h?sentinel_password=hunter2", &["%3F"]),
            ("redis://a,b", &["redis+sentinel://"]),
            ("redis+sentinel://h", &["MASTER"]),
            ("redis+sentinel://h/m/hunter2", &["its database is no number"]),
            ("redis+sentinel://h/m?hunter2=1", &["sentinel_user and sentinel_password"]),
            ("redis+sentinel://h/m?sentinel_user=hunter2", &["no sentinel_password"]),
            ("redis+cluster://h/1", &["redis.namespace"]),
            ("redis+cluster://a,,hunter2:x", &["host 2 of its list", "host 3 of its list"]),
            (
                "redis+sentinel://hunter2@a,:1?hunter2",
                &["USER:PASSWORD@", "host 2 of its list", "MASTER", "sentinel_user and sentinel_password"],
            ),
        ] {
            let wrong = Url::parse(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert_eq!(wrong.len(), remedies.len(), "{text}: {wrong:?}");
            for (why, remedy) in wrong.iter().zip(remedies) {
                assert!(why.contains(remedy) && why.contains("; ") && !why.contains("hunter2"), "{text}: {why}");
            }
        }
    }
}
