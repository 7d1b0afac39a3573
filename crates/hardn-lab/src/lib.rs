//! The lab: a small world of programs, fix pairs, scenarios and tasks, made from templates and a seed.
//!
//! A *theme* is one weakness, or one topic without any, in one language. A *family* is one operation of a theme in
//! one setting. Families, names and wordings are split into parts for pretraining, for fix pairs and for scenarios,
//! by rules that do not depend on the seed. The lab knows nothing of models and of oracles: labels come from the
//! template a program was made from, and tests are handed on for others to run.

mod card;
mod check;
mod cue;
mod draw;
mod error;
mod extra;
mod generate;
mod idioms;
mod instruct;
mod leak;
mod lex;
mod library;
mod manifest;
mod names;
mod rng;
mod split;
mod theme;
mod world;

pub use card::{CardSection, card};
pub use check::{Problem, check};
pub use cue::do_nothing;
pub use draw::{BodyKind, Cell, Drawn};
pub use error::{LabError, Result};
pub use generate::{generate, training_scenarios};
pub use idioms::IdiomFile;
pub use instruct::{FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, instruction_prompt};
pub use leak::{Leak, LeakRow};
pub use library::{LAB_VERSION, Library};
pub use manifest::{Manifest, ThemeRow};
pub use names::Names;
pub use rng::Rng;
pub use split::Part;
pub use theme::{Body, Operation, Setting, Slot, SlotValue, Style, Tests, Theme};
pub use world::{Document, DocumentKind, UtilityRow, World, WorldOptions};
