//! The conversation with an authority, from an account to a certificate (RFC 8555 §7).

use std::error::Error as _;
use std::time::Duration;

use config::{Challenge, Issuer};
use control::acme::{Failed, Window};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeHandle,
    ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::client::{Http, Way};
use super::store::{Answer, Store, What, wall};

/// How long the other instances that share a store have until an answer is asked for: each looks once a second.
const SPREAD: Duration = Duration::from_millis(2500);
/// How long an answer is kept, if nobody removes it.
const ANSWER_KEPT: Duration = Duration::from_secs(600);
/// How long the authority may look at our answers, and write the certificate.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));
/// How the authority names what it says.
const URN: &str = "urn:ietf:params:acme:error:";

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Failed,
    /// In words for the user.
    pub(super) problem: String,
    /// The authority does not know the account.
    pub(super) is_account_gone: bool,
}

impl Failure {
    pub(super) fn new(kind: Failed, problem: impl Into<String>) -> Self {
        Self {
            kind,
            problem: problem.into(),
            is_account_gone: false,
        }
    }

    fn refused(problem: impl Into<String>) -> Self {
        Self::new(Failed::Refused, problem)
    }

    pub(super) fn here(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::new(Failed::Unreachable, format!("{what}: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => {
                let name = problem.r#type.as_deref().unwrap_or_default();
                let name = name.strip_prefix(URN).unwrap_or(name);
                let kind = match name {
                    "rateLimited" => Failed::RateLimited,
                    "serverInternal" | "badNonce" => Failed::Unreachable,
                    _ if problem.status.is_some_and(|status| status >= 500) => Failed::Unreachable,
                    _ if problem.status == Some(429) => Failed::RateLimited,
                    _ => Failed::Refused,
                };
                Self {
                    kind,
                    is_account_gone: name == "accountDoesNotExist",
                    problem: in_words(&problem),
                }
            }
            Error::Timeout(_) => Self::new(
                Failed::Unreachable,
                "the authority has not come to an end in time",
            ),
            error => {
                let mut problem = error.to_string();
                let mut source = error.source();
                while let Some(deeper) = source {
                    let text = deeper.to_string();
                    if !problem.contains(&text) {
                        problem = format!("{problem}: {text}");
                    }
                    source = deeper.source();
                }
                Self::new(Failed::Unreachable, problem)
            }
        }
    }
}

/// The authority's problem document (RFC 7807), on one line.
fn in_words(problem: &instant_acme::Problem) -> String {
    let name = problem.r#type.as_deref().unwrap_or("no type");
    let name = name.strip_prefix(URN).unwrap_or(name);
    let detail = problem.detail.as_deref().unwrap_or("it does not say why");
    let mut text = format!("{name}: {detail}");
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match text.char_indices().nth(1000) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

/// The account, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Whom the authority was told to write to.
    contacts: Vec<Arc<str>>,
    credentials: AccountCredentials,
}

/// The account that is kept, or a new one.
pub(super) async fn account(http: &Arc<Http>, store: &Store) -> Result<Account, Failure> {
    let issuer: &Issuer = &http.issuer;
    let builder = Account::builder_with_http(Box::new(Way(http.clone())));
    let contacts: Vec<&str> = issuer.contacts.iter().map(|it| &**it).collect();
    let kept = store.account();
    let kept = kept.map_err(|error| Failure::here("the account cannot be read", &error))?;
    let keep = |kept: &Kept| {
        let text = serde_json::to_vec_pretty(kept).map_err(std::io::Error::other);
        let put = text.and_then(|text| store.put_account(&text));
        put.map_err(|error| Failure::here("the account cannot be kept", &error))
    };
    let Some(text) = kept else {
        let new = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = issuer.external_account.as_ref();
        let external = external.map(|it| ExternalAccountKey::new(it.id.to_string(), &it.key));
        let made = builder.create(&new, issuer.directory.to_string(), external.as_ref());
        let (account, credentials) = made.await?;
        let contacts = issuer.contacts.clone();
        keep(&Kept {
            contacts,
            credentials,
        })?;
        return Ok(account);
    };
    let mut kept: Kept = serde_json::from_str(&text).map_err(|error| {
        Failure::refused(format!(
            "the account in {}/account.json is damaged: {error}; remove the file to begin a new one",
            issuer.folder
        ))
    })?;
    let credentials = serde_json::to_value(&kept.credentials).and_then(serde_json::from_value);
    let credentials = credentials.map_err(|error| Failure::here("the account", &error))?;
    let account = builder.from_credentials(credentials).await?;
    if kept.contacts != issuer.contacts {
        account.update_contacts(&contacts).await?;
        kept.contacts.clone_from(&issuer.contacts);
        keep(&kept)?;
    }
    Ok(account)
}

/// When the authority wants a certificate to be renewed, and how long that answer is good. `None`: it does not say.
pub(super) async fn window(
    account: &Account,
    leaf: &[u8],
) -> Result<Option<(Window, Duration)>, Failure> {
    let leaf = CertificateDer::from(leaf);
    let Ok(id) = CertificateIdentifier::try_from(&leaf) else {
        return Ok(None);
    };
    let (info, again) = match account.renewal_info(&id).await {
        Ok(found) => found,
        Err(Error::Unsupported(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let wall = |time: i64| Duration::from_secs(u64::try_from(time).unwrap_or(0));
    let window = info.suggested_window;
    let window = Window {
        start: wall(window.start.unix_timestamp()),
        end: wall(window.end.unix_timestamp()),
    };
    Ok(Some((window, again)))
}

/// Answers that are given while an order is under way.
pub(super) struct Answers<'s> {
    pub(super) store: &'s Store,
    /// Called when the answers that are given are others than before.
    pub(super) changed: &'s (dyn Fn() + Sync),
    /// The files in the store.
    names: Vec<String>,
}

impl<'s> Answers<'s> {
    pub(super) fn new(store: &'s Store, changed: &'s (dyn Fn() + Sync)) -> Self {
        Self {
            store,
            changed,
            names: Vec::new(),
        }
    }

    fn give(&mut self, what: What) -> Result<(), Failure> {
        let until = wall().saturating_add(ANSWER_KEPT);
        let name = self.store.put_answer(&Answer { until, what });
        let name = name.map_err(|error| Failure::here("the answer cannot be kept", &error))?;
        self.names.push(name);
        Ok(())
    }

    /// Gives none of them any more.
    pub(super) fn withdraw(&mut self) {
        if self.names.is_empty() {
            return;
        }
        for name in self.names.drain(..) {
            self.store.remove_answer(&name);
        }
        (self.changed)();
    }
}

/// Asks for a certificate; gives its private key and its chain, as PEM. `replaces`: the one before, if the authority
/// wants to know.
pub(super) async fn obtain(
    account: &Account,
    answers: &mut Answers<'_>,
    challenge: Challenge,
    domain: &str,
    replaces: Option<&[u8]>,
) -> Result<String, Failure> {
    let mut order = new_order(account, domain, replaces).await?;
    let offered = offer(&mut order, answers, challenge, domain).await;
    let proved = match offered {
        Ok(()) if answers.names.is_empty() => Ok(()),
        Ok(()) => {
            (answers.changed)();
            tokio::time::sleep(SPREAD).await;
            prove(&mut order, challenge).await
        }
        Err(failure) => Err(failure),
    };
    answers.withdraw();
    proved?;
    finish(&mut order, domain).await
}

async fn new_order(
    account: &Account,
    domain: &str,
    replaces: Option<&[u8]>,
) -> Result<Order, Failure> {
    let identifiers = [Identifier::Dns(domain.to_owned())];
    let leaf = replaces.map(CertificateDer::from);
    let id = leaf
        .as_ref()
        .and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
    if let Some(id) = id {
        let new = NewOrder::new(&identifiers).replaces(id);
        match account.new_order(&new).await {
            Ok(order) => return Ok(order),
            Err(Error::Api(problem)) => {
                let failure = Failure::from(Error::Api(problem));
                if failure.kind != Failed::Refused {
                    return Err(failure);
                }
            }
            // Whatever it does not like about the one before: this is about another.
            Err(_) => {}
        }
    }
    Ok(account.new_order(&NewOrder::new(&identifiers)).await?)
}

/// The type of challenge, as the authority names it.
fn kind_of(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// Gives the answers that prove the names whose proof is still wanted.
async fn offer(
    order: &mut Order,
    answers: &mut Answers<'_>,
    challenge: Challenge,
    domain: &str,
) -> Result<(), Failure> {
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => {
                let problem = format!("the authorization for {domain} is {status:?} already");
                return Err(Failure::refused(problem));
            }
        }
        let offered: Vec<String> = authorization
            .challenges
            .iter()
            .map(|it| format!("{:?}", it.r#type))
            .collect();
        let Some(handle) = authorization.challenge(kind_of(challenge)) else {
            return Err(Failure::refused(format!(
                "the authority does not offer {} for {domain}, but {}",
                challenge.name(),
                offered.join(", ")
            )));
        };
        answers.give(answer(&handle, challenge, domain)?)?;
    }
    Ok(())
}

fn answer(
    handle: &ChallengeHandle<'_>,
    challenge: Challenge,
    domain: &str,
) -> Result<What, Failure> {
    let key_authorization = handle.key_authorization();
    Ok(match challenge {
        Challenge::Http01 => What::Http {
            token: handle.token.clone(),
            key_authorization: key_authorization.as_str().to_owned(),
        },
        Challenge::TlsAlpn01 => What::Tls {
            domain: domain.to_owned(),
            pem: shown(domain, key_authorization.digest().as_ref())
                .map_err(|error| Failure::here("the answer cannot be made", &error))?,
        },
    })
}

/// The certificate that answers in a handshake (RFC 8737 §3), with its key.
fn shown(domain: &str, digest: &[u8]) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(vec![domain.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// Has the authority look at the answers, and waits for what it says.
async fn prove(order: &mut Order, challenge: Challenge) -> Result<(), Failure> {
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        if let Some(mut handle) = authorization.challenge(kind_of(challenge)) {
            handle.set_ready().await?;
        }
    }
    match order.poll_ready(&POLL).await {
        Ok(OrderStatus::Invalid) => {}
        Ok(_) => return Ok(()),
        Err(Error::Api(problem)) if problem.r#type.is_none() => {}
        Err(error) => return Err(error.into()),
    }
    // What the order does not say, its parts do.
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization?;
        let state = authorization.refresh().await?;
        let problem = state.challenges.iter().find_map(|it| it.error.clone());
        if let Some(problem) = problem {
            return Err(Error::Api(problem).into());
        }
    }
    Err(Failure::refused(
        "the authority refuses the order and does not say why",
    ))
}

/// Has the authority write the certificate, for a new key.
async fn finish(order: &mut Order, domain: &str) -> Result<String, Failure> {
    let request = || -> Result<_, rcgen::Error> {
        let mut params = CertificateParams::new(vec![domain.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let request = params.serialize_request(&key)?;
        Ok((key, request))
    };
    let (key, request) =
        request().map_err(|error| Failure::here("the request cannot be made", &error))?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&POLL).await?;
    Ok(format!("{}{chain}", key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_authorities_say_is_told_apart() {
        let check = |document: &str, kind: Failed, problem: &str| {
            let document = serde_json::from_str(document).unwrap();
            let failure = Failure::from(Error::Api(document));
            assert_eq!((failure.kind, &*failure.problem), (kind, problem));
        };
        check(
            r#"{"type":"urn:ietf:params:acme:error:unauthorized","detail":"no such token","status":403}"#,
            Failed::Refused,
            "unauthorized: no such token",
        );
        check(
            r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many\ncertificates","status":429}"#,
            Failed::RateLimited,
            "rateLimited: too many certificates",
        );
        check(
            r#"{"type":"urn:ietf:params:acme:error:serverInternal","status":500}"#,
            Failed::Unreachable,
            "serverInternal: it does not say why",
        );
        check(
            r#"{"status":503}"#,
            Failed::Unreachable,
            "no type: it does not say why",
        );
    }
}
