//! Text to a validated, immutable snapshot; every error carries its place.
