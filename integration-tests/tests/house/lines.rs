//! Lines hold at most 120 columns, files of code at most 400 lines.

use super::{
    compare,
    exceptions::{LONG_FILES, WIDE_FILES},
    files,
};

const COLUMNS: usize = 120;
const LINES: usize = 400;

/// Whether a line of this file may be as long as it is.
fn may_be_wide(path: &str, line: &str, fenced: bool) -> bool {
    let address = line
        .split_whitespace()
        .any(|word| word.contains("://") && word.chars().count() > COLUMNS / 2);
    // A row of a table cannot be broken.
    address || (path.ends_with(".md") && !fenced && line.trim_start().starts_with('|'))
}

#[test]
fn lines_hold_120_columns() {
    let mut found = Vec::<(String, String)>::new();
    for (path, text) in files(&[".rs", ".lua", ".md", ".py", ".sh"]) {
        let mut fenced = false;
        for (number, line) in (1..).zip(text.lines()) {
            fenced ^= line.trim_start().starts_with("```");
            if line.chars().count() <= COLUMNS || may_be_wide(&path, line, fenced) {
                continue;
            }
            found.push((path.clone(), format!("line {number}")));
        }
    }
    compare("a line holds at most 120 columns", &found, WIDE_FILES);
}

#[test]
fn files_hold_400_lines() {
    let long = |(path, text): (String, String)| {
        let lines = text.lines().count();
        (lines > LINES).then(|| (path, format!("{lines} lines")))
    };
    let found: Vec<_> = files(&[".rs", ".lua"]).into_iter().filter_map(long).collect();
    compare("a file of code holds at most 400 lines", &found, LONG_FILES);
}
