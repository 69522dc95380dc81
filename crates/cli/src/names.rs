//! Names on the command line.

use jit_core::names;

pub(crate) fn org(text: &str) -> Result<String, String> {
    names::owner(text)
        .map(str::to_owned)
        .ok_or_else(|| "not an organization's name (letters, digits, - and _), nor an owner/repository".into())
}

pub(crate) fn runner(text: &str) -> Result<String, String> {
    if names::is_runner(text) {
        Ok(text.to_owned())
    } else {
        Err("not a runner's name: 1 to 63 of a-z, 0-9 and -".into())
    }
}
