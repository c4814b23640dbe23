//! The long suites: `./test --deep`.
