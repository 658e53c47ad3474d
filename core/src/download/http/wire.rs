//! A request of our own: the network is read by a thread of its own.

use super::{
    Http,
    network::{self, BUFFER, BUFFERS, Ends, Queue, lock},
};
use crate::download::wire::{Event, Gone, Request, Wire};
use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};
use ureq::Agent;

/// Once woken, so long is waited for more to come: where the network is fast, it makes the difference
/// between being woken for every 16 KiB and for every 128; where it is slow, nobody notices.
const NAP: Duration = Duration::from_micros(200);

/// The network is read by a thread of its own.
pub(in super::super) struct Threaded {
    agent: Agent,
    events: Receiver<Option<Event>>,
    queue: Arc<Queue>,
    empty: Sender<Vec<u8>>,
}

impl Threaded {
    pub(in super::super) fn open(http: &Http, request: Request) -> io::Result<Self> {
        let agent = http.config.new_agent();
        let (send, events) = mpsc::sync_channel(BUFFERS);
        let (empty, buffers) = mpsc::channel();
        let queue = Arc::new(Queue::default());
        let ends = Ends {
            events: send,
            queue: queue.clone(),
            empty: buffers,
        };
        for _ in 0..BUFFERS {
            let _ = empty.send(vec![0; BUFFER.min(request.longest)]);
        }
        let theirs = agent.clone();
        let rules = Arc::clone(&http.rules);
        thread::Builder::new()
            .name("twinflash-http".into())
            .spawn(move || network::run(&theirs, &rules, request, &ends))?;
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
