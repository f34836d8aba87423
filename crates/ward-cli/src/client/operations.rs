//! The operations of the API as the command line offers them. They are read from the built-in document, so a new
//! operation needs no line here.

use std::sync::LazyLock;

use reqwest::Method;
use serde_json::Value;

/// Every operation, in the order of the document.
pub static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(ward::contract::built_in()).unwrap_or_default();
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten().filter(|(method, _)| *method != "parameters");
        methods.filter_map(|(method, body)| Operation::read(&document, path, item, method, body))
    });
    operations.collect()
});

/// One operation with everything that can be given to it.
#[derive(Debug)]
pub struct Operation {
    /// The `operationId`, which is the name on the command line.
    pub name: String,
    pub method: Method,
    pub path: String,
    pub summary: String,
    /// The long description, in Markdown. Empty if there is none.
    pub details: String,
    /// The permission that the caller needs, if it is one.
    pub permission: Option<String>,
    /// Path parameters, then query parameters, then fields of the body.
    pub fields: Vec<Field>,
    /// The form of the body, if the operation takes one.
    pub body: Option<BodyForm>,
    /// Whether the operation takes an `Idempotency-Key`.
    pub idempotent: bool,
    /// Whether the operation ignores credentials, so that none is sent.
    pub anonymous: bool,
    /// The way to the next page, if the answer is a list in pages.
    pub paging: Option<Paging>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// An object, whose fields can be given one by one.
    Object,
    /// Another value, which only a file can give.
    Whole,
}

/// The query parameter that leads to the next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    Token,
    Offset,
}

impl Paging {
    /// The name of the query parameter.
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Token => "continuation_token",
            Self::Offset => "offset",
        }
    }
}

/// One value that can be given by `NAME=VALUE`.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    /// The name with the sign after it, as completions offer it.
    pub spelled: String,
    pub place: Place,
    pub kind: Kind,
    pub required: bool,
    /// Whether the value must not be shown, not even in the list of processes.
    pub secret: bool,
    pub about: String,
}

/// The part of a request that a field belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Body,
}

/// The type of a field, as far as the text of `NAME=VALUE` determines a value of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
    /// A list of texts, numbers or booleans. Each `NAME=VALUE` adds one item.
    List(Box<Self>),
    /// An object, or a value of several types. Only `NAME:=JSON` gives it.
    Json,
}

impl Kind {
    /// The type in words, for help and errors.
    pub fn words(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Integer => "integer".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::List(item) => format!("list of {}", item.words()),
            Self::Json => "JSON".to_owned(),
        }
    }
}

impl Operation {
    fn read(document: &Value, path: &str, item: &Value, method: &str, body: &Value) -> Option<Self> {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let shared = item["parameters"].as_array().into_iter().flatten();
        let own = body["parameters"].as_array().into_iter().flatten();
        let mut fields: Vec<Field> =
            shared.chain(own).filter_map(|parameter| Field::of_parameter(document, parameter)).collect();
        fields.sort_by_key(|field| field.place == Place::Query);
        let sent = &body["requestBody"]["content"]["application/json"]["schema"];
        let schema = resolved(document, sent);
        let form = (!sent.is_null()).then(|| match schema["properties"].as_object() {
            Some(_) => BodyForm::Object,
            None => BodyForm::Whole,
        });
        fields.extend(Field::of_body(document, schema));
        let queries = |name: &str| fields.iter().any(|it| it.place == Place::Query && it.name == name);
        let paging = match (queries("continuation_token"), queries("offset")) {
            (true, _) => Some(Paging::Token),
            (false, true) => Some(Paging::Offset),
            (false, false) => None,
        };
        Some(Self {
            name: body["operationId"].as_str()?.to_owned(),
            method: Method::from_bytes(method.to_ascii_uppercase().as_bytes()).ok()?,
            path: path.to_owned(),
            summary: text("summary"),
            details: match text("x-details") {
                details if details.is_empty() => text("description"),
                details => details,
            },
            permission: body["x-permission"].as_str().map(str::to_owned),
            body: form,
            idempotent: body["x-idempotency"].as_bool().unwrap_or_default(),
            anonymous: body["security"].as_array().is_some_and(Vec::is_empty),
            paging,
            fields,
        })
    }

    pub fn named(name: &str) -> Option<&'static Self> {
        OPERATIONS.iter().find(|operation| operation.name == name)
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Field {
    fn of_parameter(document: &Value, parameter: &Value) -> Option<Self> {
        let place = match parameter["in"].as_str()? {
            "path" => Place::Path,
            "query" => Place::Query,
            // `Idempotency-Key`, which has a flag of its own.
            _ => return None,
        };
        let schema = &parameter["schema"];
        let about = parameter["description"].as_str().or_else(|| schema["description"].as_str());
        let (name, kind) = (parameter["name"].as_str()?.to_owned(), kind(document, schema));
        Some(Self {
            spelled: spelled(&name, &kind),
            name,
            place,
            kind,
            required: place == Place::Path || parameter["required"].as_bool().unwrap_or_default(),
            secret: is_secret(document, schema),
            about: first_paragraph(about),
        })
    }

    fn of_body(document: &Value, schema: &Value) -> Vec<Self> {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties
            .map(|(name, property)| {
                let about = property["description"].as_str();
                let kind = kind(document, property);
                Self {
                    name: name.clone(),
                    spelled: spelled(name, &kind),
                    place: Place::Body,
                    kind,
                    required: required.contains(&name.as_str()),
                    secret: is_secret(document, property),
                    about: first_paragraph(
                        about.or_else(|| resolved(document, property)["description"].as_str()),
                    ),
                }
            })
            .collect()
    }
}

fn spelled(name: &str, kind: &Kind) -> String {
    format!("{name}{}", if *kind == Kind::Json { ":=" } else { "=" })
}

/// The schema that a reference names, or the schema itself.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let target = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    target.and_then(|pointer| document.pointer(pointer)).map_or(schema, |target| resolved(document, target))
}

/// The alternatives of a schema, without null.
fn alternatives<'d>(document: &'d Value, schema: &'d Value) -> Vec<&'d Value> {
    let schema = resolved(document, schema);
    let arms = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
    let Some(arms) = arms else { return vec![schema] };
    let arms = arms.iter().flat_map(|arm| alternatives(document, arm));
    arms.filter(|arm| arm["type"] != "null").collect()
}

fn kind(document: &Value, schema: &Value) -> Kind {
    let [schema] = alternatives(document, schema)[..] else { return Kind::Json };
    let name = match &schema["type"] {
        Value::Array(names) => match names.iter().filter(|name| *name != "null").collect::<Vec<_>>()[..] {
            [name] => name.as_str(),
            _ => None,
        },
        name => name.as_str(),
    };
    match name {
        Some("string") => Kind::Text,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        Some("array") => match kind(document, &schema["items"]) {
            Kind::List(_) | Kind::Json => Kind::Json,
            scalar => Kind::List(Box::new(scalar)),
        },
        _ => Kind::Json,
    }
}

fn is_secret(document: &Value, schema: &Value) -> bool {
    schema["x-secret"] == true || alternatives(document, schema).iter().any(|arm| arm["x-secret"] == true)
}

fn first_paragraph(text: Option<&str>) -> String {
    text.unwrap_or_default().split("\n\n").next().unwrap_or_default().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_of_the_document_is_there_under_a_stable_and_unique_name() {
        let contract = ward::contract::load(&[]).unwrap();
        let served: Vec<&str> = contract.operations().map(|operation| operation.id.as_str()).collect();
        let offered: Vec<&str> = OPERATIONS.iter().map(|operation| operation.name.as_str()).collect();
        assert_eq!(offered, served);
        assert_eq!(offered.iter().collect::<BTreeSet<_>>().len(), offered.len());
        for name in offered {
            let kebab = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            assert!(kebab && name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        }
    }

    #[test]
    fn a_name_means_one_value_of_a_request() {
        for operation in OPERATIONS.iter() {
            let names: BTreeSet<&str> = operation.fields.iter().map(|field| field.name.as_str()).collect();
            assert_eq!(names.len(), operation.fields.len(), "{} has a name twice", operation.name);
            for name in names {
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
            }
            for placeholder in operation.path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let field = operation.field(placeholder.trim_end_matches('}')).unwrap();
                assert_eq!((field.place, field.required), (Place::Path, true), "{}", operation.name);
            }
            assert!(!operation.summary.is_empty(), "{} has no summary", operation.name);
        }
    }

    #[test]
    fn types_come_from_the_schemas() {
        let kind = |operation: &str, field: &str| {
            Operation::named(operation).unwrap().field(field).unwrap().kind.clone()
        };
        assert_eq!(kind("list-workspaces", "limit"), Kind::Integer);
        assert_eq!(kind("list-api-keys", "mine_only"), Kind::Boolean);
        assert_eq!(kind("list-integrations", "enabled"), Kind::Boolean);
        assert_eq!(kind("create-api-key", "name"), Kind::Text);
        assert_eq!(kind("create-api-key", "networks"), Kind::List(Box::new(Kind::Text)));
        assert_eq!(kind("report-call", "duration_seconds"), Kind::Number);
        assert_eq!(kind("report-call", "turns"), Kind::Json);
        assert_eq!(kind("create-trust-rule", "conditions"), Kind::Json);
        assert_eq!(Operation::named("report-leaked-keys").unwrap().body, Some(BodyForm::Whole));
        for secret in [("set-twilio", "auth_token"), ("accept-invitation", "invitation")] {
            assert!(Operation::named(secret.0).unwrap().field(secret.1).unwrap().secret, "{secret:?}");
        }
    }
}
