//! The program as a person or a script sees it: standard output, standard error and exit code, against a fake agent.

mod fake;
mod pairing;
mod program;
mod queries;
mod refusals;
mod stories;
mod uploads;
