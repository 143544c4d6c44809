//! REST API, metrics, the plain table.
