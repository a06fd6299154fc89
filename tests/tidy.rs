//! House rules, as a test.

#[test]
fn there_is_a_house() {}
