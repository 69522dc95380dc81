//! Waiting for a condition.

use std::time::Duration;

/// Waits until it is so; fails after a minute.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..2400 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never came true: {what}");
}
