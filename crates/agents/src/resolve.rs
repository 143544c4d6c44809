//! Names to addresses: `localhost` and the hosts file first, then the system's name servers.
//!
//! It keeps no answer: who asks is told how long one holds, and asks again then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// A whole look-up, all servers and search domains together.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// One question to one name server, whatever resolv.conf says.
const QUESTION_MAX: Duration = Duration::from_secs(3);
/// Times that a question is asked again.
const ATTEMPTS_MAX: usize = 2;
/// How long an answer holds that has no TTL, as one of the hosts file.
const TTL_DEFAULT: Duration = config::defaults::NAME_TTL;
/// The longest that an answer is believed.
const TTL_MAX: Duration = Duration::from_secs(86_400);
/// Bytes of a hosts file that are read.
const HOSTS_BYTES_MAX: u64 = 8 << 20;
/// Bytes of resolv.conf that are read.
const CONF_BYTES_MAX: u64 = 64 << 10;

/// Looks names up.
pub struct Resolver {
    hosts: PathBuf,
    servers: Servers,
}

/// Whom to ask.
enum Servers {
    /// Those of this resolv.conf, read again when it has changed.
    System {
        path: PathBuf,
        built: Mutex<Option<(Vec<u8>, Arc<TokioResolver>)>>,
    },
    /// Only these.
    #[cfg(test)]
    Given(Arc<TokioResolver>),
}

impl Resolver {
    /// A resolver of the system's own settings: `/etc/hosts` and `/etc/resolv.conf`, both read anew at each look-up,
    /// so that a change of either needs no restart.
    #[must_use]
    pub fn system() -> Self {
        Self {
            hosts: PathBuf::from("/etc/hosts"),
            servers: Servers::System {
                path: PathBuf::from("/etc/resolv.conf"),
                built: Mutex::new(None),
            },
        }
    }

    /// The addresses of a name, IPv4 and IPv6, and for how long they hold.
    ///
    /// # Errors
    /// Why there is no answer, in words for the log.
    pub async fn resolve(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        if let Ok(ip) = name.parse() {
            return Ok((vec![ip], TTL_MAX));
        }
        let hosts = read(&self.hosts, HOSTS_BYTES_MAX).await.unwrap_or_default();
        let found = in_hosts(&String::from_utf8_lossy(&hosts), name);
        if !found.is_empty() {
            return Ok((found, TTL_DEFAULT));
        }
        if is_localhost(name) {
            let loopback = [
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ];
            return Ok((loopback.to_vec(), TTL_DEFAULT));
        }
        let resolver = self.servers.resolver().await?;
        match timeout(LOOKUP_MAX, resolver.lookup_ip(name)).await {
            Err(_) => Err(format!(
                "no answer from the name servers within {} s",
                LOOKUP_MAX.as_secs()
            )),
            Ok(Err(error)) => Err(words(&error)),
            Ok(Ok(answer)) => {
                let ttl = answer.as_lookup().answers().iter().map(|record| record.ttl);
                let ttl = ttl
                    .min()
                    .map_or(TTL_DEFAULT, |secs| Duration::from_secs(secs.into()));
                let addresses: Vec<IpAddr> = answer.iter().collect();
                if addresses.is_empty() {
                    return Err("the name has no address".to_owned());
                }
                Ok((addresses, ttl.min(TTL_MAX)))
            }
        }
    }
}

impl Servers {
    async fn resolver(&self) -> Result<Arc<TokioResolver>, String> {
        let (path, built) = match self {
            Self::System { path, built } => (path, built),
            #[cfg(test)]
            Self::Given(resolver) => return Ok(resolver.clone()),
        };
        let shown = path.display();
        let text = read(path, CONF_BYTES_MAX)
            .await
            .map_err(|error| format!("{shown}: {error}"))?;
        let mut built = built.lock().await;
        if let Some((from, resolver)) = &*built
            && *from == text
        {
            return Ok(resolver.clone());
        }
        let (servers, options) =
            parse_resolv_conf(&text).map_err(|error| format!("{shown}: {error}"))?;
        let resolver = build(servers, options).map_err(|error| format!("{shown}: {error}"))?;
        *built = Some((text, resolver.clone()));
        Ok(resolver)
    }
}

fn build(servers: ResolverConfig, options: ResolverOpts) -> Result<Arc<TokioResolver>, NetError> {
    let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
        .with_options(options);
    let options = builder.options_mut();
    options.timeout = options.timeout.min(QUESTION_MAX);
    options.attempts = options.attempts.min(ATTEMPTS_MAX);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    // Who asks keeps the answer for its TTL already.
    options.cache_size = 0;
    builder.build().map(Arc::new)
}

fn words(error: &NetError) -> String {
    if error.is_nx_domain() {
        "no such name".to_owned()
    } else if error.is_no_records_found() {
        "the name has no address".to_owned()
    } else if matches!(error, NetError::Timeout) {
        "no answer from the name servers".to_owned()
    } else {
        error.to_string()
    }
}

/// RFC 6761 §6.3: `localhost` and what is below it never leave the machine.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// The addresses that a hosts file has for a name: `ADDRESS NAME… # comment` on each line.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

/// Reads the beginning of a small file off the runtime's threads.
async fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut text = Vec::new();
        std::fs::File::open(path)?
            .take(bytes_max)
            .read_to_end(&mut text)?;
        std::io::Result::Ok(text)
    });
    match reading.await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the reading was given up".to_owned()),
    }
}

#[cfg(test)]
mod tests;
