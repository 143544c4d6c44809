//! Which server gets the next request, and may it serve: algorithms, health thresholds, drain, retry budget.
