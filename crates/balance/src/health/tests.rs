//! Scenarios of one server's health.

use super::*;
