//! What sampled answers say about a model, and the page that shows it.
//!
//! Sampling and grading happen elsewhere; this crate takes the judged samples as plain records.
//! - [`summarise`]: pass@1 with its standard error, pass@16, cons@16, lengths and behaviours, overall and by family.
//! - [`pass_at_k`], [`consensus`], [`bootstrap_interval`], [`paired_difference`]: the estimators by themselves.
//! - [`render_report`]: `report.html` in one self-contained file; [`render_curves_svg`]: curves as a picture.

mod compare;
mod estimators;
mod map;
mod preference;
mod record;
mod report;
mod sample;
pub mod stages;
mod stats;
mod summary;
mod table;

pub use compare::{PairedDifference, paired_difference};
pub use estimators::{consensus, pass_at_k};
pub use map::NeedleMap;
pub use preference::{RewardSummary, ScoredLabel, ScoredPair, Share, summarise_labels, summarise_pairs};
pub use record::{ProblemScore, SampleRecord, Verdict, problem_scores};
pub use report::{Curve, ReportInput, SampleEntry, SampleGroup, render_curves_svg, render_report};
pub use sample::{EvalError, EvalSettings, Evaluated, evaluate};
pub use stats::{bootstrap_interval, mean, standard_error};
pub use summary::{EvalSummary, Measures, summarise};
pub use table::{Cell, Table};
