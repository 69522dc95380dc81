//! The operations' Lua: each is a body and the parts of the prelude that it needs, put together in front of it.
//!
//! A part and a body name what they need in their first line, `-- needs: demand, runner`. A guard stands in front of
//! the whole: a script begins only where its user may run all of it ([`crate::store::rights`]).

use std::{collections::BTreeSet, sync::LazyLock};

use redis::Script;

use crate::store::rights::guarded;

macro_rules! parts {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("lua/prelude/", $name, ".lua")))),+]
    };
}

/// Name and text of each part of the prelude. A part stands behind those that it needs.
fn prelude() -> [(&'static str, &'static str); 11] {
    parts![
        "args", "settings", "base36", "owner", "demand", "backoff", "held", "runner", "job", "rename", "gate",
    ]
}

/// The parts that a part or a body names as those that it needs.
fn needs(text: &'static str) -> impl Iterator<Item = &'static str> {
    let line = text.lines().find_map(|line| line.strip_prefix("-- needs: "));
    line.into_iter()
        .flat_map(|names| names.split(", "))
        .filter(|name| *name != "nothing")
}

/// The parts that a body needs, and those that these need, in their order.
fn parts_of(body: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut wanted: BTreeSet<&str> = needs(body).collect();
    let mut parts = prelude().to_vec();
    // What a part needs stands in front of it.
    for (name, text) in parts.iter().rev() {
        if wanted.contains(name) {
            wanted.extend(needs(text));
        }
    }
    parts.retain(|(name, _)| wanted.contains(name));
    parts
}

/// A body behind the parts that it needs.
fn composed(body: &'static str) -> String {
    parts_of(body).into_iter().map(|(_, text)| text).chain([body]).collect()
}

fn unguarded(text: &str) -> Script {
    Script::new(text)
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $make:ident($file:literal);)+) => {
        $(
            $(#[$doc])*
            pub(super) static $name: LazyLock<Script> = LazyLock::new(|| $make(&composed(include_str!($file))));
        )+
        /// File and body of each operation.
        #[cfg(test)]
        fn operations() -> Vec<(&'static str, &'static str)> {
            vec![$(($file, include_str!($file))),+]
        }
    };
}

operations! {
    EVENT = guarded("lua/ops/event.lua");
    ANSWER = guarded("lua/ops/answer.lua");
    ADMIT = guarded("lua/ops/admit.lua");
    PROVISION = guarded("lua/ops/provision.lua");
    FAIL = guarded("lua/ops/fail.lua");
    OBSERVED = guarded("lua/ops/observed.lua");
    DUE = guarded("lua/ops/due.lua");
    LIMITS = guarded("lua/ops/limits.lua");
    CONFIGURE = guarded("lua/ops/configure.lua");
    RECONCILE = guarded("lua/ops/reconcile.lua");
    RECOVERY = guarded("lua/ops/recovery.lua");
    BUDGET = guarded("lua/ops/budget.lua");
    CALLS = guarded("lua/ops/calls.lua");
    CLOCK = guarded("lua/ops/clock.lua");
    TAKE_TICK = guarded("lua/ops/take_tick.lua");
    END_TICK = guarded("lua/ops/end_tick.lua");
    /// Changes nothing, so it needs no guard: what people are told must not depend on the right to write.
    LOOK = unguarded("lua/ops/look.lua");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script without its comments and without what stands in quotes.
    fn code(lua: &str) -> String {
        let mut code = String::new();
        for line in lua.lines() {
            let (mut quote, mut last) = (None, ' ');
            for c in line.chars() {
                match quote {
                    None if c == '-' && last == '-' => break,
                    None if c == '\'' || c == '"' => quote = Some(c),
                    Some(open) if c == open && last != '\\' => quote = None,
                    None => code.push(c),
                    Some(_) => {}
                }
                last = c;
            }
            code.push('\n');
        }
        code
    }

    /// The functions and the other names that a part gives to what follows it.
    fn given(lua: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut functions, mut others) = (BTreeSet::new(), BTreeSet::new());
        for line in code(lua).lines() {
            if let Some(rest) = line.strip_prefix("local function ") {
                functions.extend(rest.split('(').next().map(str::to_owned));
            } else if let Some(rest) = line.strip_prefix("local ") {
                let names = rest.split('=').next().unwrap_or_default();
                others.extend(names.split(',').map(|name| name.trim().to_owned()));
            }
        }
        (functions, others)
    }

    /// What is used of `names`; a function is used where it is called.
    fn used(lua: &str, names: &BTreeSet<String>, called: bool) -> Vec<String> {
        let code = code(lua);
        let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_used = |name: &&String| {
            code.match_indices(name.as_str()).any(|(at, _)| {
                let (before, behind) = (&code[..at], &code[at + name.len()..]);
                !before.ends_with(|c| part_of_name(c) || c == '.' || c == ':')
                    && !behind.starts_with(part_of_name)
                    && (!called || behind.starts_with('('))
            })
        };
        names.iter().filter(is_used).cloned().collect()
    }

    #[test]
    fn a_script_names_the_parts_that_it_uses_and_no_other() {
        let bodies = operations().into_iter().map(|(file, body)| (file, None, body));
        let parts = prelude().into_iter().map(|(name, text)| (name, Some(name), text));
        for (file, itself, text) in bodies.chain(parts) {
            let named: BTreeSet<&str> = needs(text).collect();
            for (part, its) in prelude() {
                if itself == Some(part) {
                    continue;
                }
                let (functions, others) = given(its);
                let uses = [used(text, &functions, true), used(text, &others, false)].concat();
                assert!(
                    uses.is_empty() || named.contains(part),
                    "{file}: add {part} to the parts that it needs, for {uses:?}"
                );
                assert!(
                    !uses.is_empty() || !named.contains(part),
                    "{file}: needs nothing of {part}, take it away"
                );
            }
            assert!(
                text.starts_with("-- needs: "),
                "{file}: the first line says what it needs"
            );
        }
    }

    #[test]
    fn a_part_stands_behind_those_that_it_needs_and_a_body_behind_all_of_them() {
        let names: Vec<&str> = prelude().iter().map(|(name, _)| *name).collect();
        for (at, (name, text)) in prelude().into_iter().enumerate() {
            for needed in needs(text) {
                assert!(names[..at].contains(&needed), "{name} needs {needed}");
            }
        }
        for (file, body) in operations() {
            let parts: Vec<&str> = parts_of(body).iter().map(|(name, _)| *name).collect();
            for needed in needs(body).chain(parts_of(body).into_iter().flat_map(|(_, text)| needs(text))) {
                assert!(parts.contains(&needed), "{file} needs {needed}");
            }
            assert!(composed(body).ends_with(body), "{file}");
        }
    }

    #[test]
    fn each_file_of_the_folders_is_a_script_or_a_part() {
        for (folder, used) in [("lua/ops", operations().len()), ("lua/prelude", prelude().len())] {
            let folder = format!("{}/src/ledger/{folder}", env!("CARGO_MANIFEST_DIR"));
            assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), used, "{folder}");
        }
    }

    /// Writes what `integration-tests/luacheck.sh` looks at, where it asks for it: each script as it is put together,
    /// in which the prelude may hold what the script does not use, and all of it in one file, in which it may not.
    #[test]
    fn the_scripts_are_written_for_luacheck() {
        let Some(folder) = std::env::var_os("LUA_DIR").map(std::path::PathBuf::from) else {
            return;
        };
        let write = |file: &str, text: String| std::fs::write(folder.join(file), text).expect("written");
        let prelude: String = prelude().iter().map(|(_, text)| *text).collect();
        let mut all = format!("{prelude}return {{\n");
        for (file, body) in operations() {
            let whole = composed(body);
            let parts = whole.strip_suffix(body).expect("a body behind its parts");
            write(
                file.rsplit('/').next().expect("a name"),
                format!("-- luacheck: push ignore 211 311\n{parts}-- luacheck: pop\n{body}"),
            );
            all += &format!("function()\n{body}end,\n");
        }
        write("all.lua", all + "}\n");
    }
}
