//! Black-box tests: the built binary, asked and looked at as a user would.

mod check;
mod command;
mod commands;
mod explain;
mod life_death;
mod life_end;
mod life_operator;
mod life_reload;
mod life_support;
mod running;
