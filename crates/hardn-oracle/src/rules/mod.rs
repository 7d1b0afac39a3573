//! Rules are data: YAML files compiled into one index per language.

mod coverage;
mod coverage_lists;
mod describe;
mod index;
mod load;
mod models;
mod path;
mod pattern;
mod samples;
mod schema;
mod template;

pub use coverage::{Coverage, CoverageCell, CoverageList, CoverageRow};
pub use describe::{RuleDetails, Sample};
pub(crate) use index::{Hit, Index};
pub use load::{Rule, RuleInfo, RuleSet};
pub use models::ModelReport;
pub(crate) use path::glob;
pub(crate) use pattern::Pattern;
pub use samples::{SampleFailure, SampleReport};
pub(crate) use schema::{
    Argument, AttributeModel, Body, CallModel, Condition, Guard, Handler, Holds, Literal,
    MemoryCheck, MethodModel, Operation, ResultModel, SettingOperator, Shape, Sink, Source,
};
pub use template::new_rule;
