//! Ctrl-C: a command that has something to finish is asked to, every other one ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Whether the program was asked to stop.
#[derive(Debug, Clone)]
pub struct Interrupt {
    asked: watch::Receiver<u32>,
    handled: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens for Ctrl-C and for SIGTERM from now on.
    pub fn listen() -> Self {
        let (tell, asked) = watch::channel(0);
        tokio::spawn(async move {
            while signal().await {
                tell.send_modify(|times| *times += 1);
            }
            // Nobody can ask any more; whoever waits must not be told otherwise.
            std::future::pending::<()>().await;
        });
        Self { asked, handled: Arc::default() }
    }

    /// From now on the command sees to the first Ctrl-C itself; a second one still ends it.
    pub fn handle(&self) {
        self.handled.store(true, Ordering::Relaxed);
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

async fn signal() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return tokio::signal::ctrl_c().await.is_ok();
    };
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.is_ok(),
        told = terminate.recv() => told.is_some(),
    }
}
