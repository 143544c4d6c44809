//! Real servers and clients on loopback, for black-box tests.
