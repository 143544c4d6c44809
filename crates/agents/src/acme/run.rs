//! What is done for one authority: its certificates are taken up as the store has them, and asked for when they are due.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{Certificate, Issuer};
use control::acme::{Failed, Failures, Pending, Renewal, State, Status, next_order, wait_after};
use instant_acme::Account;
use tokio::sync::watch;

use super::client::Http;
use super::lease::Lease;
use super::order::{self, Answers, Failure};
use super::store::{Known, Stamp, Store, What, wall};
use super::{Notice, Parts};

/// How often the store is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An order that takes longer has failed.
const ORDER_MAX: Duration = Duration::from_secs(300);
/// An account that is older is read again, and the authority's directory with it.
const ACCOUNT_KEPT: Duration = Duration::from_secs(3600);
/// How often an authority is asked when it wants a certificate to be renewed: not more, and not less.
const WINDOW_MIN: Duration = Duration::from_secs(3600);
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// The names of one authority.
pub(super) struct Runner {
    parts: Arc<Parts>,
    issuer: Arc<Issuer>,
    store: Store,
    http: Arc<Http>,
    account: Option<(Account, Instant)>,
    /// Which names are wanted.
    wanted: watch::Receiver<Vec<Arc<str>>>,
    names: BTreeMap<Arc<str>, Name>,
    /// The store's folders when they were read last.
    stamps: Option<[Option<Stamp>; 2]>,
    /// Wall time at which the first of the answers that are given is over, if nobody withdraws it.
    answers_until: Option<Duration>,
}

/// One name.
#[derive(Default)]
struct Name {
    certificate: Option<Certificate>,
    /// Of the file that it was read from.
    stamp: Option<Stamp>,
    known: Known,
    /// It could not be kept in the store, which knows less.
    is_known_unsaved: bool,
    /// One that could not be kept in the store.
    unsaved: Option<String>,
    is_ordering: bool,
    /// What was told of its file last, so that it is told once.
    told: Option<String>,
}

/// What is to be done next.
enum Errand {
    /// A certificate is to be asked for.
    Order(Arc<str>),
    /// The authority is to be asked when it wants it to be renewed.
    Window(Arc<str>),
}

impl Runner {
    pub(super) fn new(
        parts: Arc<Parts>,
        issuer: Arc<Issuer>,
        store: Store,
        wanted: watch::Receiver<Vec<Arc<str>>>,
    ) -> Self {
        let http = Arc::new(Http::new(issuer.clone(), parts.secure.clone()));
        Self {
            parts,
            issuer,
            store,
            http,
            account: None,
            wanted,
            names: BTreeMap::new(),
            stamps: None,
            answers_until: None,
        }
    }

    /// Works until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.look();
            let errand = self.errand();
            let is_done = match errand {
                Some(errand) => self.run_errand(errand).await,
                None => false,
            };
            if !is_done {
                // Names that come are looked at at once.
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    changed = self.wanted.changed() => if changed.is_err() { return },
                }
            }
        }
    }

    /// Takes up what the store has, where it has changed.
    fn look(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let is_known = wanted.len() == self.names.len()
            && wanted.iter().all(|domain| self.names.contains_key(domain));
        self.names.retain(|domain, _| wanted.contains(domain));
        for domain in wanted {
            self.names.entry(domain).or_default();
        }
        let now = wall();
        let stamps = self.store.stamps(now);
        let is_over = self.answers_until.is_some_and(|until| until <= now);
        if is_known && stamps.is_some() && stamps == self.stamps && !is_over {
            return;
        }
        self.stamps = stamps;
        self.answers_until = give_answers(&self.parts, &self.issuer, &self.store);
        let domains: Vec<Arc<str>> = self.names.keys().cloned().collect();
        for domain in domains {
            self.look_at(&domain);
        }
    }

    fn look_at(&mut self, domain: &Arc<str>) {
        let Some(name) = self.names.get_mut(domain) else {
            return;
        };
        if let Some(pem) = &name.unsaved {
            if self.store.put_certificate(domain, pem).is_ok() {
                name.unsaved = None;
                name.stamp = self.store.certificate_stamp(domain);
            }
            return;
        }
        match name.is_known_unsaved {
            true => name.is_known_unsaved = self.store.put_known(domain, &name.known).is_err(),
            false => name.known = self.store.known(domain),
        }
        let stamp = self.store.certificate_stamp(domain);
        if stamp != name.stamp || name.certificate.is_none() {
            name.stamp = stamp;
            let found = self.store.certificate(domain).and_then(|found| {
                found.map_or(Ok(None), |found| {
                    (self.parts.put)(&found).map(|()| Some(found))
                })
            });
            match found {
                Ok(found) => {
                    let is_new = found != name.certificate;
                    name.certificate = found;
                    name.told = None;
                    if let (true, Some(certificate)) = (is_new, &name.certificate) {
                        (self.parts.tell)(Notice::TakenUp {
                            domain: domain.clone(),
                            not_after: certificate.not_after,
                        });
                    }
                }
                // One that was taken up before stays in use.
                Err(why) if name.told.as_ref() == Some(&why) => {}
                Err(why) => {
                    name.told = Some(why.clone());
                    let domain = domain.clone();
                    (self.parts.tell)(Notice::Unusable { domain, why });
                }
            }
        }
        self.show(domain);
    }

    /// What is due, the most urgent first: names without a certificate, then those that end soonest.
    fn errand(&self) -> Option<Errand> {
        let now = wall();
        let due = self.names.iter().filter(|(_, name)| self.due(name) <= now);
        let order = due.min_by_key(|(_, name)| name.certificate.as_ref().map(|it| it.not_after));
        if let Some((domain, _)) = order {
            return Some(Errand::Order(domain.clone()));
        }
        let mut all = self.names.iter();
        let window =
            all.find(|(_, name)| name.certificate.is_some() && name.known.ask_window <= now);
        window.map(|(domain, _)| Errand::Window(domain.clone()))
    }

    /// When a name's certificate is asked for next, as wall time.
    fn due(&self, name: &Name) -> Duration {
        let renewal = name.certificate.as_ref().map(|certificate| Renewal {
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            window: name
                .known
                .window
                .filter(|_| name.known.window_of == certificate.not_after),
            spread: spread(certificate),
        });
        let failures = name.known.failures.as_ref();
        let failures = failures.filter(|_| name.known.settings == settings(&self.issuer));
        next_order(renewal.as_ref(), failures)
    }

    /// Does it, unless another instance does. False: nothing was done.
    async fn run_errand(&mut self, errand: Errand) -> bool {
        let store = self.store.clone();
        let lease = match Lease::take(&store) {
            Ok(Some(lease)) => lease,
            Ok(None) => return false,
            Err(error) => {
                let folder = self.issuer.folder.clone();
                self.parts.tell_once(
                    &folder,
                    Notice::Store {
                        folder: folder.clone(),
                        why: error.to_string(),
                    },
                );
                return false;
            }
        };
        self.parts.forget_told(&self.issuer.folder);
        // Another instance may just have done it.
        self.stamps = None;
        self.look();
        let again = self.errand();
        match (errand, again) {
            (Errand::Order(domain), Some(Errand::Order(again))) if domain == again => {
                tokio::select! {
                    () = self.order(&domain) => {}
                    error = lease.keep() => {
                        self.fail(&domain, Failure::here("the lease", &error));
                    }
                }
                true
            }
            (Errand::Window(domain), Some(Errand::Window(again))) if domain == again => {
                self.ask_window(&domain).await;
                true
            }
            _ => true,
        }
    }

    async fn order(&mut self, domain: &Arc<str>) {
        let began = Instant::now();
        let replaces = self.names.get_mut(domain).and_then(|name| {
            name.is_ordering = true;
            name.known.window?;
            Some(name.certificate.as_ref()?.chain.first()?.clone())
        });
        self.show(domain);
        (self.parts.tell)(Notice::Ordering {
            domain: domain.clone(),
            directory: self.issuer.directory.clone(),
        });
        self.http.take_retry_after();
        let (parts, issuer, store) = (self.parts.clone(), self.issuer.clone(), self.store.clone());
        let changed = || {
            give_answers(&parts, &issuer, &store);
        };
        let mut answers = Answers::new(&store, &changed);
        let asked = self.ask(domain, replaces.as_deref(), &mut answers);
        let asked = tokio::time::timeout(ORDER_MAX, asked).await;
        answers.withdraw();
        let obtained = asked.unwrap_or_else(|_| {
            let problem = format!("it was not over within {} s", ORDER_MAX.as_secs());
            Err(Failure::new(Failed::Unreachable, problem))
        });
        match obtained.and_then(|pem| self.check(domain, pem)) {
            Ok((certificate, pem)) => self.keep(domain, certificate, pem, began.elapsed()),
            Err(failure) => self.fail(domain, failure),
        }
    }

    async fn ask(
        &mut self,
        domain: &str,
        replaces: Option<&[u8]>,
        answers: &mut Answers<'_>,
    ) -> Result<String, Failure> {
        let account = self.account().await?;
        order::obtain(&account, answers, self.issuer.challenge, domain, replaces).await
    }

    async fn account(&mut self) -> Result<Account, Failure> {
        if let Some((account, since)) = &self.account
            && since.elapsed() < ACCOUNT_KEPT
        {
            return Ok(account.clone());
        }
        let account = order::account(&self.http, &self.store).await?;
        self.account = Some((account.clone(), Instant::now()));
        Ok(account)
    }

    /// Whether what the authority gave can be used.
    fn check(&self, domain: &str, pem: String) -> Result<(Certificate, String), Failure> {
        let file = self.issuer.file(domain);
        let unusable = |why: String| {
            Failure::new(
                Failed::Refused,
                format!("the certificate that came cannot be used: {why}"),
            )
        };
        let certificate = Certificate::from_pem(&pem, &file, &file).map_err(unusable)?;
        if !certificate.covers(domain) {
            return Err(unusable(format!(
                "it is for {}",
                certificate.names.join(", ")
            )));
        }
        if certificate.not_after <= wall() {
            return Err(unusable(
                "it is out of date; is the clock right?".to_owned(),
            ));
        }
        (self.parts.put)(&certificate).map_err(unusable)?;
        Ok((certificate, pem))
    }

    fn keep(&mut self, domain: &Arc<str>, certificate: Certificate, pem: String, took: Duration) {
        let kept = self.store.put_certificate(domain, &pem);
        let known = Known::default();
        let kept = kept.and_then(|()| self.store.put_known(domain, &known));
        self.parts.board().count(domain, &self.issuer.host, true);
        (self.parts.tell)(Notice::Issued {
            domain: domain.clone(),
            not_after: certificate.not_after,
            took,
        });
        let Some(name) = self.names.get_mut(domain) else {
            return;
        };
        name.known = known;
        name.is_known_unsaved = false;
        name.certificate = Some(certificate);
        name.is_ordering = false;
        name.stamp = self.store.certificate_stamp(domain);
        if let Err(error) = kept {
            name.unsaved = Some(pem);
            (self.parts.tell)(Notice::Store {
                folder: self.issuer.folder.clone(),
                why: format!("the certificate of {domain} is in use, but cannot be kept: {error}"),
            });
        }
        self.show(domain);
    }

    fn fail(&mut self, domain: &Arc<str>, failure: Failure) {
        // It may be about the account, or the authority may have moved.
        self.account = None;
        if failure.is_account_gone && self.store.forget_account().is_ok() {
            (self.parts.tell)(Notice::AccountGone {
                directory: self.issuer.directory.clone(),
            });
        }
        let asked = self.http.take_retry_after();
        let random = self.parts.random();
        self.parts.board().count(domain, &self.issuer.host, false);
        let Some(name) = self.names.get_mut(domain) else {
            return;
        };
        name.is_ordering = false;
        let settings = settings(&self.issuer);
        let before = name.known.failures.as_ref();
        let before = before.filter(|_| name.known.settings == settings);
        let count = before.map_or(0, |it| it.count).saturating_add(1);
        // A new account is made at once.
        let is_account_gone = failure.is_account_gone && count == 1;
        let wait = match is_account_gone {
            true => Duration::ZERO,
            false => wait_after(failure.kind, count, asked, random),
        };
        name.known.failures = Some(Failures {
            count,
            kind: failure.kind,
            problem: failure.problem.clone(),
            until: wall().saturating_add(wait),
        });
        name.known.settings = settings;
        name.is_known_unsaved = self.store.put_known(domain, &name.known).is_err();
        (self.parts.tell)(Notice::Failed {
            domain: domain.clone(),
            problem: failure.problem.into(),
            wait,
            has_certificate: name.certificate.is_some(),
        });
        self.show(domain);
    }

    /// Asks when the authority wants a certificate to be renewed (RFC 9773).
    async fn ask_window(&mut self, domain: &Arc<str>) {
        let certificate = self
            .names
            .get(domain)
            .and_then(|it| it.certificate.as_ref());
        let Some(certificate) = certificate else {
            return;
        };
        let (leaf, not_after) = (certificate.chain.first().cloned(), certificate.not_after);
        let Some(leaf) = leaf else {
            return;
        };
        let asked = match self.account().await {
            Ok(account) => order::window(&account, &leaf).await,
            Err(failure) => Err(failure),
        };
        let (window, again) = match asked {
            Ok(Some((window, again))) => (Some(window), again.clamp(WINDOW_MIN, WINDOW_MAX)),
            Ok(None) => (None, WINDOW_MAX),
            // It is no failure: without the authority's word the certificate is renewed all the same.
            Err(_) => {
                self.account = None;
                (None, WINDOW_MIN * 6)
            }
        };
        let Some(name) = self.names.get_mut(domain) else {
            return;
        };
        if window.is_some() || name.known.window_of != not_after {
            name.known.window = window;
            name.known.window_of = not_after;
        }
        name.known.ask_window = wall().saturating_add(again);
        name.is_known_unsaved = self.store.put_known(domain, &name.known).is_err();
        self.show(domain);
    }

    fn show(&self, domain: &Arc<str>) {
        let Some(name) = self.names.get(domain) else {
            return;
        };
        let not_after = name.certificate.as_ref().map(|it| it.not_after);
        let failures = name.known.failures.as_ref();
        self.parts.board().show(Status {
            domain: domain.clone(),
            authority: self.issuer.host.clone(),
            file: self.issuer.file(domain).into(),
            state: match not_after {
                None => State::Missing,
                Some(end) if end <= wall() => State::Expired,
                Some(_) => State::Valid,
            },
            not_after,
            next_order: Some(self.due(name)).filter(|due| !due.is_zero()),
            is_ordering: name.is_ordering,
            failures: failures.map_or(0, |it| it.count),
            problem: failures.map(|it| it.problem.as_str().into()),
        });
    }
}

/// Has workers give the answers that are pending in a store; gives the time when the first of them is over.
fn give_answers(parts: &Parts, issuer: &Issuer, store: &Store) -> Option<Duration> {
    let mut pending = Pending::default();
    let answers = store.answers(wall());
    let until = answers.values().map(|answer| answer.until).min();
    for answer in answers.into_values() {
        match answer.what {
            What::Http {
                token,
                key_authorization,
            } => {
                let body: Arc<[u8]> = key_authorization.into_bytes().into();
                pending.http.insert(token.into(), body);
            }
            What::Tls { domain, pem } => {
                let name = store.folder.join(&domain);
                let name = Path::new(&name).display().to_string();
                if let Ok(certificate) = Certificate::from_pem(&pem, &name, &name) {
                    pending.tls.insert(domain.into(), Arc::new(certificate));
                }
            }
        }
    }
    parts.give(&issuer.folder, pending);
    until
}

/// Where within its bounds a certificate is renewed: from its signature, so that all instances agree.
fn spread(certificate: &Certificate) -> f64 {
    let leaf = certificate.chain.first();
    let end = leaf.and_then(|leaf| leaf.last_chunk::<4>());
    let number = end.map_or(0, |end| u32::from_be_bytes(*end));
    f64::from(number) / f64::from(u32::MAX)
}

/// What failures are remembered for.
fn settings(issuer: &Issuer) -> String {
    let account = issuer.external_account.as_ref();
    format!(
        "{} {} {}",
        issuer.challenge.name(),
        issuer.contacts.join(","),
        account.map_or("", |account| &account.id)
    )
}
