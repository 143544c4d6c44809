//! The names of the algorithms, and their options.

/// How a server is chosen. Weights count in every one of them.
///
/// *Shared* state is read or written by all workers as relaxed atomics; *local* state belongs to
/// one worker's [`Local`](crate::Local).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// Each server in turn, a server of weight 3 three times as often, its turns spread evenly.
    ///
    /// Exact in every period for all workers together. The period is the sum of the weights once
    /// their common divisor is taken out. At any point of it a server is less than one pick ahead
    /// of or behind its share while the period is at most 16,384, less than eight above. Shared:
    /// the rotation.
    RoundRobin,
    /// The fewest requests in use per weight; among equals the one picked longest ago, where a
    /// pause counts in proportion to the weight.
    ///
    /// With equal weights and requests alike, even within one pick; else picks keep to the weights
    /// as far as there are enough requests in use, within 10 % from ten for each unit of weight.
    /// Shared: the counts. Exact as of the moment of the pick up to 64 servers. Above that each
    /// worker compares counts that it read at most n/8 of its own picks ago (local: a tournament
    /// tree), and looks at the winner's afresh: whom it picks has no more than any other had at
    /// some time since then. (Should 256 winners in a row prove out of date, the next is taken.)
    LeastConnections,
    /// The lowest moving average of response times, per weight.
    ///
    /// Between servers that answer alike, and weigh alike, picks are even within 1 %; a faster one
    /// gets all until it is no longer faster. A server never measured gets one request at a time until it is. An average halves for each
    /// ten seconds without a sample, so that a server once slow is tried again; failures make none faster
    /// ([`Server::record_failed_latency`](crate::Server::record_failed_latency)). Shared: the
    /// averages; local and stale as [`Algorithm::LeastConnections`].
    LeastResponseTime {
        /// Multiplies the average by the requests in use, the one to come included.
        times_connections: bool,
    },
    /// The client's address decides: the same as [`Algorithm::ConsistentHash`] without a bound,
    /// with a hash of the address as the key.
    IpHash,
    /// The key decides, on a ring with 512 virtual nodes per weight: when a server leaves, only its
    /// keys move. Without a key: at random. The share of a server of weight 1 differs from the fair
    /// one by 4 % as a rule, by less than 22 % nearly always, that of a heavier one by less.
    ///
    /// Past a pool's total weight of 2,048 the virtual nodes per weight are halved for each
    /// doubling of it, and a change that crosses a doubling moves other keys too.
    ConsistentHash {
        /// At most this multiple (from 1.0) of the fair share of all requests in use goes to one
        /// server, what is above walks on along the ring. Shared: the counts, above 64 servers as
        /// the worker saw them at most n/16 of its own picks ago.
        bounded_load: Option<f64>,
    },
    /// At random, in proportion to the weights; of n fair picks some √n are off. Local: the random
    /// state.
    Random,
    /// Two servers drawn at random in proportion to the weights, and of these the one with fewer
    /// requests in use per weight, among equals the one picked longest ago. Even within 5 % with
    /// equal weights, else as [`Algorithm::LeastConnections`]. Local: the random state; shared: the
    /// counts of the two, as of the moment of the pick.
    #[default]
    PowerOfTwo,
    /// The key decides by Google's Maglev table: even within 1 % of the keys as long as a server
    /// has a few hundred of the 65,537 entries (above 655 servers 1,048,573), and few keys move
    /// when servers come and go. Without a key: at random.
    Maglev,
    /// As [`Algorithm::PowerOfTwo`], by a latency average that rises at once and falls slowly,
    /// times the requests in use, the one to come included.
    PeakEwma,
}
