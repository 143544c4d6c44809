//! Scenarios of the publisher.
