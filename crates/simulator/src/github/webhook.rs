//! Sends webhooks as GitHub does: signed, a limited number at once, each with a time-out, and never again by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::log::Event;
use super::model::{Action, Ms};
use super::settings::Settings;
use super::state::{Delivery, Server};
use super::{App, Hook};

/// The way out for webhooks.
pub(crate) struct Outgoing {
    queue: mpsc::UnboundedSender<Delivery>,
    hook: Mutex<Option<Arc<str>>>,
    secret: Option<SecretString>,
}

impl Outgoing {
    /// The way out, and the end of it that [`run`] reads.
    pub(super) fn new(hook: Option<Hook>) -> (Self, mpsc::UnboundedReceiver<Delivery>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let (url, secret) = hook.map(|hook| (hook.url.map(Into::into), hook.secret)).unzip();
        (
            Self {
                queue,
                hook: Mutex::new(url.flatten()),
                secret,
            },
            receiver,
        )
    }

    pub(super) fn send(&self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            // Refused only after the shutdown.
            let _ = self.queue.send(delivery);
        }
    }

    pub(super) fn set_url(&self, url: &str) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.into());
    }

    fn url(&self) -> Option<Arc<str>> {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// `X-Hub-Signature-256` of a body.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

/// `X-Hub-Signature` of a body, which GitHub still sends.
fn old_signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    format!("sha1={}", hex::encode(hmac::sign(&key, body)))
}

/// What webhooks are sent with.
pub(super) fn client(settings: &Settings) -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(Duration::from_millis(settings.webhook_timeout_ms))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .context("HTTP client for webhooks")
}

/// Sends what comes out of `queue` until `shutdown`.
pub(super) async fn run(
    app: Arc<App>,
    mut queue: mpsc::UnboundedReceiver<Delivery>,
    client: reqwest::Client,
    settings: Settings,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(settings.webhook_concurrency.max(1)));
    while let Some(Some(delivery)) = shutdown.run_until_cancelled(queue.recv()).await {
        let (app, client, shutdown) = (app.clone(), client.clone(), shutdown.clone());
        if delivery.delay > 0 {
            tokio::spawn(async move {
                sleep(Duration::from_millis(delivery.delay)).await;
                app.webhooks.send(vec![Delivery { delay: 0, ..delivery }]);
            });
            continue;
        }
        let Some(Ok(permit)) = shutdown.run_until_cancelled(permits.clone().acquire_owned()).await else {
            break;
        };
        tokio::spawn(async move {
            shutdown.run_until_cancelled(deliver(&app, &client, delivery)).await;
            drop(permit);
        });
    }
}

/// What came of a webhook: the status that it was answered with, or 0 and why there was no answer.
type Reply = (u16, Option<&'static str>);

async fn deliver(app: &App, client: &reqwest::Client, delivery: Delivery) {
    let organization = app.with(|server, now| {
        server.webhook_sent(&delivery, now);
        server
            .owners
            .get(&delivery.job.facts.repo.key().0)
            .and_then(|owner| app.site.organization(owner))
    });
    let body = app
        .site
        .webhook(delivery.action, &delivery.job, organization.as_deref());
    let started = Instant::now();
    let reply = match app.webhooks.url() {
        Some(url) => post(app, client, &url, &delivery.id, body).await,
        None => (0, Some("no webhook URL")),
    };
    let took = Ms::try_from(started.elapsed().as_millis()).unwrap_or(Ms::MAX);
    app.with(|server, now| server.webhook_answered(&delivery, reply, took, now));
}

async fn post(app: &App, client: &reqwest::Client, url: &str, delivery: &str, body: String) -> Reply {
    let mut request = client
        .post(url)
        .header("Content-Type", "application/json")
        .header("Accept", "*/*")
        .header("User-Agent", "GitHub-Hookshot/51a1b2c")
        .header("X-GitHub-Event", "workflow_job")
        .header("X-GitHub-Delivery", delivery)
        .header("X-GitHub-Hook-ID", "1")
        .header("X-GitHub-Hook-Installation-Target-ID", "1")
        .header("X-GitHub-Hook-Installation-Target-Type", "business")
        .header("X-GitHub-Enterprise-Host", &app.site.host)
        .header("X-GitHub-Enterprise-Version", &app.site.version);
    if let Some(secret) = &app.webhooks.secret {
        let secret = secret.expose_secret();
        request = request.header("X-Hub-Signature", old_signature(secret, body.as_bytes()));
        request = request.header("X-Hub-Signature-256", signature(secret, body.as_bytes()));
    }
    match request.body(body).send().await {
        // The answer is read to its end, so that the connection can serve again.
        Ok(response) => (
            response.status().as_u16(),
            response.bytes().await.err().map(|_| "answer cut"),
        ),
        Err(error) if error.is_timeout() => (0, Some("timed out")),
        Err(error) if error.is_connect() => (0, Some("connection refused")),
        Err(error) => {
            tracing::debug!(error = %error.without_url(), "webhook failed");
            (0, Some("connection lost"))
        }
    }
}

impl Server {
    /// A webhook begins to be sent.
    fn webhook_sent(&mut self, delivery: &Delivery, now: Ms) {
        let (action, job) = (delivery.action, delivery.job.id);
        self.counters.webhooks_sent += 1;
        if let Some(job) = self.jobs.get_mut(&job).filter(|_| action == Action::Queued) {
            job.times.sent.get_or_insert(now);
        }
        self.log.push(
            now,
            Event::WebhookSent {
                job,
                action,
                delivery: delivery.id.clone(),
            },
        );
    }

    /// A webhook was answered, or not.
    fn webhook_answered(&mut self, delivery: &Delivery, (status, error): Reply, took_ms: Ms, now: Ms) {
        let (action, job) = (delivery.action, delivery.job.id);
        let accepted = (200..300).contains(&status);
        match status {
            0 => self.counters.webhooks_unanswered += 1,
            _ if accepted => self.counters.webhooks_accepted += 1,
            _ => self.counters.webhooks_refused += 1,
        }
        if let Some(job) = self.jobs.get_mut(&job).filter(|_| action == Action::Queued && accepted) {
            job.times.accepted.get_or_insert(now);
        }
        self.record(delivery, status, error, took_ms, now);
        self.log.push(
            now,
            Event::WebhookAnswered {
                job,
                action,
                delivery: delivery.id.clone(),
                status,
                took_ms,
                error,
            },
        );
    }
}
