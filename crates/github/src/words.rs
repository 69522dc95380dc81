//! GitHub's texts, made fit for errors and logs.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

/// The longest text of GitHub's that an error carries, in characters.
const SAID: usize = 300;

/// GitHub's words in an error's body: `message`, what `errors` add to it, and `documentation_url`.
pub(crate) fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Words {
        message: String,
        #[serde(default)]
        errors: Value,
        #[serde(default)]
        documentation_url: Value,
    }
    let Ok(words) = serde_json::from_slice::<Words>(body) else {
        return if body.is_empty() {
            "(no message)".into()
        } else {
            format!("(no message of GitHub's) {}", String::from_utf8_lossy(body))
        };
    };
    let mut said = words.message;
    let errors = match &words.errors {
        Value::Array(errors) => errors.as_slice(),
        Value::Null => &[],
        one => std::slice::from_ref(one),
    };
    // Texts, or objects of {resource, field, code, message?}.
    for error in errors {
        let parts: Vec<&str> = match error {
            Value::String(text) => vec![text],
            error => ["resource", "field", "code", "message"]
                .iter()
                .filter_map(|key| error.get(key)?.as_str())
                .collect(),
        };
        said.push_str("; ");
        said.push_str(&parts.join(" "));
    }
    if let Value::String(url) = words.documentation_url {
        said = format!("{said} ({url})");
    }
    said
}

/// `text` for a log, without the token.
pub(crate) fn clean(text: &str, token: &SecretString) -> String {
    let token = token.expose_secret().trim();
    if token.is_empty() {
        return tidy(text);
    }
    tidy(&text.replace(token, "[token]"))
}

/// `text` on one line: white space and control characters as single spaces, not too long.
pub(crate) fn tidy(text: &str) -> String {
    let unfit = |c: char| c.is_whitespace() || c.is_control() || reorders(c);
    let mut tidied = String::new();
    for word in text.split(unfit).filter(|word| !word.is_empty()) {
        if !tidied.is_empty() {
            tidied.push(' ');
        }
        tidied.push_str(word);
    }
    if let Some((end, _)) = tidied.char_indices().nth(SAID) {
        tidied.truncate(end);
        tidied.push('…');
    }
    tidied
}

/// Characters without a picture of their own that make a terminal show a text differently from what it is.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_put_together() {
        let said = |body: &str| said(body.as_bytes());
        assert_eq!(
            said(r#"{"message":"Not Found","documentation_url":"https://docs"}"#),
            "Not Found (https://docs)"
        );
        assert_eq!(
            said(
                r#"{"message":"Validation Failed","errors":["a",{"resource":"Runner","code":"custom","message":"b"}]}"#
            ),
            "Validation Failed; a; Runner custom b"
        );
        assert_eq!(said(r#"{"message":"M","errors":"one"}"#), "M; one");
        assert_eq!(said(""), "(no message)");
        assert_eq!(said("<html>"), "(no message of GitHub's) <html>");
    }

    #[test]
    fn texts_are_safe_to_log() {
        let token = SecretString::from(" ghp_secret\n");
        assert_eq!(
            clean("a\r\n\u{1b}[31mb\u{202e}\u{0}c  ghp_secret!", &token),
            "a [31mb c [token]!"
        );
        let long = clean(&"ö".repeat(10_000), &token);
        assert_eq!(long.chars().count(), SAID + 1);
        assert_eq!(clean(&"x ".repeat(10_000), &token).chars().count(), SAID + 1);
        assert_eq!(clean("as is", &SecretString::from("")), "as is");
    }
}
