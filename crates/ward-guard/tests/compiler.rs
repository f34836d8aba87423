//! The compiler refuses each mistake, and accepts the same code without it.

/// `ui/` has one mistake in each file, with the expected message beside it. `ui/correct.rs` has none of them.
#[test]
fn the_compiler_refuses_forgotten_locks_and_authorizations() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/forgotten_*.rs");
    cases.compile_fail("tests/ui/wrong_*.rs");
    cases.pass("tests/ui/correct.rs");
}
