//! Which owners are served: `ALLOWED_OWNERS`.

use crate::names::owner_of;

/// Logins, and patterns of logins with `*` in them, without regard to case. None serves everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(Vec<String>);

impl Owners {
    /// Reads a list, separated by commas or lines; what follows a `#` is a comment.
    ///
    /// # Errors
    /// With the entry that is neither a login nor a pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text
            .lines()
            .flat_map(|line| line.split('#').next().unwrap_or_default().split(','))
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        let mut owners = Vec::new();
        for entry in entries {
            if !entry
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*'))
            {
                return Err(format!("{entry:?} is neither a login nor a pattern such as acme-*"));
            }
            owners.push(entry.to_ascii_lowercase());
        }
        Ok(Self(owners))
    }

    /// True if runners are made for this owner, which may be given as `owner/repository` too.
    #[must_use]
    pub fn serve(&self, owner: &str) -> bool {
        let login = owner_of(owner).to_ascii_lowercase();
        self.0.is_empty() || self.0.iter().any(|pattern| fits(pattern, &login))
    }
}

/// Matches a text with a pattern, in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns_of_any_case() {
        let owners = Owners::parse("Acme, team-*\n*-labs # all of them\n\na*b*c").expect("a list");
        for owner in [
            "acme", "ACME", "acme/app", "team-", "Team-x", "x-labs", "abc", "aXbYc", "abbcc",
        ] {
            assert!(owners.serve(owner), "{owner}");
        }
        for owner in ["acme2", "xacme", "team", "labs", "ac", "abcd", "cba", ""] {
            assert!(!owners.serve(owner), "{owner}");
        }
        assert!(Owners::default().serve("anybody") && Owners::parse(" \n,").expect("none").serve("anybody"));
        assert!(
            Owners::parse("acme/app")
                .expect_err("a repository")
                .contains("acme/app")
        );
    }
}
