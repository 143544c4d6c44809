//! Totals of the process before this one, by series: after an upgrade no total begins anew.
//!
//! Series are known by their text, name and labels, so that a version before or after this one, which may have other
//! families, is understood as far as the two agree.

use std::collections::BTreeMap;

use serde_json::Number;

/// Totals by series, as `/metrics` writes it: `evenkeel_picks_total{pool="site",server="a"}`.
pub type Totals = BTreeMap<String, Number>;

/// What is added to what this process has counted.
#[derive(Default)]
pub(crate) struct Carried {
    pub(crate) before: std::sync::Arc<Totals>,
    /// What `/metrics` shows while this process hands over.
    pub(crate) frozen: Option<String>,
}

/// The sum, whole where both are.
pub(crate) fn add(own: &Number, before: &Number) -> Number {
    if let (Some(own), Some(before)) = (own.as_u64(), before.as_u64()) {
        return own.saturating_add(before).into();
    }
    let sum = own.as_f64().unwrap_or(0.0) + before.as_f64().unwrap_or(0.0);
    Number::from_f64(sum).unwrap_or_else(|| own.clone())
}
