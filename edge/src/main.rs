//! `refloat-edge`, the data plane.

fn main() {}
