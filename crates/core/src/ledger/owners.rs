//! Owners whose name of now is not known.

use super::{Ledger, LedgerError, conditions::Condition, keys};

impl Ledger {
    /// Owners that have lost their login to another one, and of which GitHub has not said yet how they are called now.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn nameless_owners(&self) -> Result<Vec<Condition>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let logins: Vec<String> = redis::AsyncCommands::hvals(&mut connection, keys::ORGS_KNOWN).await?;
        let nameless = logins.iter().filter_map(|login| Some((login, login.split_once('~')?)));
        let text = |(login, (before, id)): (&String, (&str, &str))| {
            format!(
                "{login}: another owner has the login {before} now; how owner {id} is called is not known until its \
                 next webhook"
            )
        };
        Ok(nameless
            .map(text)
            .map(|text| Condition {
                process: "owners".to_owned(),
                text,
            })
            .collect())
    }
}
