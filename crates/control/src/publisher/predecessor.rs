//! Words over an upgrade: what is said of servers here is said to the process before this one, too, while that drains;
//! and what the process after this one says is obeyed here.
//!
//! Who waits for an answer waits for both. How words travel is the binary's matter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use balance::State;

use super::handover::{millis, parse_state};
use super::pools::Slot;
use super::{Action, PendingDrain, Publisher, WEIGHT_MAX};
use crate::handover::{LiveDrain, Obeyed, Word};
use crate::message::{Answer, Receipt, Reply};

/// What a command is answered that was obeyed here alone.
const SILENT: &str = "it is done here, but the process before this one, which drains since the upgrade, does not answer: \
                      what it still sends to this server is not known";

/// The same when this process ends before that one.
const GIVEN_UP: &str = "it is done here, but this process is ending, and the one before it, which drains since the upgrade, \
                        has yet to obey";

/// The process before this one, as far as it is to obey.
#[derive(Default)]
pub(super) struct Predecessor {
    /// Whether it drains, and hears what it is told.
    hears: bool,
    /// The number of the last word.
    told: u64,
    /// By word.
    awaited: BTreeMap<u64, Awaited>,
}

/// What is done here, and not there.
struct Awaited {
    since: Duration,
    replies: Vec<Reply>,
    answer: Answer,
}

impl Awaited {
    fn answer(self) -> impl Iterator<Item = Action> {
        let Self {
            replies, answer, ..
        } = self;
        let replies = replies.into_iter();
        replies.map(move |reply| Action::Reply(reply, answer.clone()))
    }
}

/// What a drain comes to in the process before this one.
pub(super) enum Elsewhere {
    /// It has yet to say what came of this word.
    Awaited(u64),
    Done(Receipt),
    /// It ended without saying.
    Lost,
}

impl Predecessor {
    fn tell(&mut self, word: Word, actions: &mut VecDeque<Action>) -> Option<u64> {
        if !self.hears {
            return None;
        }
        let word = self.numbered(word);
        let number = word.number;
        actions.push_back(Action::Forward(word));
        Some(number)
    }

    /// The word as it is to be told.
    pub(super) fn numbered(&mut self, word: Word) -> Word {
        self.told += 1;
        Word {
            number: self.told,
            ..word
        }
    }

    pub(super) fn hears(&self) -> bool {
        self.hears
    }

    /// This process ends before that one: who waits for both is told what is known.
    pub(super) fn give_up(&mut self, actions: &mut VecDeque<Action>) {
        for (_, mut awaited) in std::mem::take(&mut self.awaited) {
            match &mut awaited.answer {
                Answer::Drained(own) => {
                    own.left.get_or_insert(0);
                    (own.partial, own.ending) = (true, true);
                }
                other => *other = Answer::Refused(vec![GIVEN_UP.to_owned()]),
            }
            actions.extend(awaited.answer());
        }
    }

    /// Who waits for what comes of this word; `None`: nobody has to any more.
    pub(super) fn waiting_for(&mut self, number: u64) -> Option<&mut Vec<Reply>> {
        let awaited = self.awaited.get_mut(&number)?;
        Some(&mut awaited.replies)
    }

    /// Answers once that word has been obeyed; at once where there is none.
    pub(super) fn answer(
        &mut self,
        number: Option<u64>,
        (replies, answer): (Vec<Reply>, Answer),
        actions: &mut VecDeque<Action>,
        since: Duration,
    ) {
        let awaited = Awaited {
            since,
            replies,
            answer,
        };
        match number {
            Some(number) => drop(self.awaited.insert(number, awaited)),
            None => actions.extend(awaited.answer()),
        }
    }
}

impl Publisher {
    /// From here on the process before this one drains, and hears what it is told if it `obeys`. What is given is to be
    /// told as soon as it drains, before anything else: it may end at once.
    pub fn follow_predecessor(&mut self, obeys: bool, now: Duration) -> Vec<Word> {
        self.predecessor.hears = obeys;
        let (drains, predecessor) = (&mut self.drains, &mut self.predecessor);
        let carried = drains.iter_mut();
        let go_on = |drain: &mut PendingDrain| drain.go_on_elsewhere(predecessor, now);
        let mut words: Vec<Word> = carried.filter_map(go_on).collect();
        words.extend(self.words_of_gone(now));
        words
    }

    /// Says the same of these to the process before this one. `None`: there is nobody to tell.
    pub(super) fn forward(&mut self, pool: &str, members: &[u32], word: Word) -> Option<u64> {
        let entry = self.pools.get(pool)?;
        let meant = entry.slots.iter();
        let meant = meant.filter(|slot| members.contains(&slot.member.id));
        let word = Word {
            pool: pool.to_owned(),
            servers: meant.map(known_as).collect(),
            ..word
        };
        self.predecessor.tell(word, &mut self.actions)
    }

    /// The config has let go of a server: so does the process before this one.
    pub(super) fn forward_removal(&mut self, slot: &Slot, timeout: Option<Duration>) {
        self.forward_change(
            slot,
            Word {
                drain: Some(LiveDrain {
                    is_over: true,
                    left_ms: timeout.map(millis),
                    ..LiveDrain::default()
                }),
                ..Word::default()
            },
        );
    }

    /// The config has brought a server: what made the process before this one let go of it is over.
    pub(super) fn forward_addition(&mut self, slot: &Slot) {
        let state = slot.word.unwrap_or(State::Ready);
        self.forward_change(
            slot,
            Word {
                state: Some(state.to_string()),
                ..Word::default()
            },
        );
    }

    /// Nobody waits for what comes of it.
    fn forward_change(&mut self, slot: &Slot, word: Word) {
        let word = Word {
            pool: slot.member.pool.to_string(),
            servers: vec![known_as(slot)],
            ..word
        };
        self.predecessor.tell(word, &mut self.actions);
    }

    /// Answers once the process before this one has obeyed all that it was told by now.
    pub fn answer_when_all_obeyed(&mut self, replies: Vec<Reply>, answer: Answer, now: Duration) {
        let actions = &mut self.actions;
        let number = self.predecessor.tell(Word::default(), actions);
        self.predecessor
            .answer(number, (replies, answer), actions, now);
    }

    pub(super) fn handle_obeyed(&mut self, obeyed: &Obeyed, now: Duration) {
        let receipt = Receipt::from(obeyed);
        if let Some(mut awaited) = self.predecessor.awaited.remove(&obeyed.number) {
            if let Answer::Drained(own) = &mut awaited.answer {
                own.add(&receipt);
                own.took_ms += millis(now.saturating_sub(awaited.since));
                self.complete_ended_drain(obeyed.number, own.clone());
            }
            self.actions.extend(awaited.answer());
            return;
        }
        let mut elsewhere = self
            .drains
            .iter_mut()
            .filter_map(|it| it.elsewhere.as_mut());
        let is_it = |it: &&mut Elsewhere| matches!(it, Elsewhere::Awaited(number) if *number == obeyed.number);
        if let Some(elsewhere) = elsewhere.find(is_it) {
            *elsewhere = Elsewhere::Done(receipt);
        }
    }

    pub(super) fn handle_predecessor_silent(&mut self) {
        // It may yet say what came of it, to whoever asks then.
        for awaited in self.predecessor.awaited.values_mut() {
            let replies = std::mem::take(&mut awaited.replies).into_iter();
            let refused = || Answer::Refused(vec![SILENT.to_owned()]);
            self.actions
                .extend(replies.map(|reply| Action::Reply(reply, refused())));
        }
    }

    /// What it ended before it heard of, in order, concerns nothing that it held.
    pub(super) fn handle_predecessor_ended(&mut self, in_order: bool, now: Duration) {
        self.predecessor.hears = false;
        for (number, mut awaited) in std::mem::take(&mut self.predecessor.awaited) {
            if let Answer::Drained(own) = &mut awaited.answer {
                own.partial |= !in_order;
                own.took_ms += millis(now.saturating_sub(awaited.since));
                self.complete_ended_drain(number, own.clone());
            }
            self.actions.extend(awaited.answer());
        }
        for drain in &mut self.drains {
            if let Some(Elsewhere::Awaited(_)) = drain.elsewhere {
                drain.elsewhere = (!in_order).then_some(Elsewhere::Lost);
            }
        }
    }

    /// Obeys the process after this one. What came of it goes out as an action.
    pub fn handle_word(&mut self, word: &Word, now: Duration) {
        if let Some((pool, members)) = self.meant(word) {
            if word.goes_on {
                self.go_on_for_successor(&members, word.number, now);
                return;
            }
            if let Some(drain) = word.drain {
                let own = self.pools.get(&pool).and_then(|it| it.config.drain_timeout);
                let left = drain.left_ms.map(Duration::from_millis);
                let left = if word.own_timeout { own } else { left };
                if !drain.is_over {
                    let deadline = left.map(|left| now.saturating_add(left));
                    let mut pending = self.begin_drain((&pool, &members), deadline, false, now);
                    pending.asked_by = Some(word.number);
                    self.go_on_with(pending, &pool, now);
                    return;
                }
                self.let_go_for_successor((&pool, &members), left, now);
            }
            let state = word.state.as_deref().and_then(parse_state);
            let weight = word.weight.filter(|weight| *weight <= WEIGHT_MAX);
            self.set(&pool, &members, state, weight, now);
        }
        self.actions.push_back(Action::Obeyed(Obeyed {
            number: word.number,
            ..Obeyed::default()
        }));
    }

    /// `None`: it knows none of them.
    fn meant(&self, word: &Word) -> Option<(Arc<str>, Vec<u32>)> {
        let entry = self.pools.get(word.pool.as_str())?;
        let servers: BTreeSet<_> = word.servers.iter().collect();
        let slots = entry.slots.iter();
        let meant = slots.filter(|slot| servers.contains(&known_as(slot)));
        let members: Vec<u32> = meant.map(|slot| slot.member.id).collect();
        (!members.is_empty()).then(|| (entry.state.name.clone(), members))
    }
}

/// The same in both processes.
fn known_as(slot: &Slot) -> (String, String) {
    (
        slot.configured.to_string(),
        slot.member.endpoint.to_string(),
    )
}

impl Receipt {
    pub(super) fn obeyed(&self, number: u64) -> Obeyed {
        Obeyed {
            number,
            new_picks: self.new_picks,
            affinity_picks: self.affinity_picks,
            finished: self.finished,
            cut: self.cut.iter().map(|cut| cut.count).sum(),
            left: self.left,
            partial: self.partial,
        }
    }
}

impl From<&Obeyed> for Receipt {
    fn from(obeyed: &Obeyed) -> Self {
        let mut receipt = Self {
            new_picks: obeyed.new_picks,
            affinity_picks: obeyed.affinity_picks,
            finished: obeyed.finished,
            left: obeyed.left,
            partial: obeyed.partial,
            ..Self::default()
        };
        receipt.add_cut(obeyed.cut);
        receipt
    }
}
