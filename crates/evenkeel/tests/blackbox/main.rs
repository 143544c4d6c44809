//! Black-box tests: the built binary, asked and looked at as a user would.

mod check;
mod command;
mod commands;
mod demo;
mod explain;
mod http_bodies;
mod http_chain;
mod http_headers;
mod http_interim;
mod http_messages;
mod http_refusals;
mod http_retries;
mod http_reuse;
mod http_routing;
mod http_setup;
mod http_smuggling;
mod life_admin;
mod life_death;
mod life_end;
mod life_health;
mod life_limits;
mod life_operator;
mod life_reload;
mod life_support;
mod running;
mod tcp_proxy;
