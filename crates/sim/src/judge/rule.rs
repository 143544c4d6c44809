//! The rules that a run must keep.

use std::fmt;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// No pick of a server that is draining, disabled, removed, or of weight 0: from the moment of the word on.
    Open,
    /// No pick of a server while a better one is there: healthy before unknown, before one that answers badly, before
    /// one that does not answer.
    Fit,
    /// What is published is what was heard: verdicts, weights, who may serve.
    Current,
    /// No server that may serve is passed over.
    Starved,
    /// Shares keep to the weights, within the bounds that `balance::Algorithm` states.
    Shares,
    /// Retries stay within the budget, and the tries of a request within the servers that there are.
    Amplified,
    /// Who may serve changes no oftener than servers do.
    Oscillates,
    /// A request fails only if no server could have answered it within its tries.
    Lost,
    /// Nothing is sent twice that may not be.
    SentTwice,
    /// A drain ends in time, lets nothing in, and cuts nothing before its deadline.
    Drain,
    /// No more are ejected than may be, never the last, for as long as is due.
    Ejected,
    /// Nobody is ejected, or given less, who did nothing.
    Unjust,
    /// No server holds more requests than it may.
    Limit,
    /// A limit that follows latency keeps to its bounds.
    Adaptive,
    /// What was taken of a server is given back: what it holds is what runs on it.
    Leaked,
    /// Nobody waits while there is a slot for it.
    Idle,
    /// Who waits is served by priority, then in the order in which they came, and no newcomer before them.
    Order,
    /// A wait ends at its deadline, and is refused only where there is no room.
    Waits,
    /// A client goes to the server that it is bound to, whenever that may serve it.
    Bound,
    /// One whose binding is required goes nowhere else.
    Required,
    /// A binding moves only when its server went away, and then to the one that answers.
    Moved,
    /// Every request ends.
    Ends,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "a server that may not serve was picked",
            Self::Fit => "a worse server was picked",
            Self::Current => "the view is out of date",
            Self::Starved => "a server starves",
            Self::Shares => "shares are off",
            Self::Amplified => "too many tries",
            Self::Oscillates => "oscillation",
            Self::Lost => "a request is lost",
            Self::SentTwice => "sent twice",
            Self::Drain => "a drain went wrong",
            Self::Ejected => "an ejection that may not be",
            Self::Unjust => "an innocent server is punished",
            Self::Limit => "a server holds too many",
            Self::Adaptive => "a limit is out of its bounds",
            Self::Leaked => "a slot has leaked",
            Self::Idle => "somebody waits while a slot is free",
            Self::Order => "out of turn",
            Self::Waits => "a wait went wrong",
            Self::Bound => "a bound client goes elsewhere",
            Self::Required => "a client goes elsewhere that may not",
            Self::Moved => "a binding is not what it should be",
            Self::Ends => "no end",
        })
    }
}
