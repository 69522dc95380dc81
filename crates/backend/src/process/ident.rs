//! A process is known by its id, the time it started and the boot, since ids are used again.

use std::fs;
use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

/// A process, for as long as the host keeps what `/proc` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ident {
    pub(super) pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks from boot to its start.
    started: u64,
    /// Which boot; without it, a service that starts at the same moment of the next one could be taken for it.
    boot: String,
}

impl Ident {
    /// The process of this id.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let (_, started) = stat(pid)?;
        Ok(Self {
            pid,
            started,
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        })
    }

    /// This process, had it started at another time.
    #[cfg(test)]
    pub(super) fn another() -> Self {
        let mut process = Self::of(std::process::id()).unwrap();
        process.started += 1;
        process
    }

    /// Whether it still runs; a zombie does not.
    pub(super) fn alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
            && stat(self.pid).is_ok_and(|(state, _)| !matches!(state, 'Z' | 'X'))
    }

    /// Whether its id now belongs to another process.
    pub(super) fn replaced(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now != *self)
    }
}

/// State and start time of a process. Its name stands in brackets and may hold anything, so what counts begins after
/// the last one.
fn stat(pid: u32) -> io::Result<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let mut fields = stat
        .rsplit_once(')')
        .map(|(_, fields)| fields.split_whitespace())
        .ok_or(ErrorKind::InvalidData)?;
    let state = fields
        .next()
        .and_then(|state| state.chars().next())
        .ok_or(ErrorKind::InvalidData)?;
    let started = fields
        .nth(18)
        .and_then(|field| field.parse().ok())
        .ok_or(ErrorKind::InvalidData)?;
    Ok((state, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_more_than_its_id() {
        let us = Ident::of(std::process::id()).unwrap();
        assert!(us.alive() && !us.replaced());
        assert!(!Ident::another().alive() && Ident::another().replaced());
        let before_the_reboot = Ident {
            boot: "another".into(),
            ..us
        };
        assert!(!before_the_reboot.alive());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Ident::of(child.id()).unwrap();
        while process.alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!process.replaced());
    }
}
