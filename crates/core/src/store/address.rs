//! What `REDIS_URL` says: one server, or the Sentinels that know which server is the master.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// Sentinel's own port, where the URL names none.
const SENTINEL_PORT: u16 = 26379;
/// What a Sentinel URL looks like, for whoever wrote another.
const SENTINEL_FORM: &str = "redis+sentinel://host1:26379,host2:26379,host3:26379/mymaster/0";

/// Where the data is.
#[derive(Clone, Debug)]
pub enum Topology {
    /// One server, or a name that leads to one.
    Server(ConnectionInfo),
    /// A Sentinel group.
    Sentinel(Sentinels),
}

/// A Sentinel group, and what of the URL is meant for the master that it names.
#[derive(Clone, Debug)]
pub struct Sentinels {
    /// Host and port of each Sentinel.
    pub nodes: Vec<(String, u16)>,
    /// Name of the group of master and replicas.
    pub master: String,
    /// Whether Sentinels and servers speak TLS.
    pub tls: bool,
    /// Database, user and password at the servers.
    pub redis: RedisConnectionInfo,
}

impl Topology {
    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence that quotes nothing of the URL but its scheme: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or("not a URL; write for example redis://redis:6379/0")?;
        if let Some(wrong) = addition(scheme, rest) {
            return Err(wrong.to_owned());
        }
        match scheme {
            "redis" | "rediss" | "unix" | "redis+unix" => server(url).map(Self::Server),
            "redis+sentinel" => sentinels(rest, false).map(Self::Sentinel),
            "rediss+sentinel" => sentinels(rest, true).map(Self::Sentinel),
            other => Err(format!(
                "scheme {other:?} is not known; use redis://, rediss://, redis+sentinel:// or rediss+sentinel://"
            )),
        }
    }

    /// Host and port, or those of the Sentinels: for people, nothing secret.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Server(info) => info.addr().to_string(),
            Self::Sentinel(sentinels) => {
                let nodes: Vec<_> = sentinels
                    .nodes
                    .iter()
                    .map(|(host, port)| format!("{host}:{port}"))
                    .collect();
                format!("{} of Sentinels {}", sentinels.master, nodes.join(", "))
            }
        }
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn tls(&self) -> bool {
        match self {
            Self::Server(info) => matches!(info.addr(), ConnectionAddr::TcpTls { .. }),
            Self::Sentinel(sentinels) => sentinels.tls,
        }
    }

    /// Number of the database.
    #[must_use]
    pub fn database(&self) -> i64 {
        match self {
            Self::Server(info) => info.redis_settings().db(),
            Self::Sentinel(sentinels) => sentinels.redis.db(),
        }
    }
}

/// What is wrong with the query or the fragment of a URL. The redis crate reads `protocol` of a query and ignores the
/// rest: `?db=3` would be database 0. Nothing is quoted, since a password may hold a `?` or `#` that is not encoded.
fn addition(scheme: &str, rest: &str) -> Option<&'static str> {
    let at = rest.find(['?', '#'])?;
    let (before, after) = (&rest[..at], &rest[at + 1..]);
    if after.contains('@') && !before.contains('@') {
        return Some(
            "a ? or # in a user or password is written %3F or %23; or set REDIS_USERNAME and REDIS_PASSWORD_FILE",
        );
    }
    if scheme.ends_with("+sentinel") {
        return Some(
            "a Sentinel URL has no ? and no #: redis+sentinel://host1:26379,host2:26379,host3:26379/mymaster/3; what \
             is more is set by variables \
             (REDIS_SENTINEL_PASSWORD …)",
        );
    }
    let names: Vec<&str> = after
        .split(['&', '#'])
        .map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
        .collect();
    let has = |wanted: &[&str]| names.iter().any(|name| wanted.contains(name));
    if has(&["insecure"]) {
        Some("#insecure is not taken; name the certificate authority in REDIS_CA_FILE")
    } else if rest.contains('#') {
        Some("a URL of Redis has no #; remove it and what follows")
    } else if has(&["protocol"]) {
        Some("?protocol= is not taken: RESP2 is spoken, which every Redis knows; remove it")
    } else if matches!(scheme, "unix" | "redis+unix") {
        // Its path is that of the socket, so the rest can stand nowhere else.
        let taken = names.iter().all(|name| ["db", "user", "pass"].contains(name));
        (!taken).then_some("the URL of a socket takes ?db=, &user= and &pass= alone: unix:///run/redis.sock?db=3")
    } else if has(&["user", "username", "pass", "password"]) {
        Some(
            "a URL of Redis has no query: write user and password as redis://user:password@host:6379/0, or set \
             REDIS_USERNAME and REDIS_PASSWORD_FILE",
        )
    } else {
        Some(
            "a URL of Redis has no query: write the database as a path (redis://host:6379/3); what is more is set by \
             variables (REDIS_CA_FILE …)",
        )
    }
}

fn server(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info()
        .map_err(|error| format!("it cannot be read ({error}): write for example redis://redis:6379/0"))
}

fn sentinels(rest: &str, tls: bool) -> Result<Sentinels, String> {
    let (authority, path) = rest
        .split_once('/')
        .ok_or(format!("the name of the master is missing: {SENTINEL_FORM}"))?;
    let (user, hosts) = authority
        .rsplit_once('@')
        .map_or(("", authority), |(user, hosts)| (user, hosts));
    let (master, database) = path.split_once('/').unwrap_or((path, "0"));
    if master.is_empty() {
        return Err(format!("the name of the master is missing: {SENTINEL_FORM}"));
    }
    let nodes = hosts.split(',').map(node).collect::<Result<Vec<_>, _>>()?;
    // The same rules for user, password and database as in a plain URL.
    let info = format!(
        "redis://{user}{}localhost/{database}",
        if user.is_empty() { "" } else { "@" }
    )
    .into_connection_info();
    let redis = info
        .map_err(|error| format!("user, password or database cannot be read ({error}): {SENTINEL_FORM}"))?
        .redis_settings()
        .clone();
    Ok(Sentinels {
        nodes,
        master: master.to_owned(),
        tls,
        redis,
    })
}

fn node(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("a Sentinel is a host and a port, separated by commas: {SENTINEL_FORM}");
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':'))
        }
        None => text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(SENTINEL_PORT), |port| port.parse().map_err(|_| wrong()))?;
    if host.is_empty() {
        Err(wrong())
    } else {
        Ok((host.to_owned(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinel(url: &str) -> Sentinels {
        match Topology::parse(url) {
            Ok(Topology::Sentinel(sentinels)) => sentinels,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sentinel_urls_are_read() {
        let group = sentinel("rediss+sentinel://us%40er:p%2Fw@a:1,b,[::1]:3/mymaster/2");
        assert_eq!(group.nodes, [("a".into(), 1), ("b".into(), 26379), ("::1".into(), 3)]);
        assert_eq!(
            (group.master.as_str(), group.tls, group.redis.db()),
            ("mymaster", true, 2)
        );
        assert_eq!(
            (group.redis.username(), group.redis.password()),
            (Some("us@er"), Some("p/w"))
        );
        let plain = sentinel("redis+sentinel://a/mymaster");
        assert_eq!((plain.redis.db(), plain.redis.password(), plain.tls), (0, None, false));
        assert_eq!(
            Topology::parse("redis+sentinel://:pw@a:1,b/m/0")
                .expect("read")
                .address(),
            "m of Sentinels a:1, b:26379"
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_without_its_password() {
        for url in [
            "redis+sentinel://:pw@a:1,b",
            "redis+sentinel://:pw@a:1,b/",
            "redis+sentinel://:pw@a:x/m",
            "redis+sentinel://:pw@,b/m",
            "redis+sentinel://:pw@a/m/zero",
            "redis+sentinel://:pw@a/m?timeout=pw",
            "rediss://:pw@a/#insecure",
            "redis://:pw@a:port/0",
            "redis://:pw@a:6379?db=3",
            "redis://:pw@a/3?protocol=resp3",
            "rediss://:pw@a/?password=pw",
            "redis://:pw@a/3#pw",
            "redis://:p?pw@a/3",
            "redis://:pw#@a/3",
            "redis+sentinel://:pw?@a/m/0",
            "unix:///run/redis.sock?pass=pw&database=3",
            "unix:///run/redis.sock?pass=pw&protocol=resp3",
            "http://:pw@a",
            ":pw@a",
        ] {
            let error = Topology::parse(url).expect_err(url);
            assert!(!error.is_empty() && !error.contains("pw"), "{url}: {error}");
        }
    }

    #[test]
    fn a_query_is_refused_with_the_right_spelling() {
        for (url, words) in [
            ("redis://h:6379?db=3", "redis://host:6379/3"),
            ("redis://h:6379/?db=3&x=y", "redis://host:6379/3"),
            ("rediss://h:6379/3?ssl_cert_reqs=none", "REDIS_CA_FILE"),
            ("redis://h:6379/3?", "no query"),
            ("redis://h?password=x", "redis://user:password@host"),
            ("redis://h?protocol=resp3", "RESP2"),
            ("redis://h/3#x", "no #"),
            ("rediss://h/3#insecure", "REDIS_CA_FILE"),
            ("rediss://h/3?db=2#insecure", "REDIS_CA_FILE"),
            ("redis://u:p?d=b@h/3", "%3F"),
            ("redis://u:p#d@h/3", "%23"),
            ("redis+sentinel://h/m?db=3", "/mymaster/3"),
            ("unix:///run/redis.sock?database=3", "unix:///run/redis.sock?db=3"),
            ("unix:///run/redis.sock?db=3#x", "no #"),
        ] {
            let error = Topology::parse(url).expect_err(url);
            assert!(error.contains(words), "{url}: {error}");
        }
        // The database of a socket can stand nowhere else.
        assert_eq!(
            Topology::parse("unix:///run/redis.sock?db=3&user=u&pass=p%3Fw")
                .expect("read")
                .database(),
            3
        );
        assert_eq!(Topology::parse("redis://u:p%3Fw@h:6379/3").expect("read").database(), 3);
    }
}
