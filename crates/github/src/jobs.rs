//! Calls about one job.

use reqwest::Method;

use crate::client::Client;
use crate::error::Error;
use crate::scope::Scope;
use crate::types::Job;

impl Client {
    /// A job: `GET repos/{owner}/{repo}/actions/jobs/{id}`. `None` on 404, which GitHub also answers where the
    /// credential may not see the repository.
    ///
    /// # Errors
    /// As any call, but 404 is an answer here.
    pub async fn job(&self, owner: &str, repo: &str, id: u64) -> Result<Option<Job>, Error> {
        let scope = Scope::Repository {
            owner: owner.to_owned(),
            name: repo.to_owned(),
        };
        let what = format!("job {id} of {scope}");
        let call = self.call("job", Method::GET, &scope, &["actions", "jobs", &id.to_string()], what)?;
        let answer = self.send(call).await?;
        if answer.status == 404 {
            Ok(None)
        } else {
            answer.json().map(Some)
        }
    }
}
