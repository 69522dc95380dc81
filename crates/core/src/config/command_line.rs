//! The command line of the three processes, and the environment, whose variables are its flags.

use std::{convert::Infallible, ffi::OsStr, path::PathBuf};

use clap::{Arg, ArgAction, Parser, builder::Resettable};

/// The one variable whose empty value has a meaning. Any other that is set to nothing, as charts do, is not set.
const MEANS_SOMETHING_EMPTY: &str = "LABEL_MATCHERS";
const CHECK: &str = "check-config";

/// Command line and environment of a process.
#[derive(Debug)]
pub struct CommandLine<A> {
    /// Flags and variables, as text.
    pub args: A,
    /// The process checks its configuration and ends.
    pub check: bool,
}

/// Reads the command line and the environment of a tool, which has no configuration to check.
#[must_use]
pub fn parse_tool<A: Parser>() -> A {
    let command = prepared::<A>(set_to_nothing);
    A::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Reads this process's command line and environment; ends the process where it asks for help, or cannot be read.
#[must_use]
pub fn parse<A: Parser>() -> CommandLine<A> {
    read(std::env::args_os(), set_to_nothing).unwrap_or_else(|error| error.exit())
}

fn set_to_nothing(variable: &OsStr) -> bool {
    std::env::var_os(variable).is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()))
}

fn read<A: Parser>(
    line: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
    set_to_nothing: impl Fn(&OsStr) -> bool,
) -> Result<CommandLine<A>, clap::Error> {
    let check = Arg::new(CHECK)
        .long(CHECK)
        .action(ArgAction::SetTrue)
        .help("Checks the configuration, and ends: with status 1 and all that is wrong, or 0");
    let mut matches = prepared::<A>(set_to_nothing).arg(check).try_get_matches_from(line)?;
    let check = matches.remove_one(CHECK).unwrap_or(false);
    Ok(CommandLine {
        args: A::from_arg_matches_mut(&mut matches)?,
        check,
    })
}

fn prepared<A: Parser>(set_to_nothing: impl Fn(&OsStr) -> bool) -> clap::Command {
    A::command().mut_args(|arg| trimmed(unset(arg, &set_to_nothing)))
}

fn unset(arg: Arg, set_to_nothing: impl Fn(&OsStr) -> bool) -> Arg {
    let unset = arg
        .get_env()
        .is_some_and(|variable| variable != MEANS_SOMETHING_EMPTY && set_to_nothing(variable));
    if unset {
        arg.env(Resettable::<clap::builder::OsStr>::Reset)
    } else {
        arg
    }
}

/// Blanks around a value are not meant, nor is the newline that a file ends with.
fn trimmed(arg: Arg) -> Arg {
    let kind = arg.get_value_parser().type_id();
    if kind == std::any::TypeId::of::<PathBuf>() {
        arg.value_parser(|text: &str| Ok::<_, Infallible>(PathBuf::from(text.trim())))
    } else if kind == std::any::TypeId::of::<String>() {
        arg.value_parser(|text: &str| Ok::<_, Infallible>(text.trim().to_owned()))
    } else {
        arg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[arg(long, env = "A_GROUP", default_value = "default")]
        group: String,
        #[arg(long, env = "A_FILE")]
        file: Option<PathBuf>,
        #[arg(long, env)]
        label_matchers: Option<String>,
    }

    fn flags(line: &[&str]) -> CommandLine<Flags> {
        read([&["test"], line].concat(), |_| true).expect("a command line")
    }

    #[test]
    fn blanks_around_a_value_are_not_meant() {
        let flags = flags(&[
            "--group",
            " a b\n",
            "--file=/a/b\n",
            "--label-matchers",
            "",
            "--check-config",
        ]);
        assert_eq!(
            (flags.args.group.as_str(), flags.args.file),
            ("a b", Some("/a/b".into()))
        );
        assert_eq!((flags.args.label_matchers.as_deref(), flags.check), (Some(""), true));
    }

    #[test]
    fn a_path_may_be_nothing() {
        let flags = flags(&["--file="]);
        assert_eq!(
            (flags.args.file, flags.args.group.as_str(), flags.check),
            (Some("".into()), "default", false)
        );
    }
}
