//! Makes a world and writes it: `cargo run --release -p hardn-lab --example world -- OUT [SEED] [DOCUMENTS] [IDIOMS]`.
#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::{env, error::Error, path::Path, time::Instant};

use hardn_lab::{WorldOptions, card, generate};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let out = args.get(1).ok_or("where to? give a folder")?;
    let mut options = WorldOptions::default();
    if let Some(seed) = args.get(2) {
        options.seed = seed.parse()?;
    }
    if let Some(documents) = args.get(3) {
        options.n_pretrain_documents = documents.parse()?;
    }
    options.idioms = args.get(4).map(Into::into);
    let start = Instant::now();
    let world = generate(&options)?;
    let seconds = start.elapsed().as_secs_f64();
    world.write(Path::new(out))?;
    println!("{}\nmade in {seconds:.1} s", card(&world.manifest, &[]));
    Ok(())
}
