//! `hardn data`: making what is trained on.

use crate::{args::DataCommand, failure::Outcome, own_answers};

pub(crate) fn run(command: DataCommand, quiet: bool) -> Outcome {
    match command {
        DataCommand::Utility(args) => own_answers::run(&args, quiet),
    }
}
