//! Every key of the ledger, as Redis holds it and as the model says that it should: compared as text after every
//! transition.

use std::{collections::BTreeMap, sync::LazyLock};

use redis::{Script, aio::MultiplexedConnection};

use super::{Held, JobState, Model, RunnerState, backoff, fold};

/// Key → field or member → value or score. Keys that hold nothing that is compared are left out.
pub type Keyspace = BTreeMap<String, BTreeMap<String, String>>;

/// All that Redis holds, in one round trip: key, whether it expires, and its content.
pub type Dump = BTreeMap<String, (bool, Vec<String>)>;

/// One text, split at control characters: a client reads that much faster than thousands of values.
static DUMP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local read = {
          string = function(key) return { redis.call('GET', key) } end,
          hash = function(key) return redis.call('HGETALL', key) end,
          set = function(key) return redis.call('SMEMBERS', key) end,
          zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
        }
        local rung, keys = {}, {}
        for _, entry in ipairs(redis.call('XRANGE', 'jit:provision', '-',
            '+')) do rung[#rung + 1] = entry[2][4] .. '\30' .. entry[2][6] end
        redis.call('DEL', 'jit:provision')
        for _, key in ipairs(redis.call('KEYS', '*')) do
          local content = read[redis.call('TYPE', key).ok](key)
          keys[#keys + 1] = key .. '\30' .. redis.call('PTTL', key) .. '\30' .. table.concat(content, '\30')
        end
        return table.concat(keys, '\29') .. '\28' .. table.concat(rung, '\29')
        ",
    )
});

/// Reads everything, and takes what admission rang for: (runner, fence), in order.
pub async fn dump(redis: &mut MultiplexedConnection) -> redis::RedisResult<(Dump, Vec<(String, String)>)> {
    let text: String = DUMP.invoke_async(redis).await?;
    let (keys, rung) = text.split_once('\u{1c}').unwrap();
    let parts = |text: &str| text.split('\u{1e}').map(str::to_owned).collect::<Vec<_>>();
    let entries = |text: &str| {
        text.split('\u{1d}')
            .filter(|entry| !entry.is_empty())
            .map(parts)
            .collect::<Vec<_>>()
    };
    let rung = entries(rung)
        .into_iter()
        .map(|entry| (entry[0].clone(), entry[1].clone()))
        .collect();
    let dump = entries(keys).into_iter().map(|mut entry| {
        let content = entry.split_off(2);
        (entry.swap_remove(0), (entry[0] != "-1", content))
    });
    Ok((dump.collect(), rung))
}

/// The same with the fields of each key in order: Redis may tell those of a large hash in another one from time to
/// time.
pub fn in_order(dump: &Dump) -> Dump {
    let sorted = |content: &[String]| {
        let mut pairs: Vec<_> = content.chunks(2).collect();
        pairs.sort();
        pairs.concat()
    };
    dump.iter()
        .map(|(key, (expires, content))| (key.clone(), (*expires, sorted(content))))
        .collect()
}

/// Of a job's or a runner's fields, those that decide something.
const TOLD: [&str; 23] = [
    "state",
    "org",
    "class",
    "attempt",
    "queued_at",
    "runner",
    "missing",
    "unreadable",
    "unanswered",
    "waits",
    "told_at",
    "job",
    "running_job",
    "github_id",
    "hold_until",
    "uncertain",
    "deregistered",
    "forced",
    "unused",
    "misfits",
    "held_until",
    "credential",
    "suspect",
];

fn pairs(content: &[String]) -> impl Iterator<Item = (String, String)> {
    content.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()))
}

fn score(text: &str) -> String {
    text.parse::<f64>()
        .map_or_else(|_| text.to_owned(), |score| score.to_string())
}

/// What is compared of a dump: logins in lower case, scores as numbers.
pub fn observed(dump: &Dump) -> Keyspace {
    let mut keyspace = Keyspace::new();
    for (key, (expires, content)) in dump {
        let fields: BTreeMap<String, String> = match key.as_str() {
            // What is put aside is told below.
            "ledger:meta" | "places" | "owners:heard" | "repos:active" | "repos:new" | "repos:unreadable"
            | "orgs:parked" | "backoffs:waking" => continue,
            "orgs:known" => pairs(content).collect(),
            "org_limits" | "orgs:served" | "orgs:credential" | "orgs:running" | "orgs:pending" => {
                pairs(content).map(|(org, value)| (fold(&org), value)).collect()
            }
            "orgs:paused" => pairs(content).map(|(org, pause)| (fold(&org), until(&pause))).collect(),
            "orgs:ready" | "backoffs" => pairs(content)
                .map(|(member, at)| (fold_name(&member), score(&at)))
                .collect(),
            "jobs:questions" | "registrations:uncertain" | "runners:deadlines" | "classes:surplus" => {
                pairs(content).map(|(member, at)| (member, score(&at))).collect()
            }
            "quota:ceiling" => pairs(content).filter(|(field, _)| field != "reason").collect(),
            "global:total_running" => one("size", &content[0]),
            "runners:live" => members(content),
            _ => {
                let (kind, part) = (key.split(':').next().unwrap(), key.rsplit(':').next().unwrap());
                match (kind, part) {
                    ("job" | "runner", "info") => told(content, *expires),
                    ("class", "info") => pairs(content)
                        .filter(|(field, _)| ["org", "misfit"].contains(&field.as_str()))
                        .map(|(field, value)| {
                            if field == "misfit" {
                                (field, String::new())
                            } else {
                                (field, fold(&value))
                            }
                        })
                        .collect(),
                    ("class", "queued") | ("org", "pending" | "classes") => {
                        pairs(content).map(|(member, at)| (member, score(&at))).collect()
                    }
                    ("org", "running") => one("size", &content[0]),
                    ("class", "idle") | ("org", "runners") => members(content),
                    (_, "parked") => continue,
                    (_, "made" | "started" | "work") => pairs(content)
                        .map(|(member, at)| (fold_name(&member), score(&at)))
                        .collect(),
                    ("credential", "orgs") => members(&content.iter().map(|org| fold(org)).collect::<Vec<_>>()),
                    (_, "backoff") => pairs(content)
                        .filter(|(field, _)| {
                            ["failures", "since", "first", "needs", "timed", "probe"].contains(&field.as_str())
                        })
                        .collect(),
                    _ => one("unknown key", ""),
                }
            }
        };
        let clash = keyspace.insert(fold_name(key), fields);
        assert!(clash.is_none(), "{key} stands there in two spellings");
    }
    put_back(dump, &mut keyspace);
    keyspace.retain(|_, fields| !fields.is_empty() && *fields != one("size", "0"));
    keyspace
}

/// What admission has put aside stands in its own place here, as if it had not been met yet: when that happens is
/// nobody's promise.
fn put_back(dump: &Dump, keyspace: &mut Keyspace) {
    let mut place = |key: String, member: &str, at: String| keyspace.entry(key).or_default().insert(fold(member), at);
    for (key, (_, content)) in dump {
        let Some(subject) = key.strip_suffix(":parked").filter(|subject| *subject != "orgs") else {
            continue;
        };
        for (member, at) in pairs(content) {
            if subject.starts_with("org:") || subject.starts_with("credential:") {
                place("orgs:ready".into(), &member, score(&at));
            } else {
                let info = &dump[&format!("class:{member}:info")].1;
                let org = pairs(info).find(|(field, _)| field == "org").unwrap().1;
                place(format!("org:{}:classes", fold(&org)), &member, score(&at));
                if !dump.contains_key(&format!("org:{org}:classes")) {
                    place("orgs:ready".into(), &org, ASIDE.into());
                }
            }
        }
    }
}

/// In place of the score of an organization, all of whose classes are put aside.
const ASIDE: &str = "aside";

/// Lower case where the name holds a login; a class's or a runner's name is lower case already.
fn fold_name(name: &str) -> String {
    fold(name)
}

fn one(field: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(field.to_owned(), value.to_owned())])
}

fn members(content: &[String]) -> BTreeMap<String, String> {
    content.iter().map(|member| (member.clone(), String::new())).collect()
}

fn until(pause: &str) -> String {
    let pause: serde_json::Value = serde_json::from_str(pause).unwrap_or_default();
    pause["until_ms"]
        .as_f64()
        .map_or_else(String::new, |until| until.to_string())
}

fn told(content: &[String], expires: bool) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<_, _> = pairs(content)
        .filter(|(field, _)| TOLD.contains(&field.as_str()))
        .collect();
    fields.entry("org".into()).and_modify(|org| *org = fold(org));
    fields.insert("expires".into(), expires.to_string());
    fields
}

impl Model {
    /// The keyspace that this state has to have.
    pub fn keyspace(&self) -> Keyspace {
        let mut keys = Keyspace::new();
        let mut put = |key: &str, field: &str, value: String| {
            keys.entry(key.to_owned()).or_default().insert(field.to_owned(), value);
        };
        let ready: BTreeMap<_, _> = self.ready().into_iter().map(|(score, org)| (org, score)).collect();
        for (org, spelling) in &self.known {
            put("orgs:known", org, spelling.clone());
            if self.running(org) > 0 {
                put(&format!("org:{org}:running"), "size", self.running(org).to_string());
                put("orgs:running", org, self.running(org).to_string());
            }
            if self.pending(org) > 0 {
                put("orgs:pending", org, self.pending(org).to_string());
            }
            for (at, class) in self.in_need(org) {
                put(&format!("org:{org}:classes"), &class, at.to_string());
            }
            if let Some(score) = ready.get(org) {
                put("orgs:ready", org, score.to_string());
            }
        }
        for (org, limit) in &self.limits {
            put("org_limits", org, limit.to_string());
        }
        for (org, until) in &self.paused {
            put(
                "orgs:paused",
                org,
                until.map_or_else(String::new, |until| until.to_string()),
            );
            if let Some(until) = until {
                put("backoffs", &format!("pause:{org}"), until.to_string());
            }
        }
        for (org, number) in &self.served {
            put("orgs:served", org, number.to_string());
        }
        for (org, credential) in &self.credentials {
            put("orgs:credential", org, credential.clone());
            put(&format!("credential:{credential}:orgs"), org, String::new());
        }
        if let Some((runners, since)) = self.ceiling {
            put("quota:ceiling", "runners", runners.to_string());
            put("quota:ceiling", "since", since.to_string());
        }
        for (held, until) in &self.backoffs {
            put("backoffs", &subject(held), until.to_string());
        }
        for (held, row) in &self.rows {
            let key = format!("{}:backoff", subject(held));
            put(&key, "failures", row.failures.to_string());
            put(&key, "since", row.since.to_string());
            put(&key, "first", row.first.to_string());
            put(&key, "needs", backoff::word(row.needs).to_owned());
            if row.timed {
                put(&key, "timed", "1".to_owned());
            }
            row.probe.iter().for_each(|probe| put(&key, "probe", probe.clone()));
        }
        for ((held, needs), members) in &self.failing {
            for (member, at) in members {
                put(
                    &format!("{}:failing:{}", subject(held), backoff::word(*needs)),
                    &subject(member),
                    at.to_string(),
                );
            }
        }
        for class in self.present() {
            let described = &self.classes[&class];
            put(&format!("class:{class}:info"), "org", fold(&described.org));
            if self.misfits.contains(&class) {
                put(&format!("class:{class}:info"), "misfit", String::new());
            }
            for (at, job) in self.queued(&class) {
                put(&format!("class:{class}:queued"), &job, at.to_string());
                put(&format!("org:{}:pending", fold(&described.org)), &job, at.to_string());
            }
            for (name, _) in self.idle(&class) {
                put(&format!("class:{class}:idle"), name, String::new());
            }
        }
        for (class, since) in &self.surplus_since {
            put("classes:surplus", class, since.to_string());
        }
        self.put_jobs(&mut put);
        self.put_runners(&mut put);
        keys
    }

    fn put_jobs(&self, put: &mut impl FnMut(&str, &str, String)) {
        for (id, job) in &self.jobs {
            let over = job.state == JobState::Completed;
            let fields = [
                ("state", Some(job.state.as_str().to_owned())),
                ("org", Some(job.org.clone())),
                ("class", job.class.clone()),
                ("attempt", job.attempt.map(|attempt| attempt.to_string())),
                ("queued_at", job.queued_at.map(|at| at.to_string())),
                ("runner", job.runner.clone()),
                ("missing", (job.missing > 0).then(|| job.missing.to_string())),
                ("suspect", job.suspect.clone()),
                ("unreadable", (job.unreadable > 0).then(|| job.unreadable.to_string())),
                ("unanswered", (job.unanswered > 0).then(|| job.unanswered.to_string())),
                ("waits", (job.waits > 0).then(|| job.waits.to_string())),
                ("told_at", (!over).then(|| job.told_at.to_string())),
                ("misfits", (job.misfits > 0).then(|| job.misfits.to_string())),
                ("held_until", job.held_until.map(|at| at.to_string())),
                ("expires", Some(over.to_string())),
            ];
            for (field, value) in fields {
                value
                    .into_iter()
                    .for_each(|value| put(&format!("job:{id}:info"), field, value));
            }
            if let Some(at) = job.ask_at {
                put("jobs:questions", &id.to_string(), at.to_string());
            }
        }
    }

    fn put_runners(&self, put: &mut impl FnMut(&str, &str, String)) {
        let live = self.live();
        if !live.is_empty() {
            put("global:total_running", "size", live.len().to_string());
        }
        for (name, runner) in &self.runners {
            let org = fold(&self.classes[&runner.class].org);
            let gone = runner.state == RunnerState::Gone;
            let fields = [
                ("state", Some(runner.state.as_str().to_owned())),
                ("org", Some(org.clone())),
                ("class", Some(runner.class.clone())),
                ("job", Some(runner.asked_by.to_string())),
                ("running_job", runner.runs.map(|job| job.to_string())),
                ("github_id", runner.github_id.map(|id| id.to_string())),
                ("hold_until", runner.hold_until.map(|at| at.to_string())),
                ("uncertain", runner.uncertain.then(|| "1".to_owned())),
                ("deregistered", runner.deregistered.then(|| "1".to_owned())),
                ("forced", runner.forced.then(|| "1".to_owned())),
                ("credential", runner.credential.clone()),
                ("unused", runner.unused.then(|| "1".to_owned())),
                ("expires", Some(gone.to_string())),
            ];
            for (field, value) in fields {
                value
                    .into_iter()
                    .for_each(|value| put(&format!("runner:{name}:info"), field, value));
            }
            if !gone {
                put("runners:live", name, String::new());
                put(&format!("org:{org}:runners"), name, String::new());
            }
            if let Some(at) = runner.deadline {
                put("runners:deadlines", name, at.to_string());
            }
            if let Some(at) = runner.look_up_at {
                put("registrations:uncertain", name, at.to_string());
            }
        }
    }
}

pub fn subject(held: &Held) -> String {
    match held {
        Held::Runner(name) => format!("runner:{name}"),
        Held::Class(class) => format!("class:{class}"),
        Held::Scope(scope) => format!("scope:{}", fold(scope)),
        Held::Org(org) => format!("org:{org}"),
        Held::Profile(profile) => format!("profile:{profile}"),
        Held::Credential(name) => format!("credential:{name}"),
        Held::Global => "global".to_owned(),
    }
}

/// What differs, one line a field: key, field, what Redis holds, what the model says.
pub fn differences(redis: &Keyspace, model: &Keyspace) -> Vec<String> {
    let nothing = BTreeMap::new();
    let mut lines = Vec::new();
    let mut keys: Vec<_> = redis.keys().chain(model.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (held, due) = (redis.get(key).unwrap_or(&nothing), model.get(key).unwrap_or(&nothing));
        let mut fields: Vec<_> = held.keys().chain(due.keys()).collect();
        fields.sort();
        fields.dedup();
        let differs =
            |field: &String| held.get(field) != due.get(field) && held.get(field).is_none_or(|at| at != ASIDE);
        for field in fields.into_iter().filter(|field| differs(field)) {
            lines.push(format!(
                "{key} {field}: redis {:?}, model {:?}",
                held.get(field),
                due.get(field)
            ));
        }
    }
    lines
}
