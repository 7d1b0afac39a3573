//! Builds the lab again when a theme is added: the compiler only watches the files it has already embedded.

fn main() {
    println!("cargo::rerun-if-changed=themes");
}
