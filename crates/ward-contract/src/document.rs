//! The served document, read once at start into the form that routes and validation need.
//!
//! The document is the only source of an operation's path, permission and input rules, so reading is
//! strict. It refuses a keyword that [`crate::validate`] does not know, a rule without a schema, and an
//! operation that declares neither a permission nor anonymous access. Such a fault stops the first test
//! that starts a server. Nothing is silently left unchecked.

mod schema;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value};

pub use schema::Node;
pub(crate) use schema::{Bounds, DayMeans, Extent, Kind, Lengths, Moment, Property, Range, Text};

use crate::validate::Loc;

/// The only header parameter that the document may declare.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// A rule on one value that a schema cannot express (an E.164 number, a known role). It gets a value that
/// passed its schema, trimmed and with defaults, and returns all problems with it.
pub type Rule = fn(&Value) -> Vec<RuleProblem>;

/// A problem that a [`Rule`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProblem {
    /// The location, relative to the rule's value; empty for that value itself.
    pub at: Vec<Loc>,
    /// The problem, as the end of a sentence that starts with "Value error, ". It never repeats the value.
    pub message: String,
}

impl RuleProblem {
    /// A problem with the rule's value itself.
    pub fn here(message: impl Into<String>) -> Self {
        Self { at: Vec::new(), message: message.into() }
    }
}

/// The document contains a declaration that cannot be enforced. This is always a fault of the build, never
/// of an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document, {at}: {what}")]
pub struct ContractError {
    /// A JSON pointer or an operation id.
    pub at: String,
    /// The fault at that place, as the end of the error's sentence.
    pub what: String,
}

impl ContractError {
    /// An error at the place `at` of the document.
    pub fn new(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at: at.into(), what: what.into() }
    }
}

/// The callers that an operation admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// All callers; a presented credential is ignored.
    Anonymous,
    /// Callers with a valid credential, an API key or a token.
    Key {
        /// The permission at the target of the path; `None` if every valid key may call the operation.
        permission: Option<String>,
        /// The role that the caller needs in addition.
        role: Option<String>,
        /// The kind of caller that alone may call the operation.
        caller: Option<CallerKind>,
        /// Whether a request without a credential has its own meaning (a claim).
        or_anonymous: bool,
    },
}

/// The kind of caller that an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// A user, by a key or a token.
    User,
    /// An API key, of a user or a service.
    ApiKey,
    /// A credential that is no narrower than its bearer's own rights.
    Whole,
}

/// A query parameter of an operation, with the schema that requests must satisfy.
#[derive(Debug)]
pub struct Parameter {
    /// The name in the query string.
    pub name: String,
    /// Whether a request must have it.
    pub required: bool,
    /// The compiled schema of its value.
    pub node: Node,
}

/// One operation of the document in the form that routing and validation use.
#[derive(Debug)]
pub struct Operation {
    /// The `operationId` in the document, which is unique.
    pub id: String,
    /// The HTTP method of its requests.
    pub method: Method,
    /// The path template, for example `/v1/things/{thing_id}`. The router has the same syntax as the
    /// document.
    pub path: String,
    /// The callers that the operation admits.
    pub access: Access,
    /// Whether it accepts an `Idempotency-Key`.
    pub idempotent: bool,
    /// The longest value of each path parameter, in characters. A longer value is treated like an unknown
    /// name.
    pub path_lengths: Vec<(String, usize)>,
    /// Whether the operation comes from another document, so that this server must not change its
    /// behaviour.
    pub given: bool,
    /// The query parameters, in declared order.
    pub query: Vec<Parameter>,
    /// The schema of the body; `None` if it has none, and any sent body is ignored.
    pub body: Option<Node>,
    /// Whether absent fields of the body stay absent, for `PATCH` and for `x-sparse`, where an absent field
    /// means no change.
    pub sparse: bool,
    /// The statuses of its declared responses.
    pub statuses: Vec<u16>,
}

impl Operation {
    /// Whether the path has the form of the template.
    fn fits(&self, path: &str) -> bool {
        let given: Vec<&str> = path.split('/').collect();
        self.path.split('/').count() == given.len()
            && self.path.split('/').zip(given).all(|(part, given)| match placeholder(part) {
                Some(_) => !given.is_empty(),
                None => part == given,
            })
    }

    /// For each segment of the template, whether it is literal.
    fn literals(&self) -> Vec<bool> {
        self.path.split('/').map(|part| placeholder(part).is_none()).collect()
    }

    /// The segment of a path, which has the form of the template, in the place of this parameter.
    pub fn path_parameter<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        let mut segments = self.path.split('/').zip(path.split('/'));
        segments.find_map(|(part, given)| (placeholder(part) == Some(name)).then_some(given))
    }
}

/// The served document and its operations.
#[derive(Debug)]
pub struct Contract {
    document: Bytes,
    operations: Vec<Arc<Operation>>,
}

impl Contract {
    /// Reads `document` with the product's value rules. `text` is the same document in its served form.
    /// `given` lists the ids of the operations that come from another document.
    ///
    /// A rule is attached to a schema by JSON pointer (RFC 6901, as a URI fragment), for example
    /// `#/components/schemas/Name`. On a shared schema it applies to every reference.
    ///
    /// # Errors
    ///
    /// A pointer leads to no request schema, or an operation or a request schema contains something that
    /// would not be enforced.
    pub fn read(
        document: &Value,
        text: Bytes,
        given: &[String],
        rules: &[(&str, Rule)],
    ) -> Result<Self, ContractError> {
        Ok(Self { document: text, operations: read(document, given, rules)? })
    }

    /// The same contract with the server under a path prefix in its document.
    ///
    /// # Errors
    ///
    /// The document cannot be serialized, which is a fault of the build.
    pub fn under(mut self, prefix: &str) -> Result<Self, ContractError> {
        if !prefix.is_empty() {
            let unwritable = |error: serde_json::Error| ContractError::new("#", error.to_string());
            let mut document: Value = serde_json::from_slice(&self.document).map_err(unwritable)?;
            document["servers"] = serde_json::json!([{ "url": prefix }]);
            self.document = serde_json::to_vec_pretty(&document).map_err(unwritable)?.into();
        }
        Ok(self)
    }

    /// The operations of another document, for tests of features that no real operation uses yet.
    #[cfg(test)]
    pub(crate) fn operations_of(
        document: &Value,
        rules: &[(&str, Rule)],
    ) -> Result<Vec<Operation>, ContractError> {
        Ok(read(document, &[], rules)?.into_iter().filter_map(Arc::into_inner).collect())
    }

    /// The JSON text of the document as the product serves it.
    pub fn document(&self) -> &Bytes {
        &self.document
    }

    /// Every operation, in the order of the document.
    pub fn operations(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.operations.iter()
    }

    /// The operation with this `operationId`, if the document declares one.
    pub fn operation(&self, id: &str) -> Option<&Arc<Operation>> {
        self.operations.iter().find(|operation| operation.id == id)
    }

    /// The operation that serves a request with this method and path. Of several templates that fit, the one with earlier
    /// literal segments serves it, as in the router. HEAD is served by GET, except for the operations of another document.
    pub fn operation_at(&self, method: &Method, path: &str) -> Option<&Arc<Operation>> {
        let fitting = self.operations.iter().filter(|operation| operation.fits(path));
        let closest = fitting.clone().map(|operation| operation.literals()).max()?;
        let mut served = fitting.filter(|operation| operation.literals() == closest);
        served.find(|operation| {
            operation.method == *method
                || (*method == Method::HEAD && operation.method == Method::GET && !operation.given)
        })
    }
}

/// Compiles all operations of `document`, and fails at the first fault.
fn read(
    document: &Value,
    given: &[String],
    rules: &[(&str, Rule)],
) -> Result<Vec<Arc<Operation>>, ContractError> {
    let mut compiler = schema::Compiler::new(document, rules);
    let mut operations: Vec<Arc<Operation>> = Vec::new();
    for (path, item) in fields(document.get("paths"), "#/paths")? {
        let at = format!("#/paths/{}", path.replace('~', "~0").replace('/', "~1"));
        for (method, body) in fields(Some(item), &at)? {
            if method == "parameters" {
                continue;
            }
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
                .map_err(|_| ContractError::new(&at, format!("unknown method {method}")))?;
            let mut operation = operation(&mut compiler, document, path, item, method, body, &at)?;
            operation.given = given.contains(&operation.id);
            if operations.iter().any(|other| other.id == operation.id) {
                return Err(ContractError::new(&operation.id, "declared twice"));
            }
            operations.push(Arc::new(operation));
        }
    }
    compiler.finish()?;
    Ok(operations)
}

fn operation(
    compiler: &mut schema::Compiler<'_>,
    document: &Value,
    path: &str,
    item: &Value,
    method: Method,
    body: &Value,
    at: &str,
) -> Result<Operation, ContractError> {
    let at = format!("{at}/{}", method.as_str().to_ascii_lowercase());
    let id = body
        .get("operationId")
        .and_then(Value::as_str)
        .ok_or_else(|| ContractError::new(&at, "no operationId"))?
        .to_owned();
    let mut query = Vec::new();
    let mut in_path = Vec::new();
    let own = body.get("parameters").and_then(Value::as_array).into_iter().flatten().enumerate();
    for (index, parameter) in own {
        let at = format!("{at}/parameters/{index}");
        let parameter = resolved(document, parameter, &at)?;
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        match parameter.get("in").and_then(Value::as_str) {
            Some("path") => in_path.push(parameter),
            Some("query") => query.push(Parameter {
                name: name.to_owned(),
                required: flag(parameter, "required"),
                node: query_node(compiler, parameter, &at)?,
            }),
            Some("header") if name == IDEMPOTENCY_KEY && flag(body, "x-idempotency") => {}
            _ => return Err(ContractError::new(at, "a parameter that Ward would not enforce")),
        }
    }
    let shared = item.get("parameters").and_then(Value::as_array).into_iter().flatten();
    for parameter in shared {
        let parameter = resolved(document, parameter, at.as_str())?;
        if parameter.get("in").and_then(Value::as_str) != Some("path") {
            return Err(ContractError::new(at, "a path shares only path parameters"));
        }
        in_path.push(parameter);
    }
    let path_lengths = path_lengths(&in_path);
    let in_path: Vec<&str> = in_path.iter().filter_map(|parameter| parameter.get("name")?.as_str()).collect();
    for name in placeholders(path) {
        if !in_path.contains(&name) {
            return Err(ContractError::new(at, format!("{{{name}}} is not declared")));
        }
    }
    let statuses = fields(body.get("responses"), &format!("{at}/responses"))?
        .keys()
        .map(|status| {
            status.parse().map_err(|_| ContractError::new(&at, format!("response {status} is no status")))
        })
        .collect::<Result<_, _>>()?;
    Ok(Operation {
        access: access(document, body, &at)?,
        idempotent: flag(body, "x-idempotency"),
        given: false,
        sparse: method == Method::PATCH || flag(body, "x-sparse"),
        path_lengths,
        query,
        body: body_node(compiler, body, &at)?,
        statuses,
        id,
        method,
        path: path.to_owned(),
    })
}

/// A part of the document, or the target of its reference.
fn resolved<'d>(document: &'d Value, part: &'d Value, at: &str) -> Result<&'d Value, ContractError> {
    let Some(target) = part.get("$ref") else { return Ok(part) };
    let pointer = target.as_str().and_then(|target| target.strip_prefix('#'));
    pointer
        .and_then(|pointer| document.pointer(pointer))
        .ok_or_else(|| ContractError::new(at, format!("{target} is not in this document")))
}

/// The declared maximum lengths of path parameters.
fn path_lengths(parameters: &[&Value]) -> Vec<(String, usize)> {
    let length = |parameter: &&Value| {
        let most = usize::try_from(parameter["schema"]["maxLength"].as_u64()?).ok()?;
        Some((parameter["name"].as_str()?.to_owned(), most))
    };
    parameters.iter().filter_map(length).collect()
}

fn query_node(
    compiler: &mut schema::Compiler<'_>,
    parameter: &Value,
    at: &str,
) -> Result<Node, ContractError> {
    let at = format!("{at}/schema");
    let schema = parameter.get("schema").ok_or_else(|| ContractError::new(&at, "no schema"))?;
    let node = compiler.node(schema, &at)?;
    if matches!(node.kind, Kind::Array { .. } | Kind::Model { .. } | Kind::Dict { .. } | Kind::Any) {
        // A query string is flat text, and no convention says how it spells a list or an object.
        return Err(ContractError::new(at, "a query parameter must be a scalar"));
    }
    Ok(node)
}

fn body_node(
    compiler: &mut schema::Compiler<'_>,
    operation: &Value,
    at: &str,
) -> Result<Option<Node>, ContractError> {
    let Some(body) = operation.get("requestBody") else { return Ok(None) };
    let at = format!("{at}/requestBody");
    if !flag(body, "required") {
        return Err(ContractError::new(at, "a body must be required"));
    }
    let content = fields(body.get("content"), &at)?;
    let (Some(media), 1) = (content.get("application/json"), content.len()) else {
        return Err(ContractError::new(at, "a body must be application/json and nothing else"));
    };
    let at = format!("{at}/content/application~1json/schema");
    let schema = media.get("schema").ok_or_else(|| ContractError::new(&at, "no schema"))?;
    compiler.body(schema, &at).map(Some)
}

/// Reads `security` (`OpenAPI` 3.1, "Security Requirement Object") with Ward's extensions `x-permission`,
/// `x-role` and `x-caller`.
fn access(document: &Value, operation: &Value, at: &str) -> Result<Access, ContractError> {
    let alternatives = operation
        .get("security")
        .or_else(|| document.get("security"))
        .and_then(Value::as_array)
        .ok_or_else(|| ContractError::new(at, "no security"))?;
    let or_anonymous = alternatives.iter().any(|scheme| scheme.as_object().is_some_and(Map::is_empty));
    let permission = operation.get("x-permission");
    let role = operation.get("x-role").and_then(Value::as_str).map(str::to_owned);
    let caller = match operation.get("x-caller").map(Value::as_str) {
        None => None,
        Some(Some("user")) => Some(CallerKind::User),
        Some(Some("api_key")) => Some(CallerKind::ApiKey),
        Some(Some("whole")) => Some(CallerKind::Whole),
        Some(_) => return Err(ContractError::new(at, "an unknown x-caller")),
    };
    match (alternatives.is_empty(), permission) {
        (true, None) => Ok(Access::Anonymous),
        (true, Some(_)) => Err(ContractError::new(at, "anonymous, and with a permission")),
        (false, Some(Value::Null)) => Ok(Access::Key { permission: None, role, caller, or_anonymous }),
        (false, Some(Value::String(permission))) => {
            Ok(Access::Key { permission: Some(permission.clone()), role, caller, or_anonymous })
        }
        (false, _) => Err(ContractError::new(at, "says neither `security: []` nor its x-permission")),
    }
}

/// The names between braces in a path template.
fn placeholders(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(placeholder)
}

/// The name between the braces of a segment, if it has braces.
fn placeholder(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn fields<'d>(value: Option<&'d Value>, at: &str) -> Result<&'d Map<String, Value>, ContractError> {
    value.and_then(Value::as_object).ok_or_else(|| ContractError::new(at, "not an object"))
}

#[cfg(test)]
mod tests;
