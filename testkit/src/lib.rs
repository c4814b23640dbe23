//! Fakes, a throw-away authority and a harness for real binaries. Never shipped.
