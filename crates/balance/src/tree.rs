//! The least of many servers, as one worker knows them: a tournament over the last view of them.

/// Servers read again at each pick.
const SLICE: usize = 8;
/// How many winners of one pick may turn out to be out of date before one is taken as it is.
const REREADS_MAX: usize = 256;

/// What servers are compared by: the smaller load, then the earlier date.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) load: f64,
    /// See `Server::due`.
    pub(crate) due: u64,
}

/// Node 1 is the root, node j plays 2j against 2j+1, the leaf of server i is n+i. After n/8 picks
/// every key has been read again, and a pick's winner is read just before it is taken.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    keys: Vec<Key>,
    winners: Vec<u32>,
    next: usize,
    /// Servers that this pick may not take, to be put back after it.
    masked: Vec<usize>,
}

impl Key {
    /// Of a server that may not be picked.
    pub(crate) const CLOSED: Self = Self {
        load: f64::INFINITY,
        due: u64::MAX,
    };

    fn is_open(&self) -> bool {
        self.load < f64::INFINITY
    }
}

impl Tree {
    pub(crate) fn new(len: usize, key: impl Fn(usize) -> Key) -> Self {
        let keys: Vec<Key> = (0..len).map(key).collect();
        let mut tree = Self {
            winners: vec![0; 2 * len],
            keys,
            next: 0,
            masked: Vec::new(),
        };
        for index in 0..len {
            tree.winners[len + index] = index as u32;
        }
        for node in (1..len).rev() {
            tree.winners[node] = tree.play(node);
        }
        tree
    }

    /// The server with the least key, `None` if all are closed. `key` reads a server as it is now;
    /// `barred` says which this request may not take.
    pub(crate) fn pick(
        &mut self,
        key: impl Fn(usize) -> Key,
        barred: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let len = self.keys.len();
        for _ in 0..SLICE.min(len) {
            self.set(self.next, key(self.next));
            self.next = (self.next + 1) % len;
        }
        let mut rereads = 0;
        let picked = loop {
            let winner = self.winner()?;
            if !self.keys[winner].is_open() {
                break None;
            }
            if barred(winner) {
                self.masked.push(winner);
                self.set(winner, Key::CLOSED);
                continue;
            }
            let fresh = key(winner);
            if fresh == self.keys[winner] || rereads == REREADS_MAX && fresh.is_open() {
                break Some(winner);
            }
            rereads += 1;
            self.set(winner, fresh);
        };
        while let Some(index) = self.masked.pop() {
            self.set(index, key(index));
        }
        picked
    }

    /// Notes what a server's key became.
    pub(crate) fn set(&mut self, index: usize, key: Key) {
        if self.keys[index] == key {
            return;
        }
        self.keys[index] = key;
        let mut node = (self.keys.len() + index) / 2;
        while node >= 1 {
            let winner = self.play(node);
            if winner == self.winners[node] && winner as usize != index {
                break;
            }
            self.winners[node] = winner;
            node /= 2;
        }
    }

    fn winner(&self) -> Option<usize> {
        self.winners.get(1).map(|winner| *winner as usize)
    }

    fn play(&self, node: usize) -> u32 {
        let (a, b) = (self.winners[2 * node], self.winners[2 * node + 1]);
        if self.keys[b as usize] < self.keys[a as usize] {
            b
        } else {
            a
        }
    }
}
