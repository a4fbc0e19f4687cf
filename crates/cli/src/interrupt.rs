//! Ctrl-C: a command that has something to finish is asked to, every other one ends at once.
//!
//! A command may ask itself, for a reason that it says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::Failure;

/// Whether the program was asked to stop.
#[derive(Debug, Clone)]
pub struct Interrupt {
    tell: Arc<watch::Sender<u32>>,
    asked: watch::Receiver<u32>,
    handled: Arc<AtomicBool>,
    is_of_another: Arc<AtomicBool>,
    left: Arc<Mutex<Option<String>>>,
}

impl Interrupt {
    /// Listens for Ctrl-C and for SIGTERM from now on. Within a runtime.
    pub fn listen() -> Self {
        let (tell, asked) = watch::channel(0);
        let (tell, is_of_another) = (Arc::new(tell), Arc::default());
        let interrupt = Self { tell, asked, handled: Arc::default(), is_of_another, left: Arc::default() };
        // Registered before anything is begun: a signal that comes earlier than the first poll counts too.
        interrupt.hear(SignalKind::interrupt());
        interrupt.hear(SignalKind::terminate());
        interrupt
    }

    /// Listens for a terminal that goes away and for SIGQUIT, too: for a command that has something to take away, once. No
    /// other one does, since what `nohup` began would end with its terminal all the same.
    pub fn listen_for_hangups(&self) {
        self.hear(SignalKind::hangup());
        self.hear(SignalKind::quit());
    }

    /// Where a signal cannot be listened for, it ends the program as it does by itself.
    fn hear(&self, kind: SignalKind) {
        let Ok(mut signals) = signal(kind) else { return };
        let (tell, is_of_another) = (Arc::clone(&self.tell), Arc::clone(&self.is_of_another));
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if kind != SignalKind::interrupt() || !is_of_another.load(Ordering::Relaxed) {
                    tell.send_modify(|times| *times += 1);
                }
            }
        });
    }

    /// Works with another program on this terminal: a Ctrl-C meanwhile reaches both, and is meant for that one alone.
    pub async fn of_another<T>(&self, work: impl FnOnce() -> T) -> T {
        self.is_of_another.store(true, Ordering::Relaxed);
        let done = work();
        // What came meanwhile is heard of only now, by the task that counts.
        tokio::time::sleep(Duration::from_millis(20)).await;
        tokio::task::yield_now().await;
        self.is_of_another.store(false, Ordering::Relaxed);
        done
    }

    /// From now on the command sees to the first Ctrl-C itself; a second one still ends it, and `left` is how things stand
    /// then.
    pub fn handle(&self, left: impl Into<String>) {
        self.leaves(left);
        self.handled.store(true, Ordering::Relaxed);
    }

    /// What whoever ends the command from now on, by the first Ctrl-C that comes, should know.
    pub fn leaves(&self, left: impl Into<String>) {
        self.handled.store(false, Ordering::Relaxed);
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(left.into());
    }

    /// How a command ends by a Ctrl-C that nobody saw to.
    pub fn failure(&self) -> Failure {
        match &*self.left.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(left) => Failure::interrupted(format!("Interrupted in the middle: {left}.")),
            None => Failure::interrupted("Interrupted; nothing was changed."),
        }
    }

    /// As if Ctrl-C were pressed; a second time does nothing, and so does the first after one.
    pub fn ask(&self) {
        self.tell.send_if_modified(|times| {
            let first = *times == 0;
            *times += u32::from(first);
            first
        });
    }

    /// Whether Ctrl-C was pressed.
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow() > 0
    }

    /// Waits for the first Ctrl-C.
    pub async fn asked(&self) {
        self.at_least(1).await;
    }

    /// Waits for the Ctrl-C that nobody sees to.
    pub async fn unhandled(&self) {
        self.asked().await;
        if self.handled.load(Ordering::Relaxed) {
            self.at_least(2).await;
        }
    }

    async fn at_least(&self, times: u32) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
