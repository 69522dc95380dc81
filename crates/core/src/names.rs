//! Names from outside that become parts of keys, and texts from outside that become parts of log lines and answers.
//!
//! Invariant: what passes here as a name holds only letters, digits, `.`, `_`, `-` and at most one `/`, so no name can
//! step out of its place in a key.

/// Longest login or repository name taken. GitHub's own limits are 39 and 100.
const NAME: usize = 100;

/// Whether this can be the login of an organization or a user. Enterprise-managed users and GHES have `_` in theirs.
#[must_use]
pub fn is_login(text: &str) -> bool {
    is_name(text, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Whether this can be `owner/repository`.
#[must_use]
pub fn is_full_name(text: &str) -> bool {
    text.split_once('/').is_some_and(|(owner, repo)| {
        is_login(owner)
            && is_name(repo, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            && repo.chars().any(|c| c != '.')
    })
}

/// The owner in `owner/repository`.
#[must_use]
pub fn owner_of(full_name: &str) -> &str {
    full_name.split('/').next().unwrap_or_default()
}

fn is_name(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    (1..=NAME).contains(&text.len()) && text.chars().all(allowed)
}

/// Whose limit is meant: a login, or the owner of `owner/repository`, since a user's repositories have one limit
/// together.
#[must_use]
pub fn owner(text: &str) -> Option<&str> {
    (is_login(text) || is_full_name(text)).then(|| owner_of(text))
}

/// Whether this can be the name of a runner of ours: a DNS-1123 label.
#[must_use]
pub fn is_runner(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// At most `limit` characters of a text from outside, without control characters.
#[must_use]
pub fn shown(text: &str, limit: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(limit)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(limit).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_githubs_have_are_taken() {
        for name in [
            "acme",
            "Acme-Corp",
            "emu_user",
            "0",
            "octo-cat/Hello.World_1",
            "a/.github",
        ] {
            assert_eq!(owner(name), Some(owner_of(name)));
        }
    }

    #[test]
    fn names_that_could_leave_their_key_are_not() {
        for name in [
            "",
            "a:b",
            "{a}",
            "a\nb",
            "a b",
            "a*",
            "ä",
            "a/b/c",
            "/b",
            "a/",
            "a/...",
            "a/..",
            "a/.",
            "a/b:c",
            "a\0",
            &"x".repeat(101),
            &"x".repeat(300),
        ] {
            assert_eq!(owner(name), None, "{name:?}");
        }
    }

    #[test]
    fn shown_texts_are_short_and_on_one_line() {
        assert_eq!(shown("a\nb\u{1b}", 10), "a?b?");
        assert_eq!(shown("abcdef", 3), "abc…");
    }
}
