//! Memory of a process, as Linux counts it.

/// Proportional set size in KiB: its own pages, and its share of those that it shares. `None` where it cannot be read.
#[must_use]
pub fn pss_kib(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
