//! The worker's function, as the sentinel handles it.

use std::sync::Arc;

use async_trait::async_trait;
use nightshift_core::sentinel::{ProbeAsk, Switch};
use nightshift_ports::{LiveVersion, PortError, WorkerFunction};

use crate::world::World;

/// Of this world.
pub struct Function(pub Arc<World>);

#[async_trait]
impl LiveVersion for Function {
    async fn live_version(&self) -> Result<u64, PortError> {
        Ok(self.0.version())
    }
}

#[async_trait]
impl WorkerFunction for Function {
    async fn switch(&self) -> Result<Switch, PortError> {
        Ok(if self.0.is_switched_on() { Switch::On } else { Switch::Off })
    }

    async fn turn(&self, on: bool) -> Result<(), PortError> {
        self.0.switch(on);
        Ok(())
    }

    async fn ask_for_probe(&self, ask: &ProbeAsk) -> Result<(), PortError> {
        tokio::spawn(Arc::clone(&self.0).probe(ask.probe));
        Ok(())
    }
}
