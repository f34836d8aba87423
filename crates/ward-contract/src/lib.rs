//! An API's document as the one place of its rules: read strictly, and used to judge requests.
//!
//! [`Contract`] holds the operations of an `OpenAPI` document. [`validate`] judges bodies and queries by them, and answers
//! every problem of a request at once. The product hands in its document and the rules that a schema cannot say.

mod document;
pub mod validate;

pub use document::{Access, Contract, ContractError, Node, Operation, Parameter, Rule, RuleProblem};
pub use validate::{Json, Loc, Present, Problem, Problems};
