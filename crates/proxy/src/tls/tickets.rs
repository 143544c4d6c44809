//! Tickets: what lets a client resume its session without a full handshake, on any worker.
//!
//! A ticket holds its session, encrypted under a key of its own: derived from one of the process's secrets, a random
//! salt, and the trust context of the listener that gave it. So it opens only where its client was verified by the same
//! rules, and a secret that has gone takes its tickets with it. Secrets are random, rotate, and are never on disk.
//!
//! Nobody verifies a client's certificate again when its session is resumed, and a resumed session gives new tickets. So
//! each ticket says until when what its client has shown holds, and opens no longer than that.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use config::{ListenerTls, TlsVersion};
use rustls::server::ProducesTickets;

use super::about;

/// How long a secret makes new tickets.
const ROTATE_AFTER: Duration = Duration::from_secs(6 * 3600);
/// Secrets that still open tickets, the newest included.
const SECRETS_MAX: usize = 3;
/// How long clients are told to keep a ticket, in seconds: less than any secret lives.
const LIFETIME_SECS: u32 = 12 * 3600;
const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// What tickets of this form are derived for: those of another form do not open.
const FORM: &[u8] = b"evenkeel ticket 2";
/// Bytes of a ticket that is looked at; with the certificates of a client it may be long.
const TICKET_BYTES_MAX: usize = 64 * 1024;

/// What keys of tickets are derived from.
#[derive(Clone)]
struct Secret {
    /// In the clear in each ticket, to find it again.
    name: [u8; NAME_BYTES],
    bytes: [u8; KEY_BYTES],
    /// When it makes no more tickets, on the clock of whoever rotates.
    due: Duration,
}

/// The secrets of a process, newest first.
pub(crate) struct Secrets(ArcSwap<Vec<Secret>>);

impl Secrets {
    /// With one new secret.
    pub(crate) fn new() -> Self {
        Self(ArcSwap::from_pointee(
            fresh(ROTATE_AFTER).into_iter().collect(),
        ))
    }

    /// All of them as text, newest first, for a process that goes on where this one ends.
    pub(crate) fn export(&self) -> Vec<String> {
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let known = self.0.load();
        let text = |secret: &Secret| hex(&secret.name) + &hex(&secret.bytes);
        known.iter().map(text).collect()
    }

    /// How long the newest has been in use.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        let known = self.0.load();
        let left = known.first().map(|secret| secret.due.saturating_sub(now));
        ROTATE_AFTER.saturating_sub(left.unwrap_or_default())
    }

    /// Goes on with those of another process, of which the newest has been in use for `age`; what is none of its texts is
    /// left out.
    pub(crate) fn import(&self, texts: &[String], age: Duration, now: Duration) {
        let due = now.saturating_add(ROTATE_AFTER.saturating_sub(age));
        let given: Vec<_> = texts
            .iter()
            .take(SECRETS_MAX)
            .filter_map(|text| parse(text, due))
            .collect();
        if !given.is_empty() {
            self.0.store(Arc::new(given));
        }
    }

    /// Brings a new secret in when the newest is old, and lets go of the oldest. To be called now and then.
    pub(crate) fn rotate(&self, now: Duration) {
        let known = self.0.load();
        if known.first().is_some_and(|secret| now < secret.due) {
            return;
        }
        // Without randomness there is no new one: the old ones serve on.
        let Some(secret) = fresh(now.saturating_add(ROTATE_AFTER)) else {
            return;
        };
        let kept = known.iter().take(SECRETS_MAX - 1).cloned();
        self.0
            .store(Arc::new(std::iter::once(secret).chain(kept).collect()));
    }
}

fn parse(text: &str, due: Duration) -> Option<Secret> {
    let mut bytes = [0; NAME_BYTES + KEY_BYTES];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let (name, rest) = bytes.split_first_chunk::<NAME_BYTES>()?;
    Some(Secret {
        name: *name,
        bytes: *rest.first_chunk::<KEY_BYTES>()?,
        due,
    })
}

fn fresh(due: Duration) -> Option<Secret> {
    let mut secret = Secret {
        name: [0; NAME_BYTES],
        bytes: [0; KEY_BYTES],
        due,
    };
    rand::fill(&mut secret.name).ok()?;
    rand::fill(&mut secret.bytes).ok()?;
    Some(secret)
}

/// Makes and opens the tickets of one trust context.
pub(super) struct Ticketer {
    secrets: Arc<Secrets>,
    context: Vec<u8>,
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").finish_non_exhaustive()
    }
}

impl Ticketer {
    /// For a listener of this name, as it is configured.
    pub(super) fn new(secrets: Arc<Secrets>, listener: &str, tls: &ListenerTls) -> Self {
        Self {
            secrets,
            context: context_of(listener, tls),
        }
    }
}

/// What has to be the same where a ticket is opened: the listener, and by which rules clients are verified there.
fn context_of(listener: &str, tls: &ListenerTls) -> Vec<u8> {
    let mut digest = Context::new(&SHA256);
    // Each part with its length, so that no two contexts run into the same bytes.
    let mut add = |part: &[u8]| {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(listener.as_bytes());
    add(match tls.min_version {
        TlsVersion::Tls12 => b"1.2",
        TlsVersion::Tls13 => b"1.3",
    });
    if let Some(client) = &tls.client {
        add(if client.required {
            b"required"
        } else {
            b"optional"
        });
        client.authorities.iter().for_each(|der| add(der));
    }
    digest.finish().as_ref().to_vec()
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let secrets = self.secrets.0.load();
        let secret = secrets.first()?;
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        let (key, nonce) = derive(secret, &salt, &self.context)?;
        let holds_until = about::holds_until().unwrap_or(u64::MAX);
        let mut sealed = [&holds_until.to_be_bytes(), plain].concat();
        key.seal_in_place_append_tag(nonce, Aad::from(secret.name), &mut sealed)
            .ok()?;
        Some([secret.name.as_slice(), &salt, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT_BYTES>()?;
        let secrets = self.secrets.0.load();
        let secret = secrets.iter().find(|secret| secret.name == *name)?;
        let (key, nonce) = derive(secret, salt, &self.context)?;
        let mut opened = sealed.to_vec();
        let length = key
            .open_in_place(nonce, Aad::from(*name), &mut opened)
            .ok()?
            .len();
        opened.truncate(length);
        let (holds_until, plain) = opened.split_first_chunk()?;
        let holds_until = u64::from_be_bytes(*holds_until);
        if holds_until < wall().as_secs() {
            return None;
        }
        about::note_holds_until(Some(holds_until));
        Some(plain.to_vec())
    }
}

/// Since the Unix epoch.
fn wall() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// The length of what is derived.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_BYTES + NONCE_BYTES
    }
}

/// Key and nonce of one ticket (RFC 5869).
fn derive(secret: &Secret, salt: &[u8], context: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let mut made = [0; KEY_BYTES + NONCE_BYTES];
    let info = [FORM, context];
    let extracted = Salt::new(HKDF_SHA256, salt).extract(&secret.bytes);
    extracted.expand(&info, Length).ok()?.fill(&mut made).ok()?;
    let (key, nonce) = made.split_first_chunk::<KEY_BYTES>()?;
    let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    Some((LessSafeKey::new(key), nonce))
}

#[cfg(test)]
mod tests {
    use config::ClientAuth;

    use super::*;

    fn tls(ca: Option<&[u8]>, required: bool, min_version: TlsVersion) -> ListenerTls {
        ListenerTls {
            acme: None,
            certificates: Vec::new(),
            min_version,
            alpn: Vec::new(),
            client: ca.map(|ca| ClientAuth {
                authorities: vec![ca.into()],
                required,
                place: "".into(),
            }),
            refuses_misdirected: false,
        }
    }

    #[test]
    fn a_ticket_opens_only_where_clients_are_verified_by_the_same_rules() {
        let secrets = Arc::new(Secrets::new());
        let of = |listener: &str, tls: &ListenerTls| Ticketer::new(secrets.clone(), listener, tls);
        let (v2, v3) = (TlsVersion::Tls12, TlsVersion::Tls13);
        let strict = tls(Some(b"ca"), true, v2);
        let ticket = of("web", &strict).encrypt(b"a session").expect("a ticket");
        assert_eq!(
            of("web", &strict.clone()).decrypt(&ticket).as_deref(),
            Some(&b"a session"[..])
        );
        let others = [
            ("other", strict),
            ("web", tls(Some(b"another ca"), true, v2)),
            ("web", tls(Some(b"ca"), false, v2)),
            ("web", tls(Some(b"ca"), true, v3)),
            ("web", tls(None, true, v2)),
        ];
        for (listener, tls) in others {
            assert_eq!(of(listener, &tls).decrypt(&ticket), None);
        }
    }

    #[test]
    fn a_damaged_ticket_does_not_open_and_two_are_never_alike() {
        let ticketer = Ticketer::new(
            Arc::new(Secrets::new()),
            "web",
            &tls(None, false, TlsVersion::Tls12),
        );
        let ticket = ticketer.encrypt(b"a session").expect("a ticket");
        assert_ne!(ticketer.encrypt(b"a session"), Some(ticket.clone()));
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            if let Some(byte) = damaged.get_mut(at) {
                *byte ^= 1;
            }
            assert_eq!(ticketer.decrypt(&damaged), None, "{at}");
            assert_eq!(
                ticketer.decrypt(ticket.get(..at).unwrap_or_default()),
                None,
                "{at}"
            );
        }
    }

    #[test]
    fn another_process_opens_what_this_one_made() {
        let (old, new) = (Arc::new(Secrets::new()), Arc::new(Secrets::new()));
        let tls = tls(None, false, TlsVersion::Tls12);
        let of = |secrets: &Arc<Secrets>| Ticketer::new(secrets.clone(), "web", &tls);
        let ticket = of(&old).encrypt(b"a session").expect("a ticket");
        assert_eq!(of(&new).decrypt(&ticket), None);
        new.import(&["nonsense".to_owned()], Duration::ZERO, Duration::ZERO);
        assert!(of(&new).encrypt(b"x").is_some());
        new.import(&old.export(), Duration::ZERO, Duration::ZERO);
        assert!(of(&new).decrypt(&ticket).is_some());
        assert_eq!(new.export(), old.export());
    }

    #[test]
    fn processes_that_follow_one_another_quickly_keep_no_secret_for_good() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let mut now = Secrets::new();
        let first = now.export();
        // Each lives for four hours, and counts its own time.
        for _ in 0..3 {
            now.rotate(hours(4));
            let next = Secrets::new();
            next.import(&now.export(), now.age(hours(4)), Duration::ZERO);
            now = next;
        }
        assert_eq!(now.age(Duration::ZERO), hours(4));
        assert_eq!(now.export().len(), 2, "it has rotated");
        assert_eq!(now.export().last(), first.first());
    }

    #[test]
    fn a_ticket_opens_while_what_its_client_has_shown_holds() {
        let secrets = Arc::new(Secrets::new());
        let ticketer = Ticketer::new(secrets, "web", &tls(None, false, TlsVersion::Tls12));
        let now = wall().as_secs();
        for (until, opens) in [
            (None, true),
            (Some(now + 100), true),
            (Some(now - 1), false),
        ] {
            about::note_holds_until(until);
            let ticket = ticketer.encrypt(b"a session").expect("a ticket");
            about::note_holds_until(None);
            let opened = ticketer.decrypt(&ticket);
            assert_eq!(opened.as_deref(), opens.then_some(&b"a session"[..]));
            // What it opens gives no ticket that lasts longer.
            if opens {
                assert_eq!(about::holds_until(), Some(until.unwrap_or(u64::MAX)));
            }
        }
    }

    #[test]
    fn secrets_rotate_and_tickets_outlive_a_rotation_but_not_all() {
        let secrets = Arc::new(Secrets::new());
        let ticketer = Ticketer::new(secrets.clone(), "web", &tls(None, false, TlsVersion::Tls12));
        let first = ticketer.encrypt(b"1").expect("a ticket");
        secrets.rotate(ROTATE_AFTER - Duration::from_secs(1));
        assert_eq!(secrets.0.load().len(), 1);
        for hours in [6, 12] {
            secrets.rotate(Duration::from_secs(hours * 3600));
            assert!(ticketer.decrypt(&first).is_some(), "{hours}");
        }
        secrets.rotate(Duration::from_secs(18 * 3600));
        assert_eq!(ticketer.decrypt(&first), None);
        assert_eq!(secrets.0.load().len(), SECRETS_MAX);
        // The oldest outlives what clients are told.
        assert!(u64::from(LIFETIME_SECS) <= (SECRETS_MAX as u64 - 1) * ROTATE_AFTER.as_secs());
    }
}
