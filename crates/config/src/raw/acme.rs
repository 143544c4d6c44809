//! Automatic certificates as written.

use super::words;
use crate::defaults;
use crate::read::{or, required, section};
use crate::values::{Many, Text};

section! {
    /// Certificates that an authority gives and renews by itself (ACME, RFC 8555). Whoever configures it agrees to the authority's terms of service.
    RawAcme "acme" {
        /// Whom the authority tells of trouble: one address or several.
        "email" email: Many<Text> = or("none"),
        /// URL of the authority's directory.
        "directory" directory: Text = or(defaults::ACME_DIRECTORY),
        /// PEM file of the authorities that are believed when the directory is spoken to.
        "ca" ca: Text = or("those of this system"),
        /// The account that this one belongs to, where the authority asks for that.
        "external_account" external_account: RawExternalAccount = or("none"),
        /// Names to get a certificate for, each one of its own.
        "domains" domains: Many<Text> = or("the hosts of the listener's routes, as far as they are names that no file of `certificates` bears"),
        /// How the authority finds out that a name is ours: it asks an HTTP listener on port 80, or a TLS listener on port 443.
        "challenge" challenge: ChallengeWord = or("http-01 if some HTTP listener is without TLS, else tls-alpn-01"),
        /// Folder of accounts, keys and certificates. Instances that share it share those.
        "store" store: Text = or(defaults::ACME_STORE),
    } later []
}

section! {
    /// An account with the authority outside of ACME, to which the ACME account is bound.
    RawExternalAccount "external account" {
        /// Its key identifier, as the authority gave it.
        "id" id: Text = required(),
        /// File with its HMAC key, base64url as the authority gave it.
        "key_file" key_file: Text = required(),
    } later []
}

words! {
    /// How an authority finds out whose a name is.
    ChallengeWord "a challenge" ["http-01", "tls-alpn-01"]
}
