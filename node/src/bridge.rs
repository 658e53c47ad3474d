//! The way to JavaScript's thread, and back from it.

use engine::update::{Code, Failure};
use napi::{
    Status,
    bindgen_prelude::{Buffer, BufferSlice, FnArgs, Function},
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

/// What JavaScript's `deliver` is called with: a word, JSON, and the bytes of an image.
pub(crate) type Arguments = FnArgs<(&'static str, String, Option<Buffer>)>;

struct Message {
    word: &'static str,
    json: String,
    bytes: Option<Vec<u8>>,
}

/// Weak: it does not keep the process alive. What should, `index.js` keeps alive.
type Deliver = ThreadsafeFunction<Message, (), Arguments, Status, false, true>;

type Answer = Result<Value, Failure>;

/// Calls `deliver` on JavaScript's thread.
pub(crate) struct Bridge {
    /// `None` once nothing more is to come.
    deliver: RwLock<Option<Deliver>>,
    /// Who waits for an answer from JavaScript; `None` once none can come any more.
    waiting: Mutex<Option<HashMap<u64, mpsc::Sender<Answer>>>>,
    next: AtomicU64,
}

impl Bridge {
    pub(crate) fn new(deliver: &Function<'_, Arguments, ()>) -> napi::Result<Self> {
        let deliver = deliver
            .build_threadsafe_function::<Message>()
            .callee_handled::<false>()
            .weak::<true>()
            .build_callback(|context| {
                let Message { word, json, bytes } = context.value;
                // Copied: memory that is not V8's own is not allowed everywhere (Electron).
                let bytes = match bytes {
                    None => None,
                    Some(bytes) => Some(
                        BufferSlice::copy_from(&context.env, bytes)?.into_buffer(&context.env)?,
                    ),
                };
                Ok(FnArgs::from((word, json, bytes)))
            })?;
        Ok(Self {
            deliver: RwLock::new(Some(deliver)),
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
        })
    }

    /// A number for something that is answered later. Exact as a number of JavaScript's.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Has `deliver` called; never waits.
    pub(crate) fn send(&self, word: &'static str, json: &Value) {
        self.deliver(word, json, None);
    }

    fn deliver(&self, word: &'static str, json: &Value, bytes: Option<Vec<u8>>) {
        let deliver = self.deliver.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(deliver) = &*deliver {
            let message = Message {
                word,
                json: json.to_string(),
                bytes,
            };
            deliver.call(message, ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    /// Calls a function of the application and waits for what comes of it: `deliver("call", [number,
    /// name, …arguments], bytes)`, answered by [`answer`](Self::answer). Never on JavaScript's thread.
    ///
    /// # Errors
    /// What the function threw; [`Code::State`] where its thread has ended.
    pub(crate) fn call(&self, name: &str, arguments: &[Value], bytes: Option<&[u8]>) -> Answer {
        let number = self.number();
        let (sender, receiver) = mpsc::channel();
        if let Some(waiting) = &mut *self.waiting() {
            waiting.insert(number, sender);
            let head = [Value::from(number), Value::from(name)];
            let all = head.into_iter().chain(arguments.iter().cloned()).collect();
            self.deliver("call", &Value::Array(all), bytes.map(<[u8]>::to_vec));
        }
        receiver
            .recv()
            .unwrap_or_else(|_| Err(Failure::new(Code::State, "the updater is being closed")))
    }

    pub(crate) fn answer(&self, number: u64, answer: Answer) {
        if let Some(sender) = (self.waiting().as_mut()).and_then(|all| all.remove(&number)) {
            let _ = sender.send(answer);
        }
    }

    /// Nobody waits for JavaScript any more.
    pub(crate) fn abandon(&self) {
        *self.waiting() = None;
    }

    /// Nothing more goes to JavaScript.
    pub(crate) fn end(&self) {
        self.abandon();
        let mut deliver = self.deliver.write().unwrap_or_else(PoisonError::into_inner);
        *deliver = None;
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, mpsc::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
