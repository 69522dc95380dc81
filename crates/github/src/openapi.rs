//! Holds requests and answers against GitHub's own OpenAPI description, for tests: of this client, and of the simulator
//! that stands in for GitHub.
//!
//! The descriptions are cut down to this client's calls; `openapi/README.md` says where they come from. They are
//! OpenAPI 3.0, whose schemas are JSON Schema but for `nullable`, which is translated here.
//!
//! Requests are held to more than the description says: a parameter or property that it does not name is an error, as
//! GitHub would ignore it silently. Answers are held to exactly what it says: GitHub sends more than it describes. A
//! refusal that the description does not list for a call (it lists few) must look like GitHub's `basic-error`.

use std::sync::OnceLock;

use jsonschema::Draft;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// A server version whose description is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// GHES 3.10, the first with just-in-time runners.
    Ghes310,
    /// GHES 3.14.
    Ghes314,
    /// GHES 3.19, the newest when these were taken (November 2026).
    Ghes319,
    /// github.com and GHE.com, with what an enterprise adds.
    Ghec,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::Ghes310, Self::Ghes314, Self::Ghes319, Self::Ghec];

    /// The description, `nullable` translated.
    fn document(self) -> &'static Value {
        static DOCUMENTS: [OnceLock<Value>; 4] = [const { OnceLock::new() }; 4];
        let text = match self {
            Self::Ghes310 => include_str!("../openapi/ghes-3.10.json"),
            Self::Ghes314 => include_str!("../openapi/ghes-3.14.json"),
            Self::Ghes319 => include_str!("../openapi/ghes-3.19.json"),
            Self::Ghec => include_str!("../openapi/ghec.json"),
        };
        DOCUMENTS[self as usize]
            .get_or_init(|| translate(serde_json::from_str(text).expect("regenerate.mjs writes JSON")))
    }
}

/// Whether GitHub describes this request: method, path (with or without `/api/v3`), query without `?`, JSON body.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn validate_request(
    version: Version,
    method: &str,
    path: &str,
    query: Option<&str>,
    body: Option<&Value>,
) -> Result<(), String> {
    let operation = Operation::find(version, method, path)?;
    let parameters = operation.parameters();
    for (name, text) in &operation.path_values {
        let parameter = parameters.iter().find(|p| p["in"] == "path" && p["name"] == **name);
        operation
            .check_text(parameter.map(|p| &p["schema"]), text)
            .map_err(|why| format!("{operation}: path parameter {name}: {why}"))?;
    }
    for (name, text) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if (version, name.as_ref()) == (Version::Ghes310, "name") && path.ends_with("/actions/runners") {
            // Sent on purpose: described since 3.11, ignored before.
            continue;
        }
        let parameter = parameters.iter().find(|p| p["in"] == "query" && p["name"] == *name);
        let parameter = parameter.ok_or_else(|| format!("{operation}: no query parameter {name} is described"))?;
        operation
            .check_text(Some(&parameter["schema"]), &text)
            .map_err(|why| format!("{operation}: query parameter {name}: {why}"))?;
    }
    let Some(described) = operation.node.get("requestBody") else {
        return if body.is_none() {
            Ok(())
        } else {
            Err(format!("{operation}: no body is described"))
        };
    };
    if body.is_none() && described["required"] != Value::Bool(true) {
        return Ok(());
    }
    let schema = &described["content"]["application/json"]["schema"];
    let body = body.ok_or_else(|| format!("{operation}: the body is missing"))?;
    let properties = schema["properties"].as_object();
    let mut sent = body.as_object().into_iter().flat_map(Map::keys);
    if let Some(unknown) = sent.find(|key| properties.is_some_and(|properties| !properties.contains_key(*key))) {
        return Err(format!("{operation}: body: no property {unknown} is described"));
    }
    operation
        .check(schema, body)
        .map_err(|why| format!("{operation}: body: {why}"))
}

/// Whether GitHub describes this answer to a request of that method and path: status and JSON body.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn validate_response(
    version: Version,
    method: &str,
    path: &str,
    status: u16,
    body: Option<&Value>,
) -> Result<(), String> {
    let operation = Operation::find(version, method, path)?;
    let basic_error = json!({"$ref": "#/components/schemas/basic-error"});
    let schema = match operation.response(status) {
        Some(response) => response["content"]["application/json"].get("schema"),
        None if status >= 400 => Some(&basic_error),
        None => return Err(format!("{operation}: no answer {status} is described")),
    };
    match (schema, body) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(format!("{operation}: answer {status}: no body is described")),
        (Some(_), None) => Err(format!("{operation}: answer {status}: the body is missing")),
        (Some(schema), Some(body)) => operation
            .check(schema, body)
            .map_err(|why| format!("{operation}: answer {status}: {why}")),
    }
}

/// GitHub's own examples of this answer's body, as they are: the one of a job lacks `created_at`, which its schema
/// requires.
///
/// # Errors
/// Where the call is not described.
pub fn examples(version: Version, method: &str, path: &str, status: u16) -> Result<Vec<Value>, String> {
    let operation = Operation::find(version, method, path)?;
    let Some(response) = operation.response(status) else {
        return Ok(Vec::new());
    };
    let named = response["content"]["application/json"]["examples"].as_object();
    Ok(named
        .into_iter()
        .flat_map(Map::values)
        .map(|example| operation.resolve(example)["value"].clone())
        .collect())
}

/// A call as the description has it.
struct Operation {
    document: &'static Value,
    /// Such as `GET /orgs/{org}/actions/runners in Ghes314`.
    name: String,
    node: &'static Value,
    /// The path's parameters and their values.
    path_values: Vec<(&'static str, String)>,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Operation {
    fn find(version: Version, method: &str, path: &str) -> Result<Self, String> {
        let document = version.document();
        let path = path.strip_prefix("/api/v3").unwrap_or(path);
        for (template, methods) in document["paths"].as_object().into_iter().flatten() {
            if let (Some(path_values), Some(node)) = (matches(template, path), methods.get(method.to_ascii_lowercase()))
            {
                return Ok(Self {
                    document,
                    name: format!("{method} {template} in {version:?}"),
                    node,
                    path_values,
                });
            }
        }
        Err(format!(
            "{method} {path} is not among the calls described in {version:?}"
        ))
    }

    /// Follows a reference, if it is one.
    fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        let pointer = node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        pointer
            .and_then(|pointer| self.document.pointer(pointer))
            .unwrap_or(node)
    }

    fn parameters(&self) -> Vec<&Value> {
        self.node["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|parameter| self.resolve(parameter))
            .collect()
    }

    fn response(&self, status: u16) -> Option<&Value> {
        self.node["responses"]
            .get(status.to_string())
            .map(|response| self.resolve(response))
    }

    /// A parameter's text against its schema: numbers are written as text there.
    fn check_text(&self, schema: Option<&Value>, text: &str) -> Result<(), String> {
        let schema = schema.ok_or("is not described")?;
        let value = match schema["type"].as_str() {
            Some("integer" | "number") => serde_json::from_str(text).map_err(|_| format!("{text:?} is no number"))?,
            _ => json!(text),
        };
        self.check(schema, &value)
    }

    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let whole = json!({"allOf": [schema], "components": self.document["components"]});
        let validator = jsonschema::options()
            .with_draft(Draft::Draft7)
            .should_validate_formats(true)
            .build(&whole)
            .map_err(|error| format!("the description cannot be used: {error}"))?;
        let wrong: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{} at {:?}", error, error.instance_path().as_str()))
            .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    }
}

/// The values of a template's parameters in `path`, decoded; `None` where it does not fit.
fn matches(template: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let (expected, given): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    if expected.len() != given.len() {
        return None;
    }
    let mut values = Vec::new();
    for (expected, given) in expected.into_iter().zip(given) {
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !given.is_empty() => {
                values.push((name, percent_decode_str(given).decode_utf8().ok()?.into_owned()))
            }
            Some(_) => return None,
            None if expected == given => {}
            None => return None,
        }
    }
    Some(values)
}

/// OpenAPI 3.0's `nullable: true` as JSON Schema has it: also of type `null`, and `null` among the `enum`.
fn translate(node: Value) -> Value {
    match node {
        Value::Array(items) => items.into_iter().map(translate).collect(),
        Value::Object(fields) => {
            let mut fields: Map<String, Value> =
                fields.into_iter().map(|(key, value)| (key, translate(value))).collect();
            // GitHub's slip: the account of an installation cannot be both, and its own example is one of them.
            if fields
                .get("allOf")
                .and_then(Value::as_array)
                .is_some_and(|all| all.iter().map(|one| &one["title"]).eq(["Simple User", "Enterprise"]))
                && let Some(both) = fields.remove("allOf")
            {
                fields.insert("anyOf".into(), both);
            }
            if fields.get("nullable") != Some(&Value::Bool(true)) {
                return Value::Object(fields);
            }
            fields.remove("nullable");
            if let Some(Value::Array(words)) = fields.get_mut("enum") {
                words.push(Value::Null);
            }
            match fields.get_mut("type") {
                Some(kind) => {
                    *kind = json!([*kind, "null"]);
                    Value::Object(fields)
                }
                None => json!({"anyOf": [fields, {"type": "null"}]}),
            }
        }
        other => other,
    }
}
