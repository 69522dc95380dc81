//! What is asked of a running stack, and what it is told: GitHub, kubelet, receiver, `jitctl`.

use std::{path::Path, time::Duration};

use anyhow::Context;
use serde_json::Value;

use super::{LOOKS, Stack, cluster};

impl Stack {
    /// A `jitctl` command's JSON answer.
    ///
    /// # Errors
    /// When it cannot be run or answers no JSON.
    pub async fn jitctl(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output = tokio::process::Command::new(self.bin.join("jitctl"))
            .args(["--redis-url", &self.redis_url, "--output", "json"])
            .args(args)
            .output()
            .await?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("jitctl {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// A connection to Redis, beside those of our processes. It waits as long as theirs do: two cores run everything.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn redis(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let long = Some(Duration::from_secs(5));
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(long)
            .set_response_timeout(long);
        redis::Client::open(self.redis_url.as_str())?
            .get_multiplexed_async_connection_with_config(&patient)
            .await
    }

    /// GET, JSON.
    ///
    /// # Errors
    /// When there is no answer, or none of a success.
    pub async fn get(&self, url: &str) -> anyhow::Result<Value> {
        let mut tries = 1;
        let answer = loop {
            match self.http.get(url).send().await {
                // A kept connection that the other side has just closed, or a machine with too much to do: looking
                // again harms nothing.
                Err(error) if tries < LOOKS => tracing::debug!(%error, url, tries, "no answer; looking again"),
                answer => break answer?,
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        Ok(answer.error_for_status()?.json().await?)
    }

    /// POST, JSON both ways.
    ///
    /// # Errors
    /// When there is no answer, or none of a success.
    pub async fn post(&self, url: &str, body: &Value) -> anyhow::Result<Value> {
        Ok(self
            .http
            .post(url)
            .json(body)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// The receiver's `/metrics`: what the ledger counts.
    ///
    /// # Errors
    /// When the receiver does not answer.
    pub async fn ledger(&self) -> anyhow::Result<Value> {
        self.get(&format!("{}/metrics", self.receiver_url)).await
    }

    /// Sets an organization's limit through the admin API.
    ///
    /// # Errors
    /// When the receiver refuses.
    pub async fn set_limit(&self, org: &str, limit: u64) -> anyhow::Result<()> {
        let url = format!("{}/admin/org-limits/{org}", self.receiver_url);
        self.http
            .put(url)
            .header("X-Admin-Key", &self.admin_key)
            .json(&serde_json::json!({ "limit": limit }))
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }

    /// Where our programs are.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// What happened at GitHub.
    ///
    /// # Errors
    /// When the simulated GitHub does not answer.
    pub async fn summary(&self) -> anyhow::Result<Value> {
        self.get(&format!("{}/_control/summary", self.github_url)).await
    }

    /// A POST to GitHub's API with the token that the workers have, JSON both ways.
    ///
    /// # Errors
    /// When GitHub refuses.
    pub async fn github_post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let token = std::fs::read_to_string(self.dir.path().join("token"))?;
        Ok(self
            .http
            .post(format!("{}/api/v3{path}", self.github_url))
            .bearer_auth(token.trim())
            .json(body)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// Creates jobs at GitHub, which sends their webhooks. Their ids.
    ///
    /// # Errors
    /// When GitHub refuses.
    pub async fn create_jobs(&self, jobs: &Value) -> anyhow::Result<Vec<u64>> {
        let answer = self.post(&format!("{}/_control/jobs", self.github_url), jobs).await?;
        serde_json::from_value(answer["ids"].clone()).context("ids of jobs")
    }

    /// Has things go wrong at GitHub: bodies of `POST /_control/faults`. Their numbers.
    ///
    /// # Errors
    /// When GitHub refuses.
    pub async fn github_faults(&self, faults: &Value) -> anyhow::Result<Vec<u64>> {
        let answer = self
            .post(&format!("{}/_control/faults", self.github_url), faults)
            .await?;
        serde_json::from_value(answer["ids"].clone()).context("numbers of faults")
    }

    /// Ends one of GitHub's faults, or all.
    ///
    /// # Errors
    /// When GitHub does not answer.
    pub async fn end_github_faults(&self, number: Option<u64>) -> anyhow::Result<()> {
        let number = number.map_or_else(String::new, |number| format!("/{number}"));
        self.http
            .delete(format!("{}/_control/faults{number}", self.github_url))
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }

    /// Ends all of the kubelet's faults, where there is a kubelet.
    pub async fn end_kubelet_faults(&self) {
        if let Some(url) = &self.kubelet_url {
            let _ = self.http.delete(format!("{url}/faults")).send().await;
        }
    }

    /// Takes the node away: its kubelet stops at once, and the node is deleted. Its pods stay until somebody deletes
    /// them.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn lose_node(&mut self) -> anyhow::Result<()> {
        self.part("kubelet")?.kill().await;
        cluster::delete_node(
            self.namespace
                .as_deref()
                .context("runners are processes here: there is no node")?,
        )
        .await
    }

    /// What the pod garbage collector does a minute after a node has gone: the pods that were on it are deleted by
    /// force.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn collect_pods(&self) -> anyhow::Result<()> {
        cluster::delete_bound_pods(
            self.namespace
                .as_deref()
                .context("runners are processes here: there are no pods")?,
        )
        .await
    }

    /// Has things go wrong with pods: the body of the kubelet's `POST /faults`.
    ///
    /// # Errors
    /// When there is no kubelet, or it refuses.
    pub async fn kubelet_fault(&self, fault: &Value) -> anyhow::Result<()> {
        let url = self
            .kubelet_url
            .as_ref()
            .context("runners are processes here: there is no kubelet")?;
        self.post(&format!("{url}/faults"), fault).await.map(drop)
    }

    /// Pods and Secrets in the runners' namespace; none where runners are processes.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn in_cluster(&self) -> anyhow::Result<(usize, usize)> {
        match &self.namespace {
            Some(namespace) => cluster::contents(namespace).await,
            None => Ok((0, 0)),
        }
    }

    /// Orders a runner's removal through the admin API.
    ///
    /// # Errors
    /// When the receiver refuses.
    pub async fn remove_runner(&self, name: &str) -> anyhow::Result<()> {
        let url = format!("{}/admin/runners/{name}", self.receiver_url);
        self.http
            .delete(url)
            .header("X-Admin-Key", &self.admin_key)
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }
}
