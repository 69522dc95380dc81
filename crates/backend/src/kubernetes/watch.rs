//! The watch on runner pods: what its events mean.

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;

use super::state::observe;
use crate::{Change, bounded};

/// The changes that an event of kube's watcher stands for. `listing`: a new list was asked for, and none of it has come
/// yet.
///
/// [`Change::Restarted`] is told when the list is there, not when it is asked for: who reconciles upon it must not read
/// an older state than that from which the watch goes on, or what ends between the two is missed.
pub(super) fn changes(
    event: watcher::Result<watcher::Event<Pod>>,
    listing: &mut bool,
) -> impl Iterator<Item = Change> + use<> {
    let (restarted, change) = match event {
        Ok(watcher::Event::Init) => {
            *listing = true;
            (false, None)
        }
        Ok(watcher::Event::InitApply(pod)) => (std::mem::take(listing), Some(Change::Seen(observe(&pod)))),
        Ok(watcher::Event::InitDone) => (std::mem::take(listing), None),
        Ok(watcher::Event::Apply(pod)) => (false, Some(Change::Seen(observe(&pod)))),
        Ok(watcher::Event::Delete(pod)) => (false, pod.metadata.name.map(Change::Gone)),
        Err(error) => {
            tracing::warn!(
                error = bounded(&error.to_string()),
                "the watch on runner pods was interrupted, and is taken up again"
            );
            (false, None)
        }
    };
    restarted.then_some(Change::Restarted).into_iter().chain(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_with_the_first_of_the_list_and_once() {
        let pod = |name: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.into());
            pod
        };
        let mut listing = false;
        let mut tell = |event| {
            changes(event, &mut listing)
                .map(|change| match change {
                    Change::Restarted => "restarted".to_owned(),
                    Change::Seen(seen) => format!("seen {}", seen.name),
                    Change::Gone(name) => format!("gone {name}"),
                })
                .collect::<Vec<_>>()
        };
        assert!(tell(Ok(watcher::Event::Init)).is_empty());
        assert_eq!(tell(Ok(watcher::Event::InitApply(pod("a")))), ["restarted", "seen a"]);
        assert_eq!(tell(Ok(watcher::Event::InitApply(pod("b")))), ["seen b"]);
        assert!(tell(Ok(watcher::Event::InitDone)).is_empty());
        assert_eq!(tell(Ok(watcher::Event::Delete(pod("a")))), ["gone a"]);
        assert!(tell(Err(watcher::Error::NoResourceVersion)).is_empty());
        // The list failed at first: nothing is told until one came.
        assert!(tell(Ok(watcher::Event::Init)).is_empty() && tell(Ok(watcher::Event::Init)).is_empty());
        assert_eq!(tell(Ok(watcher::Event::InitDone)), ["restarted"]);
        assert_eq!(tell(Ok(watcher::Event::Apply(pod("c")))), ["seen c"]);
    }
}
