//! `refloat`, the companion on the laptop and in CI.

fn main() {}
