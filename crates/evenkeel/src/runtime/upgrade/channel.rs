//! The socket between the two processes: JSON texts with their length before them, and descriptors.
//!
//! Every wait is bounded. It runs on threads of its own.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of one text: some hundred thousand series.
const TEXT_BYTES_MAX: u32 = 256 << 20;
/// Descriptors in one message; the kernel takes 253 (SCM_MAX_FD).
const SOCKETS_BATCH: usize = 64;
/// How often a wait looks whether it is to be given up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The other side reads at once, or is no evenkeel.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
}

/// Until when something is waited for, and what ends the wait before that.
pub(super) struct Patience<'a> {
    pub(super) until: Option<Instant>,
    pub(super) is_over: &'a dyn Fn() -> bool,
}

impl Patience<'_> {
    /// Waits no longer than this.
    pub(super) fn for_(time: Duration) -> Self {
        Self {
            until: Some(Instant::now() + time),
            is_over: &|| false,
        }
    }

    fn look(&self) -> io::Result<()> {
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        if late || (self.is_over)() {
            return Err(io::Error::from(ErrorKind::TimedOut));
        }
        Ok(())
    }
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        stream.set_write_timeout(Some(WRITE_MAX))?;
        Ok(Self { stream })
    }

    pub(super) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let length = u32::try_from(text.len())
            .ok()
            .filter(|length| *length <= TEXT_BYTES_MAX)
            .ok_or_else(|| io::Error::other("there is too much to hand over"))?;
        (&self.stream).write_all(&length.to_be_bytes())?;
        (&self.stream).write_all(&text)
    }

    pub(super) fn receive<T: DeserializeOwned>(&self, patience: &Patience<'_>) -> io::Result<T> {
        let mut length = [0; 4];
        self.read_exact(&mut length, patience)?;
        let length = u32::from_be_bytes(length);
        if length > TEXT_BYTES_MAX {
            return Err(io::Error::from(ErrorKind::InvalidData));
        }
        let mut text = vec![0; length as usize];
        self.read_exact(&mut text, patience)?;
        Ok(serde_json::from_slice(&text)?)
    }

    fn read_exact(&self, mut rest: &mut [u8], patience: &Patience<'_>) -> io::Result<()> {
        while !rest.is_empty() {
            match (&self.stream).read(rest) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof)),
                Ok(read) => rest = rest.get_mut(read..).unwrap_or_default(),
                Err(error) => wait_on(&error, patience)
                    .map_err(|()| error)
                    .or_else(late)?,
            }
        }
        Ok(())
    }

    pub(super) fn send_sockets(&self, sockets: &[OwnedFd]) -> io::Result<()> {
        for batch in sockets.chunks(SOCKETS_BATCH) {
            let batch: Vec<_> = batch.iter().map(|socket| socket.as_fd()).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_BATCH))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(&batch)) {
                return Err(io::Error::other("no space for descriptors"));
            }
            let byte = [IoSlice::new(b"s")];
            sendmsg(&self.stream, &byte, &mut ancillary, SendFlags::empty())?;
        }
        Ok(())
    }

    pub(super) fn receive_sockets(
        &self,
        count: usize,
        patience: &Patience<'_>,
    ) -> io::Result<Vec<OwnedFd>> {
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_BATCH))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let mut into = [IoSliceMut::new(&mut byte)];
            // From the start no program that is run by then has them.
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.stream, &mut into, &mut ancillary, flags) {
                Ok(message) if message.bytes == 0 => {
                    return Err(io::Error::from(ErrorKind::UnexpectedEof));
                }
                Ok(_) => {
                    for message in ancillary.drain() {
                        if let RecvAncillaryMessage::ScmRights(received) = message {
                            sockets.extend(received);
                        }
                    }
                }
                Err(error) => {
                    let error = io::Error::from(error);
                    wait_on(&error, patience)
                        .map_err(|()| error)
                        .or_else(late)?;
                }
            }
        }
        Ok(sockets)
    }
}

/// Whether an error only says that nothing has come yet, and there is time to wait on.
fn wait_on(error: &io::Error, patience: &Patience<'_>) -> Result<(), ()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => patience.look().map_err(|_| ()),
        _ => Err(()),
    }
}

/// A wait that was given up is a time-out, whatever the system calls it.
fn late(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Err(io::Error::from(ErrorKind::TimedOut)),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Channel, Channel) {
        let (one, two) = UnixStream::pair().expect("it works");
        (
            Channel::new(one).expect("it works"),
            Channel::new(two).expect("it works"),
        )
    }

    #[test]
    fn texts_and_many_sockets_arrive_in_order() {
        let (one, two) = pair();
        let sockets: Vec<TcpListener> = (0..150)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("it works"))
            .collect();
        let sent: Vec<OwnedFd> = sockets
            .iter()
            .map(|socket| socket.try_clone().expect("it works").into())
            .collect();
        one.send(&"before").expect("it works");
        one.send_sockets(&sent).expect("it works");
        one.send(&"after").expect("it works");
        let patience = Patience::for_(Duration::from_secs(10));
        assert_eq!(
            two.receive::<String>(&patience).expect("it works"),
            "before"
        );
        let received = two.receive_sockets(150, &patience).expect("it works");
        assert_eq!(two.receive::<String>(&patience).expect("it works"), "after");
        for (sent, received) in sockets.iter().zip(received) {
            let received = TcpListener::from(received);
            assert_eq!(
                sent.local_addr().expect("it works"),
                received.local_addr().expect("it works")
            );
        }
    }

    #[test]
    fn every_wait_ends() {
        let (one, two) = pair();
        let short = Patience::for_(Duration::from_millis(80));
        let error = one.receive::<String>(&short).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let given_up = Patience {
            until: None,
            is_over: &|| true,
        };
        let error = one
            .receive_sockets(1, &given_up)
            .expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(two);
        let patience = Patience::for_(Duration::from_secs(10));
        let error = one.receive::<String>(&patience).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
