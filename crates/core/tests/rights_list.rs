//! The list of commands and keys that a user of Redis needs, held against the sources. A command that the code uses
//! and the list lacks fails here, and so does one of the list that nothing uses.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use jit_core::store::rights::{KEYS, called, commands};

/// The crates of the processes. The simulator has a Redis user of its own.
const CRATES: [&str; 5] = ["core", "receiver", "worker", "beat", "cli"];
/// Commands that the code does without where a user may not run them, and those of Sentinels.
const OPTIONAL: [&str; 3] = ["CONFIG", "ROLE", "SENTINEL"];
/// Methods of commands and pipelines that are no command.
const PLUMBING: [&str; 8] = [
    "arg",
    "cmd",
    "clone",
    "ignore",
    "query_async",
    "exec_async",
    "is_good",
    "insert",
];
/// What `AsyncCommands` and pipelines call what Redis calls otherwise, or more.
const METHODS: [(&str, &[&str]); 11] = [
    ("hset_multiple", &["HSET"]),
    ("atomic", &["MULTI", "EXEC"]),
    ("hset_nx", &["HSETNX"]),
    ("zrembyscore", &["ZREMRANGEBYSCORE"]),
    ("zscore_multiple", &["ZMSCORE"]),
    ("zrange_withscores", &["ZRANGE"]),
    ("zrevrange_withscores", &["ZREVRANGE"]),
    ("xgroup_create_mkstream", &["XGROUP|CREATE"]),
    ("xinfo_consumers", &["XINFO|CONSUMERS"]),
    ("xpending_consumer_count", &["XPENDING"]),
    ("invoke_async", &["EVALSHA", "SCRIPT|LOAD"]),
];

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs" || end == "lua") {
            found.push(path);
        }
    }
}

/// The text of each source of the processes, without its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    CRATES
        .iter()
        .for_each(|name| files(&root.join(name).join("src"), &mut found));
    let code = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .unwrap()
            .split("#[cfg(test)]")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    found.iter().map(|path| (path.clone(), code(path))).collect()
}

/// What is said by `cmd("…")`, with the subcommand of a container.
fn said(text: &str) -> Vec<String> {
    let commands = text.match_indices("cmd(\"").filter_map(|(at, found)| {
        let (name, rest) = text[at + found.len()..].split_once('"')?;
        let first = rest
            .strip_prefix(')')
            .and_then(|rest| rest.trim_start().strip_prefix(".arg(\""))
            .and_then(|rest| rest.split_once('"'))
            .map_or("", |(first, _)| first);
        Some(if ["SCRIPT", "XGROUP", "XINFO"].contains(&name) {
            format!("{name}|{first}")
        } else {
            name.to_owned()
        })
    });
    commands.collect()
}

fn word(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    &text[..end]
}

/// The text behind a closing bracket.
fn behind(text: &str) -> &str {
    let (mut depth, mut quoted, mut last) = (0, false, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '"' if last != '\\' => quoted = !quoted,
            '(' | '{' | '[' if !quoted => depth += 1,
            ')' | '}' | ']' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return &text[at + 1..];
                }
            }
            _ => {}
        }
        last = c;
    }
    ""
}

/// The methods of a chain: `.a(…).b::<T>(…)?.c(…)`.
fn chain(mut text: &str) -> Vec<&str> {
    let mut methods = Vec::new();
    loop {
        text = text.trim_start().trim_start_matches('?').trim_start();
        let Some(rest) = text.strip_prefix('.') else {
            return methods;
        };
        let name = word(rest);
        if name == "await" {
            return methods; // what follows is done with the answer
        }
        methods.push(name);
        let mut rest = &rest[name.len()..];
        if rest.starts_with("::<") {
            rest = &rest[rest.find(">(").map_or(rest.len(), |at| at + 1)..];
        }
        text = if rest.starts_with('(') { behind(rest) } else { rest };
    }
}

/// The methods that are called on connections and pipelines.
fn methods(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for root in ["pipe()", "pipe", "batch", "connection"] {
        for (at, _) in text.match_indices(root) {
            let begins = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            if begins {
                found.extend(chain(&text[at + root.len()..]));
            }
        }
    }
    found.extend(
        text.match_indices("AsyncCommands::")
            .map(|(at, root)| word(&text[at + root.len()..])),
    );
    found.extend(["invoke_async"].iter().filter(|method| text.contains(**method)));
    found
}

/// Command → the sources that use it.
fn used() -> BTreeMap<String, BTreeSet<String>> {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        let file = path.display().to_string();
        if !file.ends_with("store/rights.rs") {
            for command in called(&text) {
                used.entry(command).or_default().insert(file.clone());
            }
        }
        for command in said(&text) {
            used.entry(command).or_default().insert(file.clone());
        }
        // Only these speak to Redis by methods.
        if text.contains("redis::") {
            for method in methods(&text)
                .into_iter()
                .filter(|method| !method.is_empty() && !PLUMBING.contains(method))
            {
                let own = METHODS
                    .iter()
                    .find(|(name, _)| *name == method)
                    .map(|(_, commands)| commands.iter().map(|command| (*command).to_owned()).collect());
                for command in own.unwrap_or_else(|| vec![method.to_uppercase()]) {
                    used.entry(command).or_default().insert(file.clone());
                }
            }
        }
    }
    OPTIONAL.iter().for_each(|command| drop(used.remove(*command)));
    used
}

#[test]
fn the_list_holds_every_command_that_the_code_uses_and_no_other() {
    let used = used();
    let listed: BTreeSet<&str> = commands().collect();
    let missing: Vec<_> = used
        .iter()
        .filter(|(command, _)| !listed.contains(command.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "these are not in COMMANDS of store/rights.rs: {missing:#?}"
    );
    let unused: Vec<_> = listed.iter().filter(|command| !used.contains_key(**command)).collect();
    assert!(unused.is_empty(), "nothing uses these of COMMANDS: {unused:?}");
}

/// A command whose name is computed would be in no list.
#[test]
fn every_script_calls_commands_by_literal_names() {
    for (path, text) in sources() {
        for (at, _) in text.match_indices("call(") {
            let (before, rest) = (&text[..at], &text[at + "call(".len()..]);
            let ours = before.ends_with("redis.")
                || before.ends_with("redis.p")
                || path.extension().is_some_and(|end| end == "lua");
            let of_lua = before.ends_with('p') && !before.ends_with("redis.p"); // Lua's own pcall
            assert!(
                !ours || of_lua || rest.starts_with(['\'', '"']),
                "{}: call({}",
                path.display(),
                rest.lines().next().unwrap_or_default()
            );
        }
    }
}

/// A key up to its first colon, or the whole.
fn family(key: &str) -> &str {
    key.find(':').map_or(key, |colon| &key[..=colon])
}

#[test]
fn the_list_has_an_example_of_each_family_of_keys() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/architecture.md")).unwrap();
    let table = text
        .split("| key | type | holds |")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next())
        .expect("the table of keys");
    let cells = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(" | ").next());
    let keys = cells.flat_map(|cell| {
        cell.split('`')
            .filter(|text| text.contains(|c: char| c.is_ascii_alphabetic()))
    });
    let mut families: BTreeSet<&str> = keys
        .map(family)
        .filter(|family| !family.starts_with('{') && *family != ":")
        .collect();
    families.retain(|family| family.len() > 1);
    // What can back off, `{subject}` in the table, and what is a suffix there.
    families.extend(["class:", "scope:", "org:", "profile:", "credential:", "global:"]);
    assert!(families.len() > 25, "{families:?}");
    let listed: BTreeSet<&str> = KEYS.iter().map(|key| family(key)).collect();
    assert_eq!(
        families.difference(&listed).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "no example in KEYS of store/rights.rs"
    );
    assert_eq!(
        listed.difference(&families).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "not in the table"
    );
}
