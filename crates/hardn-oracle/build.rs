//! The embedded rules are read at build time: build again when one changes.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../rules");
}
