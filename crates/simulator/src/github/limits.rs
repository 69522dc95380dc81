//! Limits on calls: what a call costs of its caller's hour and minute, and answers that cost nothing.

use serde_json::json;

use super::answer::Answer;
use super::api::Call;
use super::faults::Endpoint;
use super::model::Ms;
use super::state::Server;

/// The window of the limit on calls.
const HOUR: Ms = 3_600_000;
/// The window of the limit on points.
const MINUTE: Ms = 60_000;

impl Server {
    /// Takes one call off its caller's hour and minute, and returns the headers that say so.
    pub(super) fn spend(&mut self, call: &Call, now: Ms) -> Result<Vec<(&'static str, String)>, Answer> {
        let headers = self.spend_hour(call, now)?;
        let Some(most) = self.settings.points_per_minute else {
            return Ok(headers);
        };
        let (start, points) = self
            .points
            .entry((call.caller.clone(), call.endpoint))
            .or_insert((now, 0));
        if now >= *start + MINUTE {
            (*start, *points) = (now, 0);
        }
        *points += if matches!(
            call.endpoint,
            Endpoint::GenerateJitconfig | Endpoint::DeleteRunner | Endpoint::Redeliver | Endpoint::AccessTokens
        ) {
            5
        } else {
            1
        };
        if *points <= most {
            return Ok(headers);
        }
        let wait = (*start + MINUTE - now).div_ceil(1000);
        Err(Answer {
            headers,
            ..Answer::refused(429, false)
        }
        .header("retry-after", wait))
    }

    fn spend_hour(&mut self, call: &Call, now: Ms) -> Result<Vec<(&'static str, String)>, Answer> {
        let Some(limit) = self.apps.limit(&call.caller).or(self.settings.rate_limit) else {
            return Ok(Vec::new());
        };
        let quota = self.quotas.entry(call.caller.clone()).or_insert((now, 0));
        if now >= quota.0 + HOUR {
            *quota = (now, 0);
        }
        if call.endpoint != Endpoint::RateLimit {
            quota.1 += 1;
        }
        let (start, used) = *quota;
        let headers = vec![
            ("x-ratelimit-limit", limit.to_string()),
            ("x-ratelimit-remaining", limit.saturating_sub(used).to_string()),
            ("x-ratelimit-used", used.min(limit).to_string()),
            ("x-ratelimit-reset", ((start + HOUR) / 1000).to_string()),
            ("x-ratelimit-resource", "core".to_owned()),
        ];
        if used <= limit {
            return Ok(headers);
        }
        Err(Answer {
            headers,
            ..Answer::refused(403, true)
        })
    }

    /// The caller knows this answer: 304, which is not counted.
    pub(super) fn unchanged(&mut self, call: &Call, answer: Answer, now: Ms) -> Answer {
        self.counters.rest_unchanged += 1;
        if let Some((_, used)) = self
            .quotas
            .get_mut(&call.caller)
            .filter(|(start, _)| now < *start + HOUR)
        {
            *used = used.saturating_sub(1);
        }
        let mut headers = answer.headers;
        for (name, value) in &mut headers {
            let by = |n: i64| {
                value
                    .parse::<i64>()
                    .map_or_else(|_| value.clone(), |old| (old + n).to_string())
            };
            match *name {
                "x-ratelimit-remaining" => *value = by(1),
                "x-ratelimit-used" => *value = by(-1),
                _ => {}
            }
        }
        Answer {
            status: 304,
            body: None,
            headers,
        }
    }

    pub(super) fn rate_limit(&self, call: &Call, now: Ms) -> Answer {
        let Some(limit) = self.apps.limit(&call.caller).or(self.settings.rate_limit) else {
            return Answer::error(404, "Rate limiting is not enabled.");
        };
        let (start, used) = self
            .quotas
            .get(&call.caller)
            .copied()
            .filter(|(start, _)| now < start + HOUR)
            .unwrap_or((now, 0));
        let core = json!({ "limit": limit, "remaining": limit.saturating_sub(used), "used": used.min(limit),
            "reset": (start + HOUR) / 1000 });
        Answer::json(
            200,
            json!({ "resources": { "core": core, "search": core }, "rate": core }),
        )
    }
}
