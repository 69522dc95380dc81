//! The keys in the sources of core, held against `ledger/keys.rs`. A script that names a key which is not declared
//! there fails here, and so does Rust code that writes a key out.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use jit_core::ledger::keys::PATTERNS;

/// Beginnings of subjects, which stand in values, too.
const SUBJECTS: [&str; 7] = [
    "class:",
    "scope:",
    "scope:orgs/",
    "org:",
    "profile:",
    "credential:",
    "pause:",
];
/// Commands whose first argument is no key.
const WITHOUT_KEY: [&str; 3] = ["INFO", "TIME", "XGROUP"];
/// The examples that rights are asked for; a test of their own compares them with `docs/architecture.md`.
const EXAMPLES: &str = "store/rights.rs";

/// Each source of core that ends so, without its tests: its path below `src`, and its text.
fn sources(ending: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found)
            } else {
                found.push(path)
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.retain(|path| path.extension().is_some_and(|end| end == ending));
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        (path.strip_prefix(&root).unwrap().display().to_string(), code.to_owned())
    };
    found.iter().map(read).collect()
}

/// The texts between two quotes of this kind on each line, with what stands before them, but for comments.
fn literals(text: &str, quote: char, comment: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(comment)) {
        let mut before = String::new();
        let mut rest = line;
        while let Some((code, literal)) = rest.split_once(quote) {
            before.push_str(code);
            if code.contains(&format!(" {comment} ")) {
                break;
            }
            let Some((literal, after)) = literal.split_once(quote) else {
                break;
            };
            found.push((before.clone(), literal.to_owned()));
            before.push_str(literal);
            rest = after;
        }
    }
    found
}

/// Whether a literal may be a key, or a part of one: words, colons and parts, no sentence.
fn may_be_key(literal: &str) -> bool {
    literal.contains(':')
        && !literal.contains("::")
        && literal.chars().any(|c| c.is_ascii_lowercase())
        && literal
            .chars()
            .all(|c| c.is_ascii_lowercase() || matches!(c, '_' | ':' | '/' | '{' | '}'))
}

/// The pieces of a pattern between its parts: `org:`, `:runners`.
fn pieces(pattern: &str) -> Vec<&str> {
    pattern
        .split('{')
        .flat_map(|piece| piece.rsplit('}').next())
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// Whether a text is a key of this pattern, with any text in the place of a part.
fn fits(text: &str, pattern: &str) -> bool {
    match pattern.split_once('{') {
        None => text == pattern,
        Some((head, rest)) => {
            let rest = rest.split_once('}').map_or("", |(_, rest)| rest);
            let of = |text: &str| text.char_indices().any(|(at, _)| at > 0 && fits(&text[at..], rest));
            text.strip_prefix(head)
                .is_some_and(|text| of(text) || (rest.is_empty() && !text.is_empty()))
        }
    }
}

/// Whether a literal of a script is declared: a key, the beginning of one, or one of its pieces.
fn is_declared(literal: &str) -> bool {
    let is_piece = PATTERNS.iter().any(|pattern| pieces(pattern).contains(&literal));
    let is_subject = SUBJECTS.contains(&literal);
    is_piece
        || is_subject
        || PATTERNS
            .iter()
            .any(|pattern| !pattern.starts_with('{') && fits(literal, pattern))
}

#[test]
fn the_scripts_name_only_keys_that_are_declared() {
    let scripts = sources("lua");
    let mut seen = 0;
    for (file, text) in &scripts {
        for (before, literal) in literals(text, '\'', "--") {
            let command = before.rsplit_once("call(").map_or("", |(_, rest)| rest);
            let command = command.strip_suffix(", ").unwrap_or_default();
            let is_first = !command.is_empty() && command.chars().all(|c| c.is_ascii_uppercase());
            if may_be_key(&literal) || (is_first && !WITHOUT_KEY.contains(&command)) {
                seen += 1;
                assert!(
                    is_declared(&literal),
                    "{file}: {literal:?} is no key of ledger/keys.rs, nor a piece of one"
                );
            }
        }
    }
    assert!(
        scripts.len() > 20 && seen > 250,
        "{seen} keys in {} scripts",
        scripts.len()
    );
}

#[test]
fn rust_code_writes_no_key_out() {
    let files = sources("rs");
    for (file, text) in &files {
        if file.ends_with("ledger/keys.rs") || file.ends_with(EXAMPLES) {
            continue;
        }
        for (before, literal) in literals(text, '"', "//") {
            let is_argument = before.ends_with('(') || before.ends_with("connection, ");
            let is_key = PATTERNS.iter().any(|pattern| {
                if pattern.contains([':', '{']) {
                    !literal.contains(' ') && literal.contains(':') && fits(&literal, pattern)
                } else {
                    is_argument && literal == *pattern
                }
            });
            let is_subject = SUBJECTS
                .iter()
                .any(|subject| literal.starts_with(&format!("{subject}{{")));
            assert!(
                !is_key && (!is_subject || literal.contains(' ')),
                "{file}: {literal:?} is a key; take it from ledger/keys.rs"
            );
        }
    }
    assert!(files.len() > 30, "{} sources", files.len());
}

#[test]
fn an_undeclared_key_is_noticed() {
    assert!(fits("tick:recovery:work", "tick:{kind}:work") && fits("orgs:known", "orgs:known"));
    assert!(!fits("tick::work", "tick:{kind}:work") && !fits("orgs:known:all", "orgs:known"));
    assert!(is_declared("org:") && is_declared(":runners") && is_declared(":failing:") && is_declared("scope:orgs/"));
    assert!(
        !is_declared("team:")
            && !is_declared("org:all")
            && !is_declared(":walkers")
            && !is_declared("orgs:unknown")
            && !is_declared("leases")
    );
    assert!(may_be_key("org:{org}:pending") && !may_be_key("surplus: too many") && !may_be_key("std::mem"));
}
