//! Which commands and keys a user of Redis needs, and whether it may use them.
//!
//! A script that meets a forbidden command in its middle has written half. So each script of the ledger begins with a
//! guard ([`guarded`]). The guard asks Redis, by `redis.acl_check_cmd`, for each command that the script calls and for
//! an example of each family of keys. Where one is refused, the script ends with `NOPERM` before its first write.
//! [`lacking`] asks for everything that any process needs, at the start and from time to time.
//!
//! Redis 6.2 has no `redis.acl_check_cmd`: there nothing is checked but `INFO`, `SCRIPT LOAD` and `EVALSHA`.

use std::{collections::BTreeSet, sync::LazyLock};

use redis::{RedisError, RedisResult, Script, aio::ConnectionLike};

/// Each command that a script or a process needs, with arguments of the right number. `?` stands for a key. Nothing is
/// run with these arguments. A test compares this list with the sources.
const COMMANDS: &[&str] = &[
    "DEL ?",
    "EVALSHA 0123 0",
    "EXEC",
    "EXISTS ?",
    "EXPIRE ? 1",
    "GET ?",
    "HDEL ? f",
    "HEXISTS ? f",
    "HGET ? f",
    "HGETALL ?",
    "HINCRBY ? f 1",
    "HKEYS ?",
    "HLEN ?",
    "HMGET ? f",
    "HSCAN ? 0",
    "HSET ? f v",
    "HSETNX ? f v",
    "HVALS ?",
    "INFO server",
    "MULTI",
    "PEXPIRE ? 1",
    "PING",
    "PTTL ?",
    "RENAME ? ?",
    "SADD ? m",
    "SCARD ?",
    "SCRIPT|LOAD return",
    "SET ? v",
    "SISMEMBER ? m",
    "SMEMBERS ?",
    "SMISMEMBER ? m",
    "SRANDMEMBER ?",
    "SREM ? m",
    "SSCAN ? 0",
    "TIME",
    "TYPE ?",
    "UNLINK ?",
    "XACK ? g 0-1",
    "XADD ? * f v",
    "XAUTOCLAIM ? g c 0 0",
    "XCLAIM ? g c 0 0-1",
    "XDEL ? 0-1",
    "XGROUP|CREATE ? g 0",
    "XGROUP|DELCONSUMER ? g c",
    "XINFO|CONSUMERS ? g",
    "XLEN ?",
    "XPENDING ? g",
    "XRANGE ? - +",
    "XREADGROUP GROUP g c STREAMS ? 0",
    "XREVRANGE ? + -",
    "ZADD ? 1 m",
    "ZCARD ?",
    "ZCOUNT ? 0 1",
    "ZMSCORE ? m",
    "ZRANGE ? 0 1",
    "ZRANGEBYSCORE ? 0 1",
    "ZRANK ? m",
    "ZREM ? m",
    "ZREMRANGEBYSCORE ? 0 1",
    "ZREVRANGE ? 0 1",
    "ZSCAN ? 0",
    "ZSCORE ? m",
];

/// An example of each family of keys. A test compares this with the table in `docs/architecture.md`.
pub const KEYS: [&str; 34] = [
    "ledger:meta",
    "org_limits",
    "org:o:pending",
    "global:total_running",
    "class:c:info",
    "classes:surplus",
    "orgs:known",
    "owners:logins",
    "credential:c:orgs",
    "backoffs",
    "backoffs:waking",
    "scope:s:backoff",
    "profile:p:backoff",
    "quota:ceiling",
    "jobs:questions",
    "registrations:uncertain",
    "repos:active",
    "recovery",
    "recovery:accounts",
    "recover:a:repos",
    "hooks:known",
    "hook:h:failed",
    "deliveries:open",
    "delivery:d",
    "strays:seen",
    "runners:live",
    "runners:deadlines",
    "conditions",
    "workers:alive",
    "places",
    "job:1:info",
    "runner:r:info",
    "tick:t",
    "jit:events",
];

/// Commands whose first argument says what they do, and is allowed on its own.
const CONTAINERS: [&str; 3] = ["SCRIPT", "XGROUP", "XINFO"];

/// The part of the Lua that names what is refused.
static LACKING: LazyLock<String> = LazyLock::new(|| one_line(include_str!("rights.lua")));

/// What a user may not do and needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Commands; a subcommand stands after a `|`, as in `ACL SETUSER`.
    pub commands: Vec<String>,
    /// Examples of keys.
    pub keys: Vec<String>,
    /// Scripts cannot be run at all, so that the rest is not known.
    pub blind: bool,
}

/// Names of all commands that are needed, as `ACL SETUSER` spells them.
pub fn commands() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|command| name(command))
}

/// Names of the commands that a script calls by literal names, as `ACL SETUSER` spells them.
#[must_use]
pub fn called(script: &str) -> BTreeSet<String> {
    let calls = script
        .match_indices("call(")
        .filter_map(|(at, found)| literals(&script[at + found.len()..]));
    calls
        .map(|(command, first)| {
            if CONTAINERS.contains(&command.as_str()) {
                format!("{command}|{first}")
            } else {
                command
            }
        })
        .collect()
}

/// The first word in quotes, and the one after it if there is one.
fn literals(text: &str) -> Option<(String, String)> {
    let (word, rest) = quoted(text)?;
    let next = rest.strip_prefix(',').and_then(|rest| quoted(rest.trim_start()));
    Some((
        word.to_uppercase(),
        next.map_or_else(String::new, |(next, _)| next.to_uppercase()),
    ))
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// A script that ends with `NOPERM`, and has written nothing, where its user may not run all commands that it calls.
#[must_use]
pub fn guarded(script: &str) -> Script {
    Script::new(&format!("{} {script}", guard(script)))
}

/// One line, so that the lines of the script keep their numbers. A user with all rights pays for the checks alone: one
/// call in Lua for each command, and one for all keys. Where one fails, the rest looks for what exactly is refused.
fn guard(script: &str) -> String {
    let called = called(script);
    let commands: Vec<&str> = COMMANDS
        .iter()
        .copied()
        .filter(|command| called.contains(name(command)))
        .collect();
    let mut checks: Vec<String> = commands
        .iter()
        .map(|command| format!("may({})", arguments(command, KEYS[0])))
        .collect();
    let probes: Vec<&str> = commands
        .iter()
        .copied()
        .filter(|command| name(command) == "DEL")
        .collect();
    if !probes.is_empty() {
        checks.push(format!("may('DEL', '{}')", KEYS.join("', '"))); // DEL takes many keys
    }
    format!(
        "do local may = redis.acl_check_cmd if may then \
           local known, all = pcall(function() return {checks} end) \
           if not (known and all) then \
             {lacking} \
             return refusal(lacking({commands}, {{ '{keys}' }}, {probes})) \
           end end end",
        checks = checks.join(" and "),
        lacking = *LACKING,
        commands = table(&commands),
        keys = KEYS.join("', '"),
        probes = table(&probes),
    )
}

/// Asks what the user of this connection may not do and needs.
///
/// # Errors
/// When Redis cannot be reached, or cannot answer yet.
pub async fn lacking<C: ConnectionLike>(connection: &mut C) -> RedisResult<Lacks> {
    let script = format!(
        "if not redis.acl_check_cmd then return {{ {{}}, {{}} }} end {lacking} local commands = {commands} \
         local names, keys = lacking(commands, {{ '{keys}' }}, commands) return {{ names, keys }}",
        lacking = *LACKING,
        commands = table(COMMANDS),
        keys = KEYS.join("', '"),
    );
    let mut lacks = Lacks::default();
    let loaded = forbidden(
        redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(&script)
            .query_async::<String>(connection)
            .await,
    )?;
    if loaded.is_none() {
        lacks.commands.push("SCRIPT|LOAD".into());
    }
    let hash = loaded.unwrap_or_else(|| Script::new(&script).get_hash().to_owned());
    match forbidden(redis::cmd("EVALSHA").arg(hash).arg(0).query_async(connection).await) {
        Ok(Some((commands, keys))) => (lacks.commands, lacks.keys) = (commands, keys),
        Ok(None) => {
            lacks.commands.push("EVALSHA".into());
            lacks.blind = true;
        }
        Err(error) if error.code() == Some("NOSCRIPT") => lacks.blind = true,
        Err(error) => return Err(error),
    }
    Ok(lacks)
}

/// None where the command is forbidden, or does not exist here.
fn forbidden<T>(result: RedisResult<T>) -> RedisResult<Option<T>> {
    let unknown = |error: &RedisError| {
        error.code() == Some("ERR") && error.detail().is_some_and(|text| text.starts_with("unknown command"))
    };
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == Some("NOPERM") || unknown(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn name(command: &str) -> &str {
    command.split_once(' ').map_or(command, |(name, _)| name)
}

/// A command's words as Lua's arguments.
fn arguments(command: &str, key: &str) -> String {
    let words = name(command).split('|').chain(command.split(' ').skip(1));
    words
        .map(|word| format!("'{}'", if word == "?" { key } else { word }))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Commands as `rights.lua` wants them.
fn table(commands: &[&str]) -> String {
    let one = |command: &&str| {
        format!(
            "{{ {}, name = '{}', keyed = {} }}",
            arguments(command, "?"),
            name(command),
            command.contains('?')
        )
    };
    format!("{{ {} }}", commands.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Lua without its comments, in one line. `--` stands in none of its texts.
fn one_line(lua: &str) -> String {
    let code = lua
        .lines()
        .map(|line| line.split_once("--").map_or(line, |(code, _)| code).trim());
    code.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripts_commands_are_read_from_its_text() {
        let text = "local call = redis.call if call('HGET', k, 'x') then redis.pcall(\"xadd\", k) redis.call('XGROUP', \
         'DELCONSUMER', k) pcall(f) end";
        assert_eq!(
            called(text).into_iter().collect::<Vec<_>>(),
            ["HGET", "XADD", "XGROUP|DELCONSUMER"]
        );
    }

    #[test]
    fn a_guard_is_one_line_and_asks_for_no_more_than_its_script_calls() {
        let guard = guard("redis.call('SET', 'a', 'b') redis.call('XGROUP', 'CREATE', 'a', 'b', '0')");
        assert!(
            !guard.contains('\n')
                && guard
                    .contains("may('SET', 'ledger:meta', 'v') and may('XGROUP', 'CREATE', 'ledger:meta', 'g', '0')"),
            "{guard}"
        );
        assert!(!guard.contains("'GET'") && !guard.contains("'DEL'"), "{guard}");
    }
}
