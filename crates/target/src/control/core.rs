//! What the methods work on.

use super::aliases::ALIASES;
use super::message::RpcError;
use super::method::{Methods, Outcome};
use super::methods;
use super::parameters::Parameters;

pub struct Core {
    pub methods: Methods,
    /// After `framework_start_init`.
    pub running: bool,
    /// Somebody asked for the end, by a signal or by `spdk_kill_instance`.
    pub ending: bool,
}

impl Core {
    pub fn new() -> Core {
        Core { methods: Methods::new(methods::TABLES, ALIASES), running: false, ending: false }
    }

    /// Calls a method. The second value says whether its success changes the configuration.
    pub fn call(&mut self, name: &str, parameters: Parameters) -> (Result<Outcome, RpcError>, bool) {
        match self.methods.find(name, parameters, self.running) {
            Err(error) => (Err(error), false),
            Ok((method, parameters)) => {
                if let Some(current) = self.methods.current_name(name) {
                    log::info!("RPC method {name} is deprecated. Use {current} instead.");
                }
                ((method.run)(self, &parameters), method.saves)
            }
        }
    }

    /// The configuration as it is kept in the state file.
    pub fn configuration(&self) -> String {
        String::new()
    }
}

impl Default for Core {
    fn default() -> Self {
        Core::new()
    }
}
