//! Where a runner registers, and how a name becomes a part of a URL.
//!
//! Invariant: no name from outside (a webhook's login, say) can change which resource a URL addresses. What the URL
//! library would drop or resolve (`.`, `..`, tabs, line ends) is refused; everything else is percent-encoded.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// Where runners register: the organization, the repository (a user's repository always), or the enterprise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// An organization, by its login.
    Organization(String),
    /// One repository.
    Repository {
        /// Login of the user or organization that owns it.
        owner: String,
        /// Its name, without the owner.
        name: String,
    },
    /// An enterprise, by its slug.
    Enterprise(String),
}

/// A text that is no [`Scope`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no scope: {0:?}; a scope is orgs/ORG, repos/OWNER/REPO or enterprises/SLUG")]
pub struct ScopeError(String);

impl Scope {
    /// Whose credential it takes: login of the organization or of the repository's owner, or slug of the enterprise.
    #[must_use]
    pub fn owner(&self) -> &str {
        match self {
            Self::Organization(owner) | Self::Repository { owner, .. } | Self::Enterprise(owner) => owner,
        }
    }

    /// The path segments under the API's root, not yet encoded.
    pub(crate) fn segments(&self) -> Vec<&str> {
        match self {
            Self::Organization(org) => vec!["orgs", org],
            Self::Repository { owner, name } => vec!["repos", owner, name],
            Self::Enterprise(slug) => vec!["enterprises", slug],
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments().join("/"))
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let parts: Vec<&str> = text.split('/').collect();
        let scope = match parts[..] {
            ["orgs", org] => Self::Organization(org.into()),
            ["repos", owner, name] => Self::Repository {
                owner: owner.into(),
                name: name.into(),
            },
            ["enterprises", slug] => Self::Enterprise(slug.into()),
            _ => return Err(ScopeError(text.into())),
        };
        if parts.iter().all(|part| is_segment(part)) {
            Ok(scope)
        } else {
            Err(ScopeError(text.into()))
        }
    }
}

/// Whether `name` can stand as one segment of a path and be read back as it was.
fn is_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control)
}

/// `{api}/{segments}`, each segment percent-encoded; `None` where a segment cannot be addressed.
pub(crate) fn resource(api: &Url, segments: &[&str]) -> Option<Url> {
    if !segments.iter().all(|segment| is_segment(segment)) {
        return None;
    }
    let mut url = api.clone();
    url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
    Some(url)
}

/// The REST API of a server, as its users write it: `https://github.com` → `https://api.github.com/`,
/// `https://acme.ghe.com` → `https://api.acme.ghe.com/`, and any other `https://github.example.com` →
/// `https://github.example.com/api/v3`.
///
/// An address that is an API already (`api.github.com`, `…/api/v3`) stays what it is.
#[must_use]
pub fn api_url_for(server: &Url) -> Url {
    let mut url = server.clone();
    url.set_query(None);
    url.set_fragment(None);
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    if host == "github.com" || host == "www.github.com" || host == "api.github.com" || host.ends_with(".ghe.com") {
        let bare = host
            .strip_prefix("www.")
            .or_else(|| host.strip_prefix("api."))
            .unwrap_or(&host);
        // Cannot fail: "api." before a name that was a host is a host. Where it did, the address would stay the
        // server's.
        if url.set_host(Some(&format!("api.{bare}"))).is_ok() {
            url.set_path("/");
        }
        return url;
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&if path.ends_with("/api/v3") {
        path
    } else {
        format!("{path}/api/v3")
    });
    url
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn display_and_from_str_are_inverse() {
        for text in ["orgs/acme", "repos/octo-user/hello.world", "enterprises/big-co"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "acme",
            "orgs",
            "orgs/",
            "orgs/a/b",
            "repos/a",
            "repos/a/..",
            "users/a",
            "orgs/a\nb",
            "enterprises/.",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn api_urls() {
        for (server, api) in [
            ("https://github.com", "https://api.github.com/"),
            ("https://www.github.com/", "https://api.github.com/"),
            ("https://api.github.com", "https://api.github.com/"),
            ("https://Acme.ghe.com/", "https://api.acme.ghe.com/"),
            ("https://api.acme.ghe.com", "https://api.acme.ghe.com/"),
            ("https://github.example.com", "https://github.example.com/api/v3"),
            ("https://github.example.com/", "https://github.example.com/api/v3"),
            (
                "https://github.example.com/api/v3/",
                "https://github.example.com/api/v3",
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/api/v3"),
            ("https://notgithub.com", "https://notgithub.com/api/v3"),
            ("https://evilghe.com", "https://evilghe.com/api/v3"),
        ] {
            assert_eq!(api_url_for(&server.parse().unwrap()).as_str(), api, "{server}");
        }
    }

    #[test]
    fn hostile_names_stay_one_segment() {
        let api: Url = "https://github.example.com/api/v3".parse().unwrap();
        let url = |name: &str| resource(&api, &["orgs", name, "actions"]).map(String::from);
        assert_eq!(
            url("a/../../x?y#z").unwrap(),
            "https://github.example.com/api/v3/orgs/a%2F..%2F..%2Fx%3Fy%23z/actions"
        );
        assert_eq!(
            url(r"a\..\b").unwrap(),
            "https://github.example.com/api/v3/orgs/a%5C..%5Cb/actions"
        );
        assert_eq!(
            url("%2e%2e").unwrap(),
            "https://github.example.com/api/v3/orgs/%252e%252e/actions"
        );
        for refused in ["", ".", "..", "a\tb", "a\r\nb"] {
            assert_eq!(url(refused), None, "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_one_segment_or_refused(name in ".*") {
            let api: Url = "https://github.example.com/api/v3".parse().unwrap();
            if let Some(url) = resource(&api, &["orgs", &name, "actions"]) {
                let segments: Vec<_> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 5);
                prop_assert_eq!(segments[4], "actions");
                prop_assert_eq!(url.host_str(), Some("github.example.com"));
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }
    }
}
