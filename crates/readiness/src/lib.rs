//! /livez and a deep /health with named, timed checks, for the services behind a balancer.
