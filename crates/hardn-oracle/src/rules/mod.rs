//! Rules are data: YAML files compiled into one index per language.

mod index;
mod load;
mod path;
mod samples;
mod schema;

pub(crate) use index::{Hit, Index};
pub use load::{Rule, RuleInfo, RuleSet};
pub(crate) use path::glob;
pub use samples::{SampleFailure, SampleReport};
pub(crate) use schema::{
    Argument, AttributeModel, Body, CallModel, Condition, Guard, Handler, Holds, Literal,
    MemoryCheck, MethodModel, Operation, Pattern, ResultModel, SettingOperator, Shape, Sink,
    Source,
};
