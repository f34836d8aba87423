//! The console as a person uses it, in a real browser, and as somebody who attacks it.

#![expect(clippy::disallowed_methods, reason = "tests have clients of their own")]

mod attacks;
mod desk;
mod first_hour;
mod keys;
mod pages;
mod scene;
