//! Embedded security analyser: code in, findings out; rules are data.
//!
//! A grammar's tree is lowered to one small common form; two analyses run over it: `flow` (taint, constants, patterns)
//! and, for C and C++, `memory` (sizes, ranges, null and freed states). Rules say what to look for.

mod card;
mod engine;
mod engines;
mod error;
mod flow;
mod head;
mod ir;
mod lower;
mod memory;
mod output;
mod position;
mod report;
mod rules;
mod scan;
mod walk;

pub use card::{Agreement, CorpusInfo, LanguageScore, OracleCard, PairScore, Score, oracle_card};
pub use engine::{ENGINE, Mode, Oracle};
pub use engines::{
    AgreementCounts, Borrowed, CodeqlBuild, CodeqlSettings, Combine, ENGINES, Engine,
    EngineAgreement, EngineRun, EngineSettings, EngineTool, External, Panel, SarifFile, combine,
    confirms, engine_agreement, external, write_engine_failures, write_sarif_runs,
};
pub use error::{OracleError, Result};

pub use output::{Colours, write_jsonl, write_sarif, write_text};
pub use rules::{
    Coverage, CoverageCell, CoverageList, CoverageRow, ModelReport, Rule, RuleDetails, RuleInfo,
    RuleSet, Sample, SampleFailure, SampleReport, new_rule,
};
pub use scan::{
    Baseline, FileResult, ScanCache, ScanFilter, ScanOptions, ScanSummary, ScanWarning, Suppressed,
    apply_suppressions, fingerprints, scan_paths, scan_text, today,
};
