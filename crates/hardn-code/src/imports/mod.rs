//! Imports, includes and requires: finding, completing, dropping and checking them.

mod block;
mod complete;
mod known;
mod packages;
mod read;
mod remove;
mod top;
mod unused;

mod c;
mod go;
mod java;
mod javascript;
mod python;
mod ruby;

pub use block::{import_block, import_place, open_block};
pub use complete::complete_imports;
pub use known::{KnownPackages, UnknownPackage, unknown_packages};
pub use packages::{Package, packages};
pub use read::{Import, ImportKind, imports};
pub use remove::without;
pub use unused::unused_imports;
