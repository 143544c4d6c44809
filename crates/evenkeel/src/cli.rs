//! The command line as typed. What commands do is in their own modules.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A load balancer for every tier, in one binary.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 well; 1 what was given is wrong, or a drain cut something; \
                        2 usage; 3 the system refused or does not answer."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a config; SIGHUP reloads it, SIGUSR2 upgrades the binary, SIGTERM drains and ends
    Run(RunArgs),
    /// Balances with no config file: `evenkeel balance :8080 127.0.0.1:9001 127.0.0.1:9002`
    Balance(BalanceArgs),
    /// Servers, a balancer in front of them, and something to see and to break
    Demo(crate::demo::DemoArgs),
    /// Shows every error of a config at once, else what would run
    Check(CheckArgs),
    /// Says which route, pool and server a request would get, and why not the others
    Explain(ExplainArgs),
    /// Shows the pools and servers of a running instance
    Status(RemoteArgs),
    /// Shows pools, servers and their rates live; once and plainly where there is no terminal
    Top(TopArgs),
    /// Has a running instance read its config again, and prints what changed
    Reload(RemoteArgs),
    /// Has a running instance hand over to a new process of the binary on disk, without losing a request
    Upgrade(UpgradeArgs),
    /// Changes a server of a running instance
    Server(ServerArgs),
    /// Takes a server of a running instance out as a crash would, and reports what that cost
    Drill(DrillArgs),
    /// Shows or forgets what a pool of a running instance has learnt of its clients
    Affinity(AffinityArgs),
    /// Prints the JSON Schema of the config, for editors
    Schema,
    /// Prints a shell's completion script
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Prints the reference of the config in Markdown
    #[command(hide = true)]
    ReferenceConfig,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Config file [default: ./evenkeel.yaml, then /etc/evenkeel/evenkeel.yaml]
    pub(crate) file: Option<PathBuf>,
    /// Reload when a file of the config changes
    #[arg(long)]
    pub(crate) watch: bool,
    /// Take warnings for errors, also when reloading
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BalanceArgs {
    /// Where to listen: `:8080`, `127.0.0.1:8080`, `unix:/run/x.sock`
    pub(crate) listen: String,
    /// The servers: `IP:port`, `[v6]:port`, `name:port`, `unix:/path`
    #[arg(required = true)]
    pub(crate) servers: Vec<String>,
    /// Balance TCP connections instead of HTTP requests
    #[arg(long)]
    pub(crate) tcp: bool,
    /// How a server is picked: `round_robin`, `least_connections`, … [default: power_of_two]
    #[arg(long, value_name = "NAME")]
    pub(crate) algorithm: Option<String>,
    /// Probe servers with a GET of this path instead of a TCP connect
    #[arg(long, value_name = "PATH")]
    pub(crate) health_path: Option<String>,
    /// Print the config that this is, to grow out of it, and end
    #[arg(long)]
    pub(crate) print_config: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Config file [default: ./evenkeel.yaml, then /etc/evenkeel/evenkeel.yaml]
    pub(crate) file: Option<PathBuf>,
    /// Take warnings for errors
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The request: 'GET http://host:port/path', 'http://host/', or '/path' with -H 'Host: host'
    pub(crate) request: String,
    /// Config file [default: ./evenkeel.yaml, then /etc/evenkeel/evenkeel.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A header, as often as needed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// The peer that the request comes from
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) from: IpAddr,
    /// The certificate that the client shows, as PEM, with those that lead to its authority
    #[arg(long, value_name = "FILE")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Ask a running instance, which knows health, weights and load; it sends and counts nothing
    #[arg(long, conflicts_with = "config")]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoteArgs {
    /// Where the instance's admin listener is
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "EVENKEEL_ADMIN",
        default_value = "http://127.0.0.1:9900"
    )]
    pub(crate) admin: String,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Between two looks, 200ms to 1m
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub(crate) interval: String,
    /// Look twice, print, and end, on a terminal too
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Another binary [default: the one that the instance was started from, as it is on disk now]
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// How long the new process has to be ready [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    pub(crate) command: ServerCommand,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The instance ends the drill by itself, whatever becomes of this command; \
                  `evenkeel server enable POOL SERVER` ends it before. Exit 1 if a request failed."
)]
pub(crate) struct DrillArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// How long it is out, 1s to 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "30s")]
    pub(crate) length: String,
    /// Even if nobody else can serve, or the others may not bear it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Gives it no new requests, waits for those it has, prints a receipt; exit 1 if any was cut
    Drain {
        #[command(flatten)]
        which: Which,
        /// What still runs then is cut: `30s`, `5m` [default: the pool's `drain.timeout`]
        #[arg(long, value_name = "DURATION")]
        timeout: Option<String>,
        /// Even if the others may not bear it
        #[arg(long)]
        force: bool,
    },
    /// Gives it no new requests from now on
    Disable {
        #[command(flatten)]
        which: Which,
        /// Even if the others may not bear it
        #[arg(long)]
        force: bool,
    },
    /// Gives it requests again
    Enable(Which),
    /// Gives it another weight
    Weight {
        #[command(flatten)]
        which: Which,
        /// 0 to 1000
        #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
        weight: u32,
        /// With 0: even if the others may not bear it
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AffinityArgs {
    #[command(subcommand)]
    pub(crate) command: AffinityCommand,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AffinityCommand {
    /// Shows which server each client is bound to, by a hash of what tells clients apart
    List {
        /// The pool
        pool: String,
        /// Only the clients of this server
        #[arg(long, value_name = "NAME")]
        server: Option<String>,
        /// Only the client with this cookie, header value or address
        #[arg(long, value_name = "TEXT")]
        value: Option<String>,
        /// At most so many, 1 to 10000
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on from here, as the last page said
        #[arg(long, value_name = "NEXT", default_value_t = 0)]
        from: usize,
    },
    /// Forgets bindings: these clients are new from then on
    Forget {
        /// The pool
        pool: String,
        #[command(flatten)]
        what: ForgetArgs,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ForgetArgs {
    /// All of the pool
    #[arg(long)]
    pub(crate) all: bool,
    /// The clients of this server
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// The client with this key, as `list` shows it
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// The client with this cookie, header value or address
    #[arg(long, value_name = "TEXT")]
    pub(crate) value: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Its pool
    pub(crate) pool: String,
    /// Its name (its address, unless the config names it)
    pub(crate) server: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
