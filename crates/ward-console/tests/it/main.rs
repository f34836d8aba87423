//! The console in a real browser, as a person uses it, and over plain HTTP, as an attacker uses it.

#![expect(clippy::disallowed_methods, reason = "tests have clients of their own")]
#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

mod attacks;
mod desk;
mod first_hour;
mod keys;
mod pages;
mod scene;
mod work;
