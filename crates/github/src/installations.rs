//! Where a GitHub App is installed.

use reqwest::Method;

use crate::client::Client;
use crate::error::Error;
use crate::pages::Listed;
use crate::types::Installation;

impl Client {
    /// One page (from 1) of the App's installations: `GET app/installations`. Only as an App.
    ///
    /// # Errors
    /// As any call.
    pub async fn installations(&self, page: u32) -> Result<Listed<Installation>, Error> {
        let call = self.call_at(
            "installations",
            Method::GET,
            &["app", "installations"],
            "installations of the GitHub App".to_owned(),
        )?;
        self.page::<_, Vec<Installation>>(call, page).await
    }
}
