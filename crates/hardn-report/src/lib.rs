//! Run folders to tables, figures and HTML
