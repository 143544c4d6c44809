//! Black-box tests: the built binary, asked and looked at as a user would.

mod check;
mod command;
mod commands;
mod explain;
mod running;
