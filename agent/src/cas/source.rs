//! placeholder
/// x
#[derive(Debug)]
pub struct TreeSource;
