//! The `hardn` command.

fn main() {}
