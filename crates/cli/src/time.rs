//! Times as people say them.

/// `850ms`, `12s`, `3m 5s`, `2h 10m`, `4d 3h`.
pub fn ago(ms: i64) -> String {
    let ms = ms.max(0);
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::ago;

    #[test]
    fn times_are_short() {
        assert_eq!(
            ["0ms", "1s", "1m 1s", "1h 0m", "1d 1h"].map(str::to_owned),
            [-5, 1000, 61_000, 3_600_000, 90_000_000].map(ago)
        );
    }
}
