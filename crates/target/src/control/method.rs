//! Methods: their names, when they may be called, and what they do.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;

use super::core::Core;
use super::message::{Reply, RpcError, code};
use super::parameters::Parameters;

/// What a method comes to.
pub enum Outcome {
    Now(Value),
    /// Something slow: it runs on a worker thread and answers later.
    Work(Work),
    /// It answers when something has come to pass, or at a deadline.
    Wait(Wait),
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        Outcome::Now(value)
    }
}

/// The slow half of a method; what it returns runs on the control thread afterwards.
pub type Work = Box<dyn FnOnce() -> Finish + Send>;
pub type Finish = Box<dyn FnOnce(&mut Core) -> Reply + Send>;

pub struct Wait {
    pub deadline: Option<Instant>,
    /// Asked again and again; the flag says that the deadline has passed.
    pub poll: Poll,
}

pub type Poll = Box<dyn FnMut(&mut Core, bool) -> Option<Reply>>;

pub type Handler = fn(&mut Core, &Parameters) -> Result<Outcome, RpcError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before `framework_start_init` only.
    Startup,
    Runtime,
    Always,
}

pub struct Method {
    pub name: &'static str,
    pub when: When,
    /// It changes the configuration: with `--state`, its reply waits until the change is on stable storage.
    pub saves: bool,
    pub run: Handler,
}

impl Method {
    pub const fn new(name: &'static str, when: When, run: Handler) -> Method {
        Method { name, when, saves: false, run }
    }

    pub const fn saving(name: &'static str, run: Handler) -> Method {
        Method { name, when: When::Runtime, saves: true, run }
    }

    pub fn allowed(&self, running: bool) -> bool {
        match self.when {
            When::Always => true,
            When::Startup => !running,
            When::Runtime => running,
        }
    }
}

/// A name from before SPDK 22.05, and the keys that it was given under other names.
pub struct Alias {
    pub old: &'static str,
    pub method: &'static str,
    pub keys: &'static [(&'static str, &'static str)],
}

/// All methods, in the order in which they are listed.
pub struct Methods {
    methods: Vec<&'static Method>,
    by_name: HashMap<&'static str, (usize, Option<&'static Alias>)>,
    aliases: &'static [Alias],
}

impl Methods {
    pub fn new(tables: &[&'static [Method]], aliases: &'static [Alias]) -> Methods {
        let methods: Vec<&'static Method> = tables.iter().flat_map(|table| table.iter()).collect();
        let mut by_name: HashMap<_, _> =
            methods.iter().enumerate().map(|(index, method)| (method.name, (index, None))).collect();
        assert_eq!(by_name.len(), methods.len(), "a method is declared twice");
        for alias in aliases {
            let (index, _) = by_name[alias.method];
            assert!(
                by_name.insert(alias.old, (index, Some(alias))).is_none(),
                "{} is declared twice",
                alias.old
            );
        }
        Methods { methods, by_name, aliases }
    }

    /// The method of this name and its parameters under today's keys.
    pub fn find(
        &self,
        name: &str,
        parameters: Parameters,
        running: bool,
    ) -> Result<(&'static Method, Parameters), RpcError> {
        let Some(&(index, alias)) = self.by_name.get(name) else {
            return Err(RpcError::new(code::METHOD_NOT_FOUND, "Method not found")
                .with(format!("there is no method {name}; rpc_get_methods lists them")));
        };
        let method = self.methods[index];
        if !method.allowed(running) {
            return Err(RpcError::new(
                code::INVALID_STATE,
                if running {
                    "Method may only be called before framework is initialized. Use --wait-for-rpc command line \
                     parameter and then issue this RPC before the framework_start_init RPC."
                } else {
                    "Method may only be called after framework is initialized using framework_start_init RPC."
                },
            ));
        }
        let parameters = alias.map_or(Ok(parameters.clone()), |alias| parameters.renamed(alias.keys));
        Ok((method, parameters.map_err(|why| RpcError::new(code::INTERNAL_ERROR, why))?))
    }

    pub fn names(&self, running: Option<bool>, with_aliases: bool) -> Vec<&'static str> {
        let shown = |method: &Method| running.is_none_or(|running| method.allowed(running));
        let methods = self.methods.iter().filter(|method| shown(method)).map(|method| method.name);
        let known = |alias: &&Alias| {
            self.by_name.get(alias.old).is_some_and(|(index, _)| shown(self.methods[*index]))
        };
        let aliases = self.aliases.iter().filter(known).map(|alias| alias.old);
        methods.chain(aliases.filter(|_| with_aliases)).collect()
    }

    /// When a method may be called, if there is one of this name.
    pub fn when(&self, name: &str) -> Option<When> {
        self.by_name.get(name).map(|(index, _)| self.methods[*index].when)
    }

    /// Whether an old name was used, for a word in the log.
    pub fn current_name(&self, name: &str) -> Option<&'static str> {
        self.by_name.get(name).and_then(|(_, alias)| alias.map(|alias| alias.method))
    }
}
