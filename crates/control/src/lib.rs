//! Where the I/O rooms meet: live state, commands, events, metrics and decisions.
