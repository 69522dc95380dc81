//! Functions of product code hold at most 60 lines, by matching braces.

use super::{compare, exceptions::LONG_FUNCTIONS, files};

const LINES: usize = 60;

/// Length of the string, character or comment that begins here; 0 where none does.
fn literal(rest: &[char]) -> usize {
    let until = |from: usize, end: &[char], escapes: bool| {
        let mut at = from;
        while at < rest.len() && !rest[at..].starts_with(end) {
            at += if escapes && rest[at] == '\\' { 2 } else { 1 };
        }
        (at + end.len()).min(rest.len())
    };
    match rest {
        ['/', '/', ..] => until(2, &['\n'], false) - 1,
        ['/', '*', ..] => until(2, &['*', '/'], false),
        ['r', '"' | '#', ..] => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            let end: Vec<char> = format!("\"{}", "#".repeat(hashes)).chars().collect();
            let opens = rest.get(1 + hashes) == Some(&'"');
            if opens { until(2 + hashes, &end, false) } else { 0 }
        }
        ['"', ..] => until(1, &['"'], true),
        ['\'', '\\', ..] => until(1, &['\''], true),
        // A lifetime is no character.
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

/// The code with blanks in place of strings, characters and comments, so that each brace that is left is one of code.
fn bare(text: &str) -> Vec<char> {
    let chars: Vec<char> = text.chars().collect();
    let mut bare = Vec::with_capacity(chars.len());
    while bare.len() < chars.len() {
        let at = bare.len();
        let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        let raw = chars[at] == 'r' && in_word;
        let length = if raw { 0 } else { literal(&chars[at..]) };
        let blank = |c: &char| if *c == '\n' { '\n' } else { ' ' };
        match length {
            0 => bare.push(chars[at]),
            _ => bare.extend(chars[at..at + length].iter().map(blank)),
        }
    }
    bare
}

/// Position after the block whose first brace comes next; none where a `;` comes before it.
fn block_end(code: &[char], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut nested = 0_usize;
    for (at, c) in code.iter().enumerate().skip(from) {
        match c {
            '(' | '[' if depth == 0 => nested += 1,
            ')' | ']' if depth == 0 => nested -= 1,
            ';' if depth == 0 && nested == 0 => return None,
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn starts(code: &[char], at: usize, word: &str) -> bool {
    code.len() >= at + word.len() && word.chars().zip(&code[at..]).all(|(a, b)| a == *b)
}

fn line_of(code: &[char], at: usize) -> usize {
    code[..at].iter().filter(|c| **c == '\n').count()
}

/// Name and lines of each function, without those of tests.
fn functions(text: &str) -> Vec<(String, usize)> {
    let code = bare(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if starts(&code, at, "#[cfg(test)]") {
            at = block_end(&code, at + "#[cfg(test)]".len()).unwrap_or(at) + 1;
            continue;
        }
        let begins_word = at == 0 || !(code[at - 1].is_alphanumeric() || code[at - 1] == '_');
        if begins_word && starts(&code, at, "fn ") {
            let name: String = code[at + 3..]
                .iter()
                .take_while(|c| c.is_alphanumeric() || **c == '_')
                .collect();
            if let Some(end) = block_end(&code, at).filter(|_| !name.is_empty()) {
                found.push((name, line_of(&code, end) - line_of(&code, at) + 1));
            }
        }
        at += 1;
    }
    found
}

#[test]
fn functions_hold_60_lines() {
    let product = |path: &str| path.starts_with("crates/") && path.contains("/src/");
    let tests = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    let mut found = Vec::new();
    let mut count = 0;
    for (path, text) in files(&[".rs"]) {
        if !product(&path) || tests(&path) {
            continue;
        }
        for (name, lines) in functions(&text) {
            count += 1;
            if lines > LINES {
                found.push((format!("{path}: {name}"), format!("{lines} lines")));
            }
        }
    }
    assert!(count > 1000, "only {count} functions were found");
    compare(
        "a function of product code holds at most 60 lines",
        &found,
        LONG_FUNCTIONS,
    );
}

#[test]
fn functions_are_found_by_their_braces() {
    let text = r##"
        fn one<'a>(x: &'a [u8; 3]) -> char {
            let s = "{\"{"; // {
            let r = r#"{"#;
            '{'
        }
        trait T { fn none(&self); fn two() { { } } }
        #[cfg(test)]
        mod tests { fn no() { } }
        fn three() {}
    "##;
    let found = functions(text);
    let expected = [("one", 5), ("two", 1), ("three", 1)];
    assert_eq!(found, expected.map(|(name, lines)| (name.to_owned(), lines)));
}
