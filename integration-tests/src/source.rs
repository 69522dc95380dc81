//! The steps, read from the worker's source: what is there, and what lacks one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What an effect's call looks like, and which of these change nothing anywhere.
const EFFECTS: [(&str, &[&str]); 8] = [
    (
        "ledger.",
        &["now", "pool", "runner", "living_workers", "gate_is_open", "clone", "at"],
    ),
    ("backend.", &["timeout", "watch", "clone", "may_deliver", "places"]),
    ("github.", &["of", "all", "serving", "clone"]),
    ("client.", &["is_app", "is_same", "clone"]),
    ("stream::", &["iter"]),
    ("dead_letters::", &[]),
    ("poison::", &[]),
    ("reader.", &[]),
];

/// The worker's own loops: everything of `crates/worker/src`. A step follows a backend's call as a whole.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("step.rs") {
            found.push(path);
        }
    }
}

/// File and its text, without its tests and comments. A call that rustfmt breaks before a dot is one line again.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/worker/src");
    let mut found = Vec::new();
    files(&root, &mut found);
    found.sort();
    let code = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let mut code = String::new();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            if line.trim_start().starts_with('.') {
                code.push_str(line.trim_start());
            } else {
                code.push('\n');
                code.push_str(line);
            }
        }
        code
    };
    found
        .iter()
        .map(|path| (path.strip_prefix(&root).unwrap().display().to_string(), code(path)))
        .collect()
}

/// Every step by name, with the file that it stands in. Fails when two have one name.
pub fn steps() -> BTreeMap<String, String> {
    let mut steps = BTreeMap::new();
    for (file, text) in sources() {
        for opening in [".step(\"", ".step_if(\"", ".step(\n", ".step_if(\n"] {
            for (at, _) in text.match_indices(opening) {
                let name = text[at..].split('"').nth(1).unwrap_or_default().to_owned();
                let before = steps.insert(name.clone(), file.clone());
                assert!(before.is_none(), "two steps are named {name}");
            }
        }
    }
    steps
}

/// A call of the worker that changes something somewhere, or asks somebody.
pub struct Effect {
    /// As `client.delete_runner`.
    pub call: String,
    /// The step that follows it, if one does.
    pub step: Option<String>,
    /// Where it stands.
    place: String,
}

/// All of them.
pub fn effects() -> Vec<Effect> {
    let mut effects = Vec::new();
    for (file, text) in sources() {
        for (receiver, harmless) in EFFECTS {
            for (at, _) in text.match_indices(receiver) {
                let rest = &text[at + receiver.len()..];
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // Not the fields of the arguments that a worker starts with (`self.github.resolve`,
                // `self.runner_backend.as_str`).
                let other = text[..at].ends_with("self.") || text[..at].ends_with('_');
                let call = rest[name.len()..].starts_with('(') && !other;
                if !call || harmless.contains(&name.as_str()) {
                    continue;
                }
                let after = after_call(&rest[name.len()..]);
                // A closure of `persist` ends between the call and its await.
                let after: String = after.split_whitespace().collect();
                let after = after.trim_start_matches([')', '}']);
                let step = after
                    .strip_prefix(".await.step(\"")
                    .or_else(|| after.strip_prefix(".await.step_if(\""))
                    .and_then(|text| text.split('"').next());
                let place = format!("{file}, {} lines of code into it", text[..at].matches('\n').count());
                effects.push(Effect {
                    call: format!("{receiver}{name}"),
                    step: step.map(str::to_owned),
                    place,
                });
            }
        }
    }
    effects
}

/// Effects that no step follows.
pub fn without_a_step() -> Vec<String> {
    effects()
        .into_iter()
        .filter(|effect| effect.step.is_none())
        .map(|effect| format!("{}: {}(…)", effect.place, effect.call))
        .collect()
}

/// What follows the call whose opening parenthesis `text` begins with.
fn after_call(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    ""
}
