//! The rules of the house that no compiler holds: how long lines, files and functions may be, and which crate may know
//! which. Each exception stands in a list with its reason, and has to be needed still.

#![allow(missing_docs, clippy::unwrap_used)]

mod arrows;
mod exceptions;
mod functions;
mod lines;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder of the checkout.
fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
    const NOT_OURS: [&str; 4] = ["target", ".git", "node_modules", "__pycache__"];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && !NOT_OURS.contains(&name.as_str()) {
            walk(root, &path, found);
        } else if path.is_file() {
            found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        }
    }
}

/// Files of the checkout with one of these endings, each with its path from the root and its text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort();
    let wanted = |path: &String| endings.iter().any(|ending| path.ends_with(ending));
    let files: Vec<_> = found
        .into_iter()
        .filter(wanted)
        .map(|path| (path.clone(), fs::read_to_string(root.join(&path)).unwrap()))
        .collect();
    assert!(!files.is_empty(), "no file ends with {endings:?}");
    files
}

/// Holds what was found against a list of exceptions: neither may have what the other lacks.
fn compare(rule: &str, found: &[(String, String)], exceptions: &[&str]) {
    let excepted = |name: &String| exceptions.contains(&name.as_str());
    let broken: Vec<_> = found.iter().filter(|(name, _)| !excepted(name)).collect();
    let idle: Vec<_> = exceptions
        .iter()
        .filter(|exception| !found.iter().any(|(name, _)| name == *exception))
        .collect();
    let told = |(name, what): &&(String, String)| format!("  {name}: {what}\n");
    assert!(
        broken.is_empty(),
        "{rule}:\n{}",
        broken.iter().map(told).collect::<String>()
    );
    assert!(
        idle.is_empty(),
        "{rule}: take these out of the list of exceptions, they are none any more: {idle:?}"
    );
}
