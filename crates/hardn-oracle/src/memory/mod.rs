//! placeholder
use crate::{engine::Mode, ir::Program, report::Report, rules::Index};
pub(crate) fn analyse<'p>(_p: &'p Program<'p>, _i: &'p Index, _m: Mode, _r: &mut Report) {}
