//! The device's end of a request under way.

use super::network::{self, BUFFER, BUFFERS, Ends, Event, Queue, Request, lock};
use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};
use ureq::{Agent, config::Config};

/// Once woken, so long is waited for more to come: where the network is fast, it makes the difference
/// between being woken for every 16 KiB and for every 128; where it is slow, nobody notices.
const NAP: Duration = Duration::from_micros(200);

/// A request under way. Dropping it ends the request.
pub(crate) trait Wire {
    /// The next event; `None` if there was none in this time. The error is that there will never be
    /// one, though the last one was not the end.
    fn next(&mut self, wait: Duration) -> Result<Option<Event>, Gone>;

    /// A buffer whose bytes were taken.
    fn give_back(&mut self, buffer: Vec<u8>);
}

/// The network's side has gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Makes a request.
pub(super) fn open(config: &Config, request: Request) -> io::Result<Box<dyn Wire>> {
    #[cfg(test)]
    let request = match simulated::open(request) {
        Ok(wire) => return Ok(wire),
        Err(request) => request,
    };
    Ok(Box::new(Threaded::open(config, request)?))
}

/// The network is read by a thread of its own.
struct Threaded {
    agent: Agent,
    events: Receiver<Option<Event>>,
    queue: Arc<Queue>,
    empty: Sender<Vec<u8>>,
}

impl Threaded {
    fn open(config: &Config, request: Request) -> io::Result<Self> {
        let agent = config.new_agent();
        let (send, events) = mpsc::sync_channel(BUFFERS);
        let (empty, buffers) = mpsc::channel();
        let queue = Arc::new(Queue::default());
        let ends = Ends {
            events: send,
            queue: queue.clone(),
            empty: buffers,
        };
        for _ in 0..BUFFERS {
            let _ = empty.send(vec![0; BUFFER]);
        }
        let theirs = agent.clone();
        thread::Builder::new()
            .name("twinflash-http".into())
            .spawn(move || network::run(&theirs, request, &ends))?;
        Ok(Self {
            agent,
            events,
            queue,
            empty,
        })
    }
}

impl Wire for Threaded {
    fn next(&mut self, wait: Duration) -> Result<Option<Event>, Gone> {
        let event = match self.events.try_recv() {
            Ok(event) => event,
            Err(_) => match self.events.recv_timeout(wait) {
                Ok(event) => {
                    thread::sleep(NAP);
                    event
                }
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
            },
        };
        Ok(event.or_else(|| {
            let (buffer, filled) = lock(&self.queue).pop_front()?;
            Some(Event::Bytes(buffer, filled))
        }))
    }

    fn give_back(&mut self, buffer: Vec<u8>) {
        // The network's side has gone when it has read the last byte.
        let _ = self.empty.send(buffer);
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        // Wakes a read that would otherwise wait for a silent server.
        self.agent.clone().shutdown();
    }
}

/// A network that a test makes, for its own thread.
#[cfg(test)]
pub(crate) mod simulated {
    use super::{Request, Wire};
    use std::cell::RefCell;

    type Network = Box<dyn FnMut(Request) -> Box<dyn Wire>>;

    thread_local!(static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) });

    /// From now on this one takes this thread's requests.
    pub(crate) fn by(network: Option<Network>) {
        NETWORK.set(network);
    }

    pub(super) fn open(request: Request) -> Result<Box<dyn Wire>, Request> {
        NETWORK.with_borrow_mut(|network| match network {
            Some(network) => Ok(network(request)),
            None => Err(request),
        })
    }
}
