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
        let (scheme, rest) = url.split_once("://").ok_or("not a URL; write for example redis://redis:6379/0")?;
        match scheme {
            "redis" | "rediss" | "unix" | "redis+unix" => server(url).map(Self::Server),
            "redis+sentinel" => sentinels(rest, false).map(Self::Sentinel),
            "rediss+sentinel" => sentinels(rest, true).map(Self::Sentinel),
            other => Err(format!("scheme {other:?} is not known; use redis://, rediss://, redis+sentinel:// or rediss+sentinel://")),
        }
    }

    /// Host and port, or those of the Sentinels: for people, nothing secret.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Server(info) => info.addr().to_string(),
            Self::Sentinel(sentinels) => {
                let nodes: Vec<_> = sentinels.nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect();
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

fn server(url: &str) -> Result<ConnectionInfo, String> {
    let info = url.into_connection_info().map_err(|error| error.to_string())?;
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => Err("#insecure is not taken; name the certificate authority in REDIS_CA_FILE".into()),
        _ => Ok(info),
    }
}

fn sentinels(rest: &str, tls: bool) -> Result<Sentinels, String> {
    if rest.contains(['?', '#']) {
        return Err(format!("a Sentinel URL has no ? and no #: {SENTINEL_FORM}; what is more is set by variables (REDIS_SENTINEL_PASSWORD …)"));
    }
    let (authority, path) = rest.split_once('/').ok_or(format!("the name of the master is missing: {SENTINEL_FORM}"))?;
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let (master, database) = path.split_once('/').unwrap_or((path, "0"));
    if master.is_empty() {
        return Err(format!("the name of the master is missing: {SENTINEL_FORM}"));
    }
    let nodes = hosts.split(',').map(node).collect::<Result<Vec<_>, _>>()?;
    // The same rules for user, password and database as in a plain URL.
    let info = format!("redis://{user}{}localhost/{database}", if user.is_empty() { "" } else { "@" }).into_connection_info();
    let redis = info.map_err(|error| format!("user, password or database cannot be read ({error}): {SENTINEL_FORM}"))?.redis_settings().clone();
    Ok(Sentinels { nodes, master: master.to_owned(), tls, redis })
}

fn node(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("a Sentinel is a host and a port, separated by commas: {SENTINEL_FORM}");
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(SENTINEL_PORT), |port| port.parse().map_err(|_| wrong()))?;
    if host.is_empty() { Err(wrong()) } else { Ok((host.to_owned(), port)) }
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
        assert_eq!((group.master.as_str(), group.tls, group.redis.db()), ("mymaster", true, 2));
        assert_eq!((group.redis.username(), group.redis.password()), (Some("us@er"), Some("p/w")));
        let plain = sentinel("redis+sentinel://a/mymaster");
        assert_eq!((plain.redis.db(), plain.redis.password(), plain.tls), (0, None, false));
        assert_eq!(Topology::parse("redis+sentinel://:pw@a:1,b/m/0").expect("read").address(), "m of Sentinels a:1, b:26379");
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
            "http://:pw@a",
            ":pw@a",
        ] {
            let error = Topology::parse(url).expect_err(url);
            assert!(!error.is_empty() && !error.contains("pw"), "{url}: {error}");
        }
    }
}
