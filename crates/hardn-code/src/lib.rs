//! Languages: parsing, validity, cutting completions, diffs and token masks.

mod around;
mod brace_blocks;
mod changes;
mod cut;
mod error;
mod functions;
mod imports;
mod language;
mod masks;
mod ndiff;
mod pairs;
mod parting;
mod python_lines;
mod rows;
mod scenarios;
mod sequence_matcher;
mod validity;

pub use around::{Piece, changed_pieces};
pub use changes::{char_spans, line_spans};
pub use cut::cut;
pub use error::{CodeError, RowError};
pub use functions::{Function, functions};
pub use imports::{
    Import, ImportKind, KnownPackages, Package, UnknownPackage, complete_imports, import_block,
    import_place, imports, open_block, packages, unknown_packages, unused_imports, without,
};
pub use language::parse;
pub use masks::{DropReason, MaskKind, PairMasks, TokenText, drop_reason, mask_pair};
pub use ndiff::{NdiffMarks, ndiff};
pub use pairs::{PairColumns, read_pairs, read_pairs_strict, read_pairs_with};
pub use parting::parting_tokens;
pub use rows::{PlacedRow, read_rows};
pub use scenarios::{VALIDATION_SCENARIOS, read_scenarios};
pub use sequence_matcher::{Block, OpTag, Opcode, SequenceMatcher};
pub use validity::{Validity, checker_version, is_checked, validity, validity_many};
