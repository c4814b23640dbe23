//! The real programs over real Docker: what `tests/` asserts, `refloat-demo` shows and `refloat-bench` measures.

pub mod answer;
pub mod figure;
pub mod held_upload;
pub mod scene;
