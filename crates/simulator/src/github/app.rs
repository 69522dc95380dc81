//! Who calls: tokens, and one GitHub App with its installations.
//!
//! As GitHub does: a JWT is checked by its signature, issuer and times; a token of an installation holds for a while
//! and for one account; each caller has an hour of calls of its own.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::{Call, Page};
use super::faults::Endpoint;
use super::jobs::ControlError;
use super::model::{Ms, OwnerKind, Scope};
use super::payload::Site;
use super::state::Server;
use crate::clock::iso;

/// How far in the future `iat` may lie, and how far `exp`.
const DRIFT: Ms = 60_000;
const LONGEST_JWT: Ms = 600_000;

/// Who a call comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Whoever holds the server's token.
    #[default]
    Anybody,
    /// Whoever holds this other token.
    Token(String),
    /// The App itself.
    App,
    /// An installation of the App.
    Installation(u64),
}

/// What became of the App at an account, in words of the control API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// It is there.
    Installed,
    /// It may do nothing.
    Suspended,
    /// It is not there (any more).
    Uninstalled,
}

/// An installation: where, and since when it is suspended.
#[derive(Debug)]
struct Installation {
    /// Login in lower case, or the enterprise's slug.
    account: String,
    enterprise: bool,
    since: Ms,
    suspended: Option<Ms>,
}

/// The App and its callers.
#[derive(Debug, Default)]
pub(super) struct Apps {
    /// Its id, and its public key (PKCS#1).
    app: Option<(String, Vec<u8>)>,
    installations: BTreeMap<u64, Installation>,
    /// By token: installation, and until when.
    tokens: HashMap<String, (u64, Ms)>,
    /// Further tokens, and calls an hour of each.
    others: HashMap<String, Option<u64>>,
    last: u64,
}

impl Apps {
    /// Calls an hour of a caller, where it has a number of its own.
    pub(super) fn limit(&self, caller: &Caller) -> Option<u64> {
        if let Caller::Token(token) = caller {
            self.others.get(token).copied().flatten()
        } else {
            None
        }
    }

    fn installed(&self, account: &str, enterprise: bool) -> Option<(u64, &Installation)> {
        self.installations
            .iter()
            .find(|(_, one)| one.account == account && one.enterprise == enterprise)
            .map(|(id, one)| (*id, one))
    }
}

/// The RSA key in a public key's PEM, as ring takes it.
///
/// # Errors
///
/// When it is none.
pub fn public_key(pem: &str) -> anyhow::Result<Vec<u8>> {
    // A SubjectPublicKeyInfo: the algorithm, rsaEncryption with NULL, then a BIT STRING of two length bytes that holds
    // the key.
    const RSA: [u8; 13] = [
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
        .ok()
        .context("no PUBLIC KEY in PEM")?;
    let start = der
        .windows(RSA.len())
        .position(|window| window == RSA)
        .context("no RSA key")?
        + RSA.len();
    let key = der
        .get(start..)
        .and_then(|rest| rest.strip_prefix(&[0x03, 0x82]))
        .and_then(|rest| rest.get(3..))
        .context("no RSA key of 2048 bits or more")?;
    Ok(key.to_vec())
}

impl Server {
    /// Makes it know a GitHub App, with its id and its public key ([`public_key`]).
    pub fn set_app(&mut self, id: &str, key: Vec<u8>) {
        self.apps.app = Some((id.to_owned(), key));
    }

    /// Installs the App at an owner or at the enterprise, suspends or removes it.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] when there is no such account.
    pub fn set_installation(&mut self, account: &str, state: AppState, now: Ms) -> Result<(), ControlError> {
        let account = account.to_lowercase();
        let enterprise = self.settings.enterprise.eq_ignore_ascii_case(&account);
        if !enterprise && !self.owners.contains_key(&account) {
            return Err(ControlError::Invalid(format!("no account {account}")));
        }
        let known = self.apps.installed(&account, enterprise).map(|(id, _)| id);
        match (state, known) {
            (AppState::Uninstalled, Some(id)) => {
                self.apps.installations.remove(&id);
                self.apps.tokens.retain(|_, (of, _)| *of != id);
            }
            (AppState::Uninstalled, None) => {}
            (_, known) => {
                let id = known.unwrap_or_else(|| {
                    self.apps.last += 1;
                    50_000_000 + self.apps.last
                });
                let one = self.apps.installations.entry(id).or_insert(Installation {
                    account,
                    enterprise,
                    since: now,
                    suspended: None,
                });
                one.suspended = (state == AppState::Suspended).then_some(now);
            }
        }
        Ok(())
    }

    /// Lets another token in, with calls an hour of its own; without a number it has the server's.
    pub fn add_token(&mut self, token: &str, rate_limit: Option<u64>) {
        self.apps.others.insert(token.to_owned(), rate_limit);
    }

    /// Whose a token is. `own` is the server's.
    pub(super) fn caller(&self, token: &str, own: &str, now: Ms) -> Result<Caller, Answer> {
        if token == own {
            return Ok(Caller::Anybody);
        }
        if self.apps.others.contains_key(token) {
            return Ok(Caller::Token(token.to_owned()));
        }
        if let Some((id, _)) = self.apps.tokens.get(token).filter(|(_, until)| now < *until) {
            return match self.apps.installations.get(id) {
                Some(one) if one.suspended.is_some() => Err(Answer::error(403, "This installation has been suspended")),
                Some(_) => Ok(Caller::Installation(*id)),
                None => Err(Answer::error(401, "Bad credentials")),
            };
        }
        if token.split('.').count() == 3 {
            self.check_jwt(token, now).map(|()| Caller::App)
        } else {
            Err(Answer::error(401, "Bad credentials"))
        }
    }

    fn check_jwt(&self, token: &str, now: Ms) -> Result<(), Answer> {
        #[derive(Deserialize)]
        struct Claims {
            iss: String,
            iat: u64,
            exp: u64,
        }
        let undecodable = || Answer::error(401, "A JSON web token could not be decoded");
        let (Some((app, key)), Some((text, signature))) = (&self.apps.app, token.rsplit_once('.')) else {
            return Err(undecodable());
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| undecodable())?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| undecodable())?;
        let part = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| undecodable());
        let (header, claims) = text.split_once('.').ok_or_else(undecodable)?;
        let header: Value = serde_json::from_slice(&part(header)?).map_err(|_| undecodable())?;
        let claims: Claims = serde_json::from_slice(&part(claims)?).map_err(|_| undecodable())?;
        let message = match () {
            () if header["alg"] != "RS256" => "A JSON web token could not be decoded",
            () if claims.iss != *app => "Integration not found",
            () if claims.iat * 1000 > now + DRIFT => {
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued in \
                 the past"
            }
            () if claims.exp * 1000 > now + LONGEST_JWT + 1000 => {
                "'Expiration time' claim ('exp') is too far in the future"
            }
            () if claims.exp * 1000 <= now => {
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the \
                 assertion expires"
            }
            () => return Ok(()),
        };
        Err(Answer::error(401, message))
    }

    /// What a caller may not do at all, whatever is there.
    pub(super) fn refuses(&self, call: &Call) -> Option<Answer> {
        let of_the_app = matches!(
            call.endpoint,
            Endpoint::Installations | Endpoint::OrgInstallation | Endpoint::UserInstallation | Endpoint::AccessTokens
        );
        let of_its_hook = call.scope.is_none()
            && matches!(
                call.endpoint,
                Endpoint::AppHook | Endpoint::ListDeliveries | Endpoint::Redeliver
            );
        let for_all = matches!(call.endpoint, Endpoint::Meta | Endpoint::RateLimit);
        match &call.caller {
            Caller::App if of_the_app || of_its_hook || for_all => None,
            Caller::App => Some(Answer::error(401, "Bad credentials")),
            _ if of_the_app => Some(Answer::error(401, "A JSON web token could not be decoded")),
            Caller::Installation(id) => {
                let may = self.apps.installations.get(id).is_some_and(|one| match &call.scope {
                    Some(Scope::Enterprise(slug)) => one.enterprise && one.account == *slug,
                    Some(scope) => !one.enterprise && one.account == scope.owner(),
                    None => !of_its_hook,
                });
                (!may).then(|| Answer::error(403, "Resource not accessible by integration"))
            }
            Caller::Anybody | Caller::Token(_) => None,
        }
    }

    /// Answers a call of the App's own.
    pub(super) fn about_app(&mut self, call: &Call, site: &Site, now: Ms) -> Answer {
        let at = |account: &str| match self.apps.installed(account, false) {
            Some((id, one)) => Answer::json(200, self.installation_json(id, one, site)),
            None => Answer::not_found(),
        };
        match (call.endpoint, &call.scope) {
            (Endpoint::Installations, _) => {
                let all: Vec<_> = self.apps.installations.iter().collect();
                let page = Page::of(call);
                let shown: Vec<Value> = page
                    .slice(&all)
                    .iter()
                    .map(|(id, one)| self.installation_json(**id, one, site))
                    .collect();
                page.link(Answer::json(200, json!(shown)), all.len(), call, &site.url)
            }
            (Endpoint::OrgInstallation, Some(Scope::Organization(org))) => at(org),
            // Called with the name of a user, which has the form of an organization's here.
            (Endpoint::UserInstallation, Some(Scope::Organization(user))) => match self.owners.get(user) {
                Some(owner) if owner.kind == OwnerKind::User => at(user),
                _ => Answer::not_found(),
            },
            (Endpoint::AccessTokens, _) => self.issue(call.id, now),
            _ => Answer::not_found(),
        }
    }

    fn issue(&mut self, id: Option<u64>, now: Ms) -> Answer {
        let Some((id, one)) = id.and_then(|id| Some((id, self.apps.installations.get(&id)?))) else {
            return Answer::not_found();
        };
        if one.suspended.is_some() {
            return Answer::error(403, "This installation has been suspended");
        }
        let until = now + self.settings.app_token_ms;
        let token = format!("ghs_{:032x}{:08x}", self.rng.u128(..), self.rng.u32(..));
        self.apps.tokens.retain(|_, (_, until)| now < *until);
        self.apps.tokens.insert(token.clone(), (id, until));
        self.counters.app_tokens += 1;
        let permissions = json!({ "organization_self_hosted_runners": "write", "administration": "write",
            "actions": "read", "metadata": "read" });
        Answer::json(
            201,
            json!({ "token": token, "expires_at": iso(until), "permissions": permissions,
                "repository_selection": "all" }),
        )
    }

    /// The repositories that an installation sees.
    pub(super) fn list_installation_repositories(&self, call: &Call, site: &Site) -> Answer {
        let account = match &call.caller {
            Caller::Installation(id) => self
                .apps
                .installations
                .get(id)
                .filter(|one| !one.enterprise)
                .map(|one| one.account.clone()),
            _ => {
                return Answer::error(
                    403,
                    "You must authenticate with an installation access token in order to list repositories for an \
                     installation.",
                );
            }
        };
        let Some(account) = account else {
            return Answer::json(200, json!({ "total_count": 0, "repositories": [] }));
        };
        let mut answer = self.list_repositories(&account, call, site);
        let total = self.owners.get(&account).map_or(0, |owner| owner.repos.len());
        answer.body = answer
            .body
            .map(|repositories| json!({ "total_count": total, "repositories": repositories }));
        answer
    }

    fn installation_json(&self, id: u64, one: &Installation, site: &Site) -> Value {
        let (account, target, target_id) = match self.owners.get(&one.account).filter(|_| !one.enterprise) {
            Some(owner) => {
                let kind = if owner.kind == OwnerKind::User {
                    "User"
                } else {
                    "Organization"
                };
                (site.account(&owner.login, owner.id, owner.kind), kind, owner.id)
            }
            None => (site.enterprise_json(), "Enterprise", 1),
        };
        let app = self.apps.app.as_ref().map_or("", |(id, _)| id);
        json!({
            "id": id, "account": account, "repository_selection": "all",
            "access_tokens_url": format!("{}/app/installations/{id}/access_tokens", site.api),
            "repositories_url": format!("{}/installation/repositories", site.api),
            "html_url": format!("{}/settings/installations/{id}", site.url),
            "app_id": app.parse::<u64>().unwrap_or(1), "app_slug": "jit-runners", "target_id": target_id,
            "target_type": target,
            "permissions": { "organization_self_hosted_runners": "write", "metadata": "read" },
            "events": ["workflow_job"], "single_file_name": null,
            "has_multiple_single_files": false, "single_file_paths": [], "created_at": iso(one.since),
            "updated_at": iso(one.suspended.unwrap_or(one.since)),
            "suspended_by": one.suspended.map(|_| site.sender_json()), "suspended_at": one.suspended.map(iso),
        })
    }
}
