//! Faults end: GitHub says of every job that it is over, every removal works. All has to come to rest, and to leave
//! nothing behind.

use jit_core::{
    event::{Action, Identity, JobEvent, JobId},
    ledger::{Deregistration, Observation},
};

use super::{
    JobNumber, JobState,
    drive::{Checked, World, agree},
};

impl World<'_> {
    /// Faults end: GitHub says of every job that it is over, every removal works, every question is answered. All has
    /// to come to rest.
    pub async fn finish(&mut self) -> Checked {
        let open: Vec<JobNumber> = self
            .model
            .jobs
            .iter()
            .filter(|(_, job)| job.state != JobState::Completed || job.given_up)
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            let job = &self.model.jobs[&id];
            let org = self.model.known[&job.org].clone();
            let event = JobEvent {
                action: Action::Completed,
                job: JobId::new(id).unwrap(),
                attempt: job.attempt,
                repo: format!("{org}/app"),
                class: None,
                org,
                runner: None,
                runner_id: None,
                conclusion: Some("cancelled".into()),
                identity: Identity::default(),
            };
            self.event(&event, self.model.now).await?;
        }
        for _ in 0..8 {
            self.pass(3_700_000);
            if !self.model.open {
                let listed = self.listing(&[], true);
                self.reconcile(0, listed).await?;
            }
            while self.admit().await? {}
            let due = self.due().await?;
            for removal in &due.removals {
                self.observe(Observation::Absent, &removal.name, Some(Deregistration::Absent))
                    .await?;
            }
            agree("questions when all jobs are over", &due.questions, &Vec::new())?;
        }
        self.pass(86_400_000);
        self.admit().await?;
        self.doctor().await?;
        self.at_rest()
    }

    /// What may be left: what outlives redelivery and late pods, what is known of organizations, and mirrors of zero.
    pub(super) fn at_rest(&self) -> Checked {
        for (key, (expires, content)) in &self.held {
            let state = content
                .iter()
                .position(|field| field == "state")
                .map(|at| content[at + 1].as_str());
            let may_stay = match key.as_str() {
                "ledger:meta" | "owners:heard" | "orgs:known" | "orgs:served" | "orgs:credential" | "orgs:paused"
                | "org_limits" | "repos:active" | "repos:new" | "repos:unreadable" | "quota:ceiling" => true,
                "global:total_running" => content == &["0"],
                _ if key.starts_with("credential:") && key.ends_with(":orgs") => true,
                _ if key.starts_with("job:") => *expires && state == Some("completed"),
                _ if key.starts_with("runner:") => *expires && state == Some("gone"),
                _ if key.ends_with(":backoff") || key.contains(":failing:") => *expires,
                _ if key.starts_with("org:") && key.ends_with(":running") => content == &["0"],
                _ => false,
            };
            if !may_stay {
                return Err(format!("{key} is left over: {content:?}"));
            }
        }
        Ok(())
    }
}
