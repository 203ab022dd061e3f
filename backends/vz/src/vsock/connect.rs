//! Connecting with a deadline: the framework may never say that nobody listens.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use vmoon_core::{Code, Error, Result, VsockPort};

use crate::framework::{RawConnection, Sockets};

/// How often a connection is tried, and how long each try may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// The time that the framework has to answer the first try; each next has twice as long.
    pub first: Duration,
    /// How many there are.
    pub count: u32,
}

impl Tries {
    /// A second, two, four: a guest that is being restored may be slow to answer.
    pub const DEFAULT: Self = Self { first: Duration::from_secs(1), count: 3 };

    /// The deadline of each try.
    pub fn deadlines(self) -> impl Iterator<Item = Duration> {
        (0..self.count).map(move |turn| self.first * 2_u32.saturating_pow(turn))
    }
}

/// Connects to a port of the guest. Cancel-safe: a connection that nobody waits for any more is
/// closed when it comes.
///
/// # Errors
/// `vsock.refused` when the guest refuses, or does not answer any try.
pub async fn connect(
    sockets: &Arc<dyn Sockets>,
    port: VsockPort,
    tries: Tries,
) -> Result<RawConnection> {
    for deadline in tries.deadlines() {
        let (sender, answer) = oneshot::channel();
        // A receiver that is gone drops what is sent, and so closes the socket.
        sockets.connect(port.0, Box::new(move |outcome| drop(sender.send(outcome))));
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(Ok(connection))) => return Ok(connection),
            Ok(Ok(Err(words))) => return Err(refused(port, &words)),
            // The machine is gone, and the handler with it.
            Ok(Err(_)) => {
                return Err(Error::new(Code::VsockReset, "the machine ended meanwhile"));
            }
            Err(_) => tracing::debug!(port = port.0, ?deadline, "no answer to a connection"),
        }
    }
    Err(refused(port, "no answer"))
}

fn refused(port: VsockPort, words: &str) -> Error {
    Error::new(Code::VsockRefused, format!("the guest refuses vsock port {port}: {words}"))
        .with_hint("nobody listens on that port in the guest")
        .with_detail("port", port.0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    use super::*;
    use crate::framework::Answer;

    /// Answers each try in turn as it is told; what is left out is never answered.
    #[derive(Debug, Default)]
    struct Fake {
        script: Mutex<Vec<Option<Result<(), String>>>>,
        silent: Mutex<Vec<Held>>,
        theirs: Mutex<Vec<UnixStream>>,
    }

    struct Held(Answer);

    impl std::fmt::Debug for Held {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Held")
        }
    }

    impl Fake {
        fn of(script: Vec<Option<Result<(), String>>>) -> Arc<Self> {
            Arc::new(Self { script: Mutex::new(script), ..Self::default() })
        }

        fn raw(&self) -> RawConnection {
            let (ours, theirs) = UnixStream::pair().unwrap();
            self.theirs.lock().unwrap().push(theirs);
            RawConnection { socket: ours.into(), host_port: 9, guest_port: 80 }
        }
    }

    impl Sockets for Fake {
        fn connect(&self, _: u32, answer: Answer) {
            match self.script.lock().unwrap().remove(0) {
                Some(outcome) => answer(outcome.map(|()| self.raw())),
                None => self.silent.lock().unwrap().push(Held(answer)),
            }
        }
        fn listen(&self, _: u32) {}
        fn unlisten(&self, _: u32) {}
    }

    async fn try_all(fake: &Arc<Fake>) -> Result<RawConnection> {
        let sockets: Arc<dyn Sockets> = fake.clone();
        connect(&sockets, VsockPort(80), Tries::DEFAULT).await
    }

    #[test]
    fn each_try_has_twice_as_long() {
        let seconds: Vec<u64> = Tries::DEFAULT.deadlines().map(|it| it.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_tried_again_and_a_late_connection_is_closed() {
        let fake = Fake::of(vec![None, Some(Ok(()))]);
        let connection = try_all(&fake).await.unwrap();
        assert_eq!(connection.guest_port, 80);
        let Held(late) = fake.silent.lock().unwrap().pop().unwrap();
        late(Ok(fake.raw()));
        let mut end = fake.theirs.lock().unwrap().pop().unwrap();
        assert_eq!(end.read(&mut [0]).unwrap(), 0, "the late socket was closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final_and_silence_becomes_one() {
        let fake = Fake::of(vec![Some(Err("reset by peer".to_owned()))]);
        let error = try_all(&fake).await.unwrap_err();
        assert_eq!(error.code(), Code::VsockRefused);
        assert!(error.message().contains("reset by peer"));
        let fake = Fake::of(vec![None, None, None]);
        assert_eq!(try_all(&fake).await.unwrap_err().code(), Code::VsockRefused);
        assert_eq!(fake.silent.lock().unwrap().len(), 3);
    }
}
