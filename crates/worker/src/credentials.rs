//! As whom the worker calls GitHub: clients made of the configuration, and made again when the file of credentials
//! changes.
//!
//! A credential that stays the same at GitHub keeps its client, with the tokens and runner groups that it knows. A file
//! that becomes unusable changes nothing; what is wrong with it is told once. Where a credential became another (its
//! definition or the secret in its file), the ledger is told: what backed off because of the one before is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jit_core::config::{CredentialSettings, CredentialsFile, CredentialsSettings, LoginSettings};
use jit_github::{AppLogin, BuildError, Client, ClientOptions, Credential, Credentials, EVERYBODY, Login};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    Worker,
    calls::Calls,
    config::Settings,
    metrics::{Call, Metrics},
    provision::NO_CREDENTIAL,
    rates::Rates,
    step::Step as _,
};

/// The loop's name.
pub(crate) const NAME: &str = "credentials";
/// The file of credentials, and those of secrets, are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What clients are made with.
struct ClientFactory {
    api_url: Url,
    timeout: Duration,
    ca_pem: Option<Vec<u8>>,
    no_public_groups: bool,
    metrics: Metrics,
    rates: Rates,
    calls: Calls,
}

impl ClientFactory {
    fn client(&self, of: &CredentialSettings) -> Result<Client, BuildError> {
        let login = match of.login.clone() {
            LoginSettings::Token(token) => Login::Token(Arc::new(move || token.get())),
            LoginSettings::App { id, private_key } => Login::App(AppLogin {
                id,
                private_key: Arc::new(move || private_key.get()),
            }),
        };
        let requests = self.metrics.github_requests.clone();
        let mut options = ClientOptions::with(self.api_url.clone(), login);
        options.timeout = self.timeout;
        options.extra_ca_pem.clone_from(&self.ca_pem);
        options.no_public_groups = self.no_public_groups;
        options.on_response = Some(Arc::new(move |endpoint, status| {
            requests
                .get_or_create(&Call {
                    endpoint: endpoint.to_owned(),
                    status,
                })
                .inc();
        }));
        options.on_rate = Some(self.rates.hook(&of.name));
        options.gate = Some(self.calls.gate(&of.name));
        Client::new(options)
    }
}

/// The credentials, and what keeps them up to date.
pub struct Keeper {
    clients: ClientFactory,
    list: Vec<CredentialSettings>,
    file: Option<CredentialsFile>,
    credentials: Credentials,
    /// The secret of each credential as it was last seen.
    secrets: BTreeMap<String, SecretString>,
}

fn secret(login: &LoginSettings) -> SecretString {
    match login {
        LoginSettings::Token(token) => token.get(),
        LoginSettings::App { private_key, .. } => private_key.get(),
    }
}

fn secrets(list: &[CredentialSettings]) -> BTreeMap<String, SecretString> {
    list.iter().map(|of| (of.name.clone(), secret(&of.login))).collect()
}

impl Keeper {
    /// Makes the clients of the configuration.
    ///
    /// # Errors
    /// When one cannot be made whatever GitHub answers.
    pub fn new(
        settings: &Settings,
        metrics: &Metrics,
        rates: &Rates,
        calls: &Calls,
    ) -> Result<(Self, Credentials), BuildError> {
        let CredentialsSettings { list, source, file } = settings.credentials.clone();
        let clients = ClientFactory {
            api_url: settings.api_url.clone(),
            timeout: settings.github_timeout,
            ca_pem: settings.ca_pem.clone(),
            no_public_groups: !settings.github.public_repositories,
            metrics: metrics.clone(),
            rates: rates.clone(),
            calls: calls.clone(),
        };
        let made: Result<Vec<_>, _> = list
            .iter()
            .map(|of| Ok(Credential::new(&of.name, &of.owners, clients.client(of)?)))
            .collect();
        let credentials = Credentials::new(source, made?);
        let secrets = secrets(&list);
        Ok((
            Self {
                clients,
                list,
                file,
                credentials: credentials.clone(),
                secrets,
            },
            credentials,
        ))
    }

    /// Looks at the files, until `stop`.
    pub async fn watch(mut self, worker: &Worker, stop: &CancellationToken) {
        let mut untold = BTreeMap::new();
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            // Twice: what was under way with the one before, here or in a worker that looks later, may have said its
            // last word in between.
            let (round, mut result) = (worker.loops.begin(NAME), Ok(()));
            untold.extend(self.look().into_iter().map(|name| (name, 2)));
            for (name, times) in &mut untold {
                worker.choice.renewed(name);
                match worker.ledger.renew_credential(name).await.step("credentials.renewed") {
                    Ok(()) => *times -= 1,
                    Err(error) => {
                        tracing::debug!(
                            %error,
                            credential = name,
                            "the ledger was not told that a credential is another; told again"
                        );
                        result = Err(error);
                    }
                }
                worker.admit().await;
            }
            untold.retain(|_, times| *times > 0);
            round.end(result);
        }
    }

    /// The names of those that became another, are gone, or have lost owners to a new one.
    fn look(&mut self) -> BTreeSet<String> {
        let before = self.list.clone();
        self.look_at_file();
        let now = secrets(&self.list);
        let is_same = |old: &CredentialSettings| {
            let secret = self.secrets.get(&old.name).map(SecretString::expose_secret)
                == now.get(&old.name).map(SecretString::expose_secret);
            secret
                && self
                    .list
                    .iter()
                    .any(|new| new.name == old.name && new.owners == old.owners && new.login.is_same(&old.login))
        };
        let mut other: BTreeSet<String> = before
            .iter()
            .filter(|old| !is_same(old))
            .map(|old| old.name.clone())
            .collect();
        if self.list.iter().any(|new| {
            !before
                .iter()
                .any(|old| old.name == new.name && old.owners == new.owners)
        }) {
            // Its owners were served by nobody, or by one that serves all.
            other.insert(NO_CREDENTIAL.to_owned());
            other.extend(
                before
                    .iter()
                    .filter(|old| old.owners.iter().any(|owner| owner == EVERYBODY))
                    .map(|old| old.name.clone()),
            );
        }
        self.secrets = now;
        other
    }

    fn look_at_file(&mut self) {
        let Some(file) = &mut self.file else { return };
        let path = file.path().display().to_string();
        match file.changed() {
            None => {}
            Some(Ok(list)) => match self.replace(list) {
                Ok(()) => tracing::info!(
                    path,
                    credentials = self.list.len(),
                    "the file of credentials has changed and is in use"
                ),
                Err(error) => {
                    tracing::warn!(
                        path,
                        %error,
                        "the file of credentials has changed and cannot be used; the one before stays in use"
                    )
                }
            },
            Some(Err(wrong)) => {
                tracing::warn!(
                    path,
                    wrong = wrong.join("; "),
                    "the file of credentials has changed and cannot be used; the one before stays in use"
                );
            }
        }
    }

    fn replace(&mut self, list: Vec<CredentialSettings>) -> Result<(), BuildError> {
        let known = self.credentials.all();
        let mut made = Vec::new();
        for of in &list {
            let kept = self
                .list
                .iter()
                .find(|before| before.name == of.name && before.login.is_same(&of.login));
            let kept = kept.and_then(|before| known.iter().find(|credential| *credential.name == before.name));
            let client = match kept {
                Some(credential) => credential.client.clone(),
                None => self.clients.client(of)?,
            };
            made.push(Credential::new(&of.name, &of.owners, client));
        }
        self.credentials.replace(made);
        self.list = list;
        Ok(())
    }
}
