//! `./bench`: the figures that Refloat is held to, with their anchors on the same machine in the same run.
//!
//! ```text
//! refloat-bench            all of it
//! refloat-bench anchors    only what others do
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a measurement")]

mod compose;
mod raw;
mod refloat;

use std::time::Duration;

use refloat_e2e::figure::Figures;

fn main() {
    let mut figures = Figures::default();
    if std::env::args().nth(1).as_deref() != Some("anchors") {
        refloat::measure(&mut figures);
    }
    raw::measure(&mut figures);
    compose::measure(&mut figures);
    println!("\n{}", figures.table());
    println!("{}", figures.json());
}

fn step(what: &str) {
    eprintln!("· {what}");
}

/// The value that 99 of 100 stay within, as far as so few of them can say.
fn high(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values.get(values.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}
