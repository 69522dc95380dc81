//! Runners that workers make, that fail, and that lists find.

use std::time::Duration;

use jit_core::{
    event::JobId,
    ledger::{BackOff, Failure, Growth, Hold, Listed, ListedSpec, Maker, Needs, Registration, Subject},
};

use crate::class;

/// A worker that has 20 s to make a runner, half of it for the pod.
pub fn maker<'a>(worker: &'a str, credential: &'a str) -> Maker<'a> {
    Maker {
        worker,
        claim: 1,
        credential,
        alone: true,
        timeout: Duration::from_secs(20),
        create_timeout: Duration::from_secs(10),
    }
}

/// A step that did not work and left nothing; the first of these backs off for a minute at first, ten at most.
pub fn refused(chain: &'static [Subject], why: &str) -> Failure {
    let (first, most) = (Duration::from_secs(60), Duration::from_secs(600));
    failed(
        BackOff::Hold(Hold {
            chain,
            needs: Needs::Made,
            first,
            most,
            growth: Growth::Doubles,
        }),
        why,
    )
}

/// A step that did not work and left nothing.
pub fn failed(back_off: BackOff, why: &str) -> Failure {
    Failure {
        made: false,
        registration: Registration::None,
        back_off: Some(back_off),
        why: why.into(),
    }
}

/// A runner of an organization that a list has found at work.
pub fn listed(name: &str, org: &str) -> Listed {
    let class = class(org);
    let spec = ListedSpec {
        org: class.org.clone(),
        scope: class.scope.clone(),
        group: class.group.clone(),
        profile: class.profile.clone(),
        labels: serde_json::json!(class.labels).to_string(),
        job: JobId::new(9).unwrap(),
    };
    Listed {
        class: Some(class.id()),
        spec: Some(spec),
        ..unexplained(name)
    }
}

/// A runner that a list has found, and that says nothing of itself.
pub fn unexplained(name: &str) -> Listed {
    Listed {
        name: name.into(),
        ended: false,
        rejected: false,
        detail: None,
        running: true,
        terminating: false,
        class: None,
        spec: None,
    }
}
