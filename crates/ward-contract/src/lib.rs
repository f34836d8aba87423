//! The document of an API as the single source of its rules: it is read strictly, and requests are
//! validated against it.
//!
//! [`Contract`] holds the operations of an `OpenAPI` document. [`validate`] checks bodies and queries
//! against them, and reports all problems of a request at once. The product supplies its document, and the
//! rules that a schema cannot express.

mod document;
pub mod validate;

pub use document::{
    Access, CallerKind, Contract, ContractError, Node, Operation, Parameter, Rule, RuleProblem,
};
pub use validate::{Json, Loc, Present, Problem, Problems};
