//! `refloatd`, the agent.

fn main() {}
