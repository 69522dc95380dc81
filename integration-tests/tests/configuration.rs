//! `docs/configuration.md` lists every setting of every program. The list is made from `--help`, so from the clap
//! declarations; the prose around it is written by hand. `make docs` writes the list anew.

#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use integration_tests::help;

/// The programs, in the order of the document, by their names there.
const PROGRAMS: [(&str, &str); 4] = [
    ("jit-receiver", "receiver"),
    ("jit-worker", "worker"),
    ("jit-beat", "beat"),
    ("jitctl", "jitctl"),
];
const START: &str = "<!-- The list from here on is generated: `make docs`. -->\n";
const END: &str = "<!-- The generated list ends here. -->\n";
const COLUMNS: usize = 120;

/// One setting as `--help` shows it.
#[derive(Clone, Debug, PartialEq)]
struct Setting {
    flag: String,
    variable: Option<String>,
    default: Option<String>,
    meaning: String,
}

/// A setting with the programs that take it, by their places in [`PROGRAMS`].
struct Entry {
    setting: Setting,
    programs: BTreeSet<usize>,
}

/// Takes the last `[tag: …]` out of a help text.
fn take_tag(text: &mut String, tag: &str) -> Option<String> {
    let open = format!("[{tag}: ");
    let start = text.rfind(&open)?;
    let end = start + text.get(start..)?.find(']')?;
    let value = text.get(start + open.len()..end)?.trim_matches('"').to_owned();
    text.replace_range(start..=end, "");
    Some(value).filter(|value| !value.is_empty())
}

fn setting(flag: &str, text: &str) -> Setting {
    let mut text = text.to_owned();
    let variable = take_tag(&mut text, "env").map(|variable| variable.trim_end_matches('=').to_owned());
    let default = take_tag(&mut text, "default");
    let values = take_tag(&mut text, "possible values");
    let mut meaning = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(values) = values {
        write!(meaning, " ({values})").expect("memory");
    }
    Setting {
        flag: flag.to_owned(),
        variable,
        default,
        meaning,
    }
}

/// The options of a program's `--help`: a line that begins with a flag, then lines that are indented further.
fn settings(program: &str) -> Vec<Setting> {
    let help = help(program);
    let options = help.split_once("Options:\n").expect("options").1;
    let mut found = Vec::<(String, String)>::new();
    for line in options.lines() {
        let trimmed = line.trim_start();
        let is_flag = trimmed.starts_with('-') && line.len() - trimmed.len() <= 6;
        if is_flag {
            let flag = trimmed.split_whitespace().find(|word| word.starts_with("--"));
            found.push((flag.expect("a long flag").to_owned(), String::new()));
        } else if let Some((_, text)) = found.last_mut() {
            text.push_str(trimmed);
            text.push(' ');
        }
    }
    let settings = found.iter().map(|(flag, text)| setting(flag, text));
    let of_clap = |setting: &Setting| ["--help", "--version"].contains(&setting.flag.as_str());
    settings.filter(|setting| !of_clap(setting)).collect()
}

/// All settings, each once, in the order in which the programs list them.
fn entries() -> Vec<Entry> {
    let mut entries = Vec::<Entry>::new();
    for (index, (program, _)) in PROGRAMS.iter().enumerate() {
        for setting in settings(program) {
            match entries.iter_mut().find(|entry| entry.setting == setting) {
                Some(entry) => {
                    entry.programs.insert(index);
                }
                None => entries.push(Entry {
                    setting,
                    programs: BTreeSet::from([index]),
                }),
            }
        }
    }
    entries
}

fn wrap(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("one line at least");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(format!("{indent}{word}"));
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// Sets a variable, an address or a pattern in a help text as code, since its characters would be markup.
fn as_code(word: &str) -> String {
    let is_code = !word.contains('`') && (word.contains('_') || word.contains('*') || word.contains("://"));
    let core = word.trim_matches(|c| "(),;:.".contains(c));
    match word.split_once(core) {
        Some((before, after)) if is_code => format!("{before}`{core}`{after}"),
        _ => word.to_owned(),
    }
}

fn item(setting: &Setting) -> String {
    let Setting {
        flag,
        variable,
        default,
        meaning,
    } = setting;
    let name = match variable {
        Some(variable) => format!("**`{variable}`** (`{flag}`)"),
        None => format!("**`{flag}`**"),
    };
    let default = default.as_ref().map(|default| format!(", default `{default}`"));
    let meaning = meaning.split(' ').map(as_code).collect::<Vec<_>>().join(" ");
    wrap(&format!("* {name}{}: {meaning}.", default.unwrap_or_default()), "  ")
}

/// The heading of the settings that these programs share.
fn heading(programs: &BTreeSet<usize>) -> String {
    let names = programs.iter().map(|index| PROGRAMS[*index].1).collect::<Vec<_>>();
    match names.as_slice() {
        [one] => format!("Settings of {one} alone"),
        all if all.len() == PROGRAMS.len() => "Settings of all four programs".to_owned(),
        [first @ .., last] => format!("Settings of {} and {last}", first.join(", ")),
        [] => unreachable!("a setting has a program"),
    }
}

/// The list: one section for each set of programs, those that more programs share first.
fn list() -> String {
    let entries = entries();
    let mut sets = Vec::<&BTreeSet<usize>>::new();
    for entry in &entries {
        if !sets.contains(&&entry.programs) {
            sets.push(&entry.programs);
        }
    }
    sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
    let mut list = String::new();
    for set in sets {
        write!(list, "\n## {}\n\n", heading(set)).expect("memory");
        for entry in entries.iter().filter(|entry| entry.programs == *set) {
            writeln!(list, "{}", item(&entry.setting)).expect("memory");
        }
    }
    list.push('\n');
    list
}

#[test]
fn the_document_lists_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let document = std::fs::read_to_string(&path).expect("docs/configuration.md");
    let (head, rest) = document.split_once(START).expect("the start of the list is marked");
    let (_, tail) = rest.split_once(END).expect("the end of the list is marked");
    let wanted = format!("{head}{START}{}{END}{tail}", list());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("docs/configuration.md can be written");
    } else {
        assert!(
            document == wanted,
            "docs/configuration.md is not what --help says: `make docs` writes it"
        );
    }
}

#[test]
fn every_program_has_settings() {
    for (program, _) in PROGRAMS {
        let settings = settings(program);
        assert!(settings.len() > 8, "{program}: {settings:?}");
        for setting in settings {
            assert!(
                !setting.meaning.is_empty() && !setting.meaning.contains("[env"),
                "{program}: {setting:?}"
            );
        }
    }
}
